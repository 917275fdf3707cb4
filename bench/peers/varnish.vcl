# A caching proxy for the same calls. Varnish can hash a body but not read it, so the key is the whole body. Therefore
# all requests of the benchmark have one timestamp; with real timestamps, which change every second, no cached answer
# would be used. The guests of a room cannot share an answer either.
vcl 4.1;
import std;
import bodyaccess;

backend default {
    .host = "127.0.0.1";
    .port = "@backend@";
    .connect_timeout = 1s;
    .first_byte_timeout = 4s;
    .probe = { .url = "/"; .interval = 1s; .timeout = 500ms; .window = 2; .threshold = 1; .initial = 1; }
}

sub vcl_recv {
    if (req.method != "POST") {
        return (synth(405));
    }
    if (!std.cache_req_body(64KB)) {
        return (synth(413));
    }
    set req.http.X-Webhook-Secret = "@secret@";
    if (std.healthy(req.backend_hint)) {
        set req.grace = 15s;
    }
    return (hash);
}

sub vcl_hash {
    bodyaccess.hash_req_body();
    hash_data(req.url);
    return (lookup);
}

sub vcl_backend_fetch {
    set bereq.method = "POST";
    return (fetch);
}

sub vcl_backend_response {
    if (beresp.status >= 500 && bereq.is_bgfetch) {
        return (abandon);
    }
    if (beresp.status != 200) {
        set beresp.ttl = 0s;
        set beresp.uncacheable = true;
        return (deliver);
    }
    set beresp.ttl = @fresh@s;
    set beresp.grace = @stale@s;
    return (deliver);
}
