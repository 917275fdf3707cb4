-- The tests' window into a running Prosody: POST /rig with a piece of Lua answers its result as JSON.
module:set_global();

local json = require "util.json";

local function run(code)
	local f = assert(load(code, "=rig", "t", setmetatable({ prosody = prosody, module = module }, { __index = _G })));
	return f();
end

function module.add_host(host_module)
	host_module:depends "http";
	host_module:provides("http", {
		default_path = "/rig";
		route = {
			POST = function (event)
				local ok, result = xpcall(run, debug.traceback, event.request.body);
				event.response.headers.content_type = "application/json";
				if not ok then
					event.response.status_code = 500;
					return json.encode({ error = tostring(result) });
				end
				return json.encode({ result = result == nil and json.null or result });
			end;
		};
	});
end
