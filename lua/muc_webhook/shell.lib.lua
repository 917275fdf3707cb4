-- prosodyctl shell: what is known of the gate and of a room.

local array = require "util.array";
local json = require "util.json";
local now = require "util.time".now;

local state, options, rooms, settings, neighbours, link; -- handed over by start.lib.lua

local function count_of(set)
	local n = 0;
	for _ in pairs(set) do n = n + 1; end
	return n;
end

local function print_status(print)
	print(("%s asks %s"):format(module.host, options.url or "nobody"));
	for _, problem in ipairs(options.problems) do print("  problem: "..problem); end
	for _, hint in ipairs(options.advice) do print("  advice: "..hint); end
	if options.missing_locks then print("  advice: "..options.missing_locks); end
	for _, hint in ipairs(neighbours.list()) do print("  "..hint); end
	print("  link: "..link.describe());
	local counts, queue = state.counts, state.queue;
	print(("  joins: %d pending, %d allowed, %d denied, %d into refused rooms, %d without a decision, %d not asked for"):format(
		state.pending_joins, counts.allowed, counts.denied, counts.refused, counts.unavailable, counts.exempt));
	print(("  rooms: %d with a config, or waiting for one"):format(count_of(state.records)));
	print(("  events: %d waiting, %d dropped%s"):format(queue.size, queue.dropped,
		queue.failures > 0 and (", the last %d tries failed"):format(queue.failures) or ""));
	if options.fallback_url then
		local direct = state.primary_down_until > now();
		print(("  fallback: %s, %s"):format(options.fallback_url, direct and "in use" or "not in use"));
	end
end

-- Without the password.
local function print_settings(print, record)
	local shown, names = {}, {};
	for name in pairs(settings.for_room) do shown[name] = record.settings[name]; end
	for name in pairs(settings.for_frontend) do shown[name] = record.frontend[name]; end
	if shown.password then shown.password = "(set)"; end
	for name in pairs(shown) do table.insert(names, name); end
	table.sort(names);
	for _, name in ipairs(names) do print(("    %s = %s"):format(name, json.encode(shown[name]))); end
end

local function print_record(print, record)
	local what = record.degraded and "Prosody's defaults" or record.state;
	local waiting = record.waiters and (", %d joins wait for it"):format(#record.waiters) or "";
	print(("  config: %s, asked for %.0f seconds ago%s"):format(what, now() - record.asked_at, waiting));
	if record.settings then print_settings(print, record); end
end

local function print_room(print, room_jid)
	local record, life, room = state.records[room_jid], state.lives[room_jid], rooms.of(room_jid);
	if not record and not room then return false; end
	local there = room and ("there, with %d participants"):format(rooms.real_occupants(room)) or "not there";
	print(("%s is %s"):format(room_jid, there));
	if record then
		print_record(print, record);
	else
		print("  config: none yet; the next join asks for it");
	end
	if life then print(("  events so far: %d"):format(life.sequence)); end
	local started_at = room and room._data.muc_webhook_started_at;
	if started_at then
		local date = os.date("%Y-%m-%d %H:%M:%S", started_at);
		print(("  meeting since %s%s"):format(date, life and life.timer and ", limited" or ""));
	end
	return true;
end

-- The shell is one for all hosts, so it asks the gates of all.
local function show_room(section, name)
	if type(name) ~= "string" then return nil, "Which room? Give its name or its JID"; end
	local found = 0;
	for host, guard in pairs(module:shared("/*/muc_webhook/guards")) do
		local room_jid = name:find("@", 1, true) and name or name.."@"..host;
		if guard.gate and guard.gate.room(section.session.print, room_jid) then found = found + 1; end
	end
	if found == 0 then return nil, "Nothing is known of "..name; end
	return true, ("%d room(s)"):format(found);
end

-- The guard has made the section, with a status that also works while there is no gate.
local function add_commands()
	local section = module:shared("/*/admin_shell/env").muc_webhook;
	section.room = show_room;
	setmetatable(section, {
		help = { -- Prosody 13 reads this; 0.12 takes no notice
			desc = "Joins and rooms that a meeting service decides about";
			commands = {
				status = { desc = "What was asked and answered so far", args = array {}, module = module.name };
				room = { desc = "What is known of a room", args = array { { name = "room", type = "string" } }, module = module.name };
			};
		};
	});
end

local function new(need)
	state, options, rooms, settings = need.state, need.options, need.rooms, need.settings;
	neighbours, link = need.neighbours, need.link;
	return { print_status = print_status; print_room = print_room; add_commands = add_commands };
end

return { version = "0.2.0"; new = new };
