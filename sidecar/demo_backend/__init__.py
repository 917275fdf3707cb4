"""A small meeting service to play with: the backend of `make demo`, `make run` and of the README.

    POST /webhooks/jitsi/<endpoint> -> count -> secret? -> body? -> fault? -> room rules -> answer
    POST /demo/...                  -> changes a room or a fault while it runs
    GET  /                          -> says how to use it

It speaks the same wire as a real meeting service and keeps everything in memory. Names of rooms choose what
they are, so that the first `curl` has something to see: `cancelled-*`, `private-*`, `no-chat`, all others are
open. What an operator sets with `/demo/rooms/<room>` goes before the name.
"""
