-- For wrk: sends the module's requests for users of many rooms, and prints the result as one line of JSON.
-- Arguments after `--`: the body with %ROOM% and %USER%, the number of users, users in a room, whether the connection
-- is closed after each request ("close") or kept ("keep"), and whether each request is made when it is sent, for a
-- random user ("random"), or all are made before and sent in turn ("in turn").
local function body(template, user, in_a_room)
	local room = math.floor(user / in_a_room);
	return (template:gsub("%%ROOM%%", tostring(room)):gsub("%%USER%%", tostring(user)));
end

function init(args)
	local template, users, in_a_room = args[1], tonumber(args[2]), tonumber(args[3]);
	local headers = { ["Content-Type"] = "application/json" };
	if args[4] == "close" then headers["Connection"] = "close"; end
	math.randomseed(os.time());
	local function made(user) return wrk.format("POST", nil, headers, body(template, user, in_a_room)); end
	if args[5] == "random" then
		request = function () return made(math.random(0, users - 1)); end
	else
		local requests, at = {}, 0;
		for user = 0, users - 1 do requests[user + 1] = made(user); end
		request = function ()
			at = at % users + 1;
			return requests[at];
		end
	end
end

function done(summary, latency)
	local errors = summary.errors;
	io.write(string.format(
		'{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"longest":%f,"broken":%d,"bad":%d}\n',
		summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
		latency.max / 1e6, errors.connect + errors.read + errors.write + errors.timeout, errors.status
	));
end
