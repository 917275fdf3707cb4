-- The guard: no join gets past it unless a living gate has decided.
--
--   presence/full, bare, host ──> guard ──> gate (muc_webhook/*.lib.lua) ──> mod_muc
--                                   │ there is no gate
--                                   └──> refused; only jicofo may go on
--
-- Prosody goes on without a module that does not load, and its rooms are then open to all. So the refusal does not
-- hang on this module: its handlers stay on the host when the module is unloaded, or does not load again. This file
-- has no options and needs none of the libraries.

local version = "0.2.0";

local host = prosody.hosts[module.host];
if host.type ~= "component" then
	error("mod_muc_webhook belongs on the MUC component, not on a "..host.type.." host", 0);
end

local guard = { why = "it has not started", handlers = {} }; -- `gate` decides about joins, while it is alive

local refuse;
local guards = module:shared("/*/muc_webhook/guards"); -- of all hosts
local earlier = guards[module.host];
for _, name in ipairs { "presence/full", "presence/bare", "presence/host" } do
	guard.handlers[name] = function (event)
		if guard.gate then return guard.gate.admit(name, event); end
		return refuse(event);
	end;
	host.events.add_handler(name, guard.handlers[name], -1); -- mod_muc is at -2
	if earlier then host.events.remove_handler(name, earlier.handlers[name]); end
end
guards[module.host] = guard;

local jid = require "util.jid";
local st = require "util.stanza";

-- Jicofo makes the rooms. Other admins, such as jigasi, bring people in.
local function is_jicofo(stanza)
	if jid.resource(stanza.attr.to) ~= "focus" then return false; end
	local from = jid.bare(stanza.attr.from);
	for admin in module:get_option_inherited_set("admins", {}) do
		if type(admin) == "string" and jid.prep(admin) == from then return true; end
	end
	return false;
end

local function is_inside(stanza)
	local muc = host.modules.muc;
	local room = muc and muc.get_room_from_jid(jid.bare(stanza.attr.to));
	return room and room:get_occupant_jid(stanza.attr.from) ~= nil;
end

function refuse(event)
	local stanza = event.stanza;
	if stanza.attr.type ~= nil or not stanza:get_child("x", "http://jabber.org/protocol/muc") then return; end
	if is_jicofo(stanza) or is_inside(stanza) then return; end
	module:log("warn", "A join was refused, because the gate is down: %s", guard.why);
	local text = "This server cannot check now who may join. Please try again later.";
	event.origin.send(st.error_reply(stanza, "wait", "internal-server-error", text));
	return true;
end

local modulemanager = require "core.modulemanager";

local function folder_of(path)
	return path:match("^(.*)/[^/]*$") or ".";
end

local function with_cure(problem, folder)
	return ("%s. Copy mod_muc_webhook.lua and the folder muc_webhook of one release to %s (Debian package: "
		.."dpkg-reconfigure prosody-sidecar). Then run: prosodyctl shell \"module:reload('muc_webhook')\""):format(problem, folder);
end

local function read(path)
	local file, err = io.open(path, "rb");
	if not file then return nil, err; end -- which names the path
	local text, read_err = file:read("*a"); -- Lua 5.2 wants the asterisk
	file:close();
	return text, path..": "..tostring(read_err);
end

-- A library is whole if it returns its table: that is the last thing in the file.
local function load_library(folder, name, wanted)
	local path = ("%s/muc_webhook/%s.lib.lua"):format(folder, name);
	local text, err = read(path);
	if not text then return nil, err; end
	local chunk, syntax_err = load(text, "@"..path, "t", setmetatable({ module = module }, { __index = _G }));
	if not chunk then return nil, path.." does not compile: "..syntax_err; end
	local ok, library = pcall(chunk);
	if not ok then return nil, path.." does not load: "..tostring(library); end
	if type(library) ~= "table" then return nil, path.." is not whole"; end
	if library.version ~= wanted then
		return nil, ("%s is of version %s, and mod_muc_webhook.lua is of version %s"):format(path, library.version, wanted);
	end
	return library;
end

-- Each once, by name, or nil and what is wrong. The first one says which others there are.
local function load_libraries(folder, wanted)
	local start, err = load_library(folder, "start", wanted);
	local libraries = { start = start };
	for _, name in ipairs(start and start.parts or {}) do
		libraries[name], err = load_library(folder, name, wanted);
		if not libraries[name] then return nil, err; end
	end
	return start and libraries, err;
end

-- What a reload would find wrong with the files that are there now, and their folder. Prosody takes the first guard
-- in its plugin paths, which may be another one than this.
local function problem_on_disk()
	local text, path = modulemanager.loader:load_resource(module.name);
	if not text then return path, folder_of(module.path); end -- it is an error, which names the path
	local folder = folder_of(path);
	local new = text:match('\nlocal version = "([^"]+)";\n');
	if not new or not text:find("\n%-%- The end%.\n$") then return path.." is not whole", folder; end
	local libraries, err = load_libraries(folder, new);
	return not libraries and err or nil, folder;
end

local gate; -- stays when it is down: it holds what a later one goes on with
local kept = module.saved_state;

-- Returns nothing once the gate is alive, else why it is not and what to do.
local function start()
	local folder = folder_of(module.path);
	local libraries, err = load_libraries(folder, version);
	if not libraries then return with_cure(err, folder); end
	if not host.modules.muc then return "mod_muc is not loaded on "..module.host..". The gate starts when it is"; end
	local ok, result = pcall(libraries.start.start, libraries, kept);
	if not ok then return with_cure(folder.."/muc_webhook: "..tostring(result), folder); end
	gate, guard.gate = result, result;
	return nil;
end

local function go_down(why)
	guard.gate, guard.why = nil, why;
end

-- When this throws, Prosody goes on with the module that it has.
function module.save()
	local problem, folder = problem_on_disk();
	if problem then
		local what = with_cure(problem, folder);
		module:log("error", "The reload is refused, and nothing has changed: %s", what);
		if not guard.gate then guard.why = what; end
		error(setmetatable({}, { __tostring = function () return problem; end })); -- Prosody adds no traceback to a table
	end
	if gate then kept = gate.save(); end
	return kept;
end

function module.unload()
	go_down(("mod_muc_webhook is not loaded. To load it, run: prosodyctl shell \"module:load('muc_webhook', '%s')\""):format(
		module.host));
	if gate then gate.stop(module.reloading); end
end

local function on_muc(event)
	if event.module == "muc" then modulemanager.reload(module.host, module.name); end
end
module:hook("module-loaded", on_muc);
module:hook("module-reloaded", on_muc);
module:hook("module-unloaded", function (event)
	if event.module == "muc" then go_down("mod_muc was unloaded. The gate starts when it is loaded"); end
end);

-- The shell is one for all hosts.
local shell = module:shared("/*/admin_shell/env");
shell.muc_webhook = shell.muc_webhook or {};

function guard.status(print)
	if guard.gate then return guard.gate.status(print); end
	print(("%s: the gate is DOWN, every join is refused: %s"):format(module.host, guard.why));
end

function shell.muc_webhook:status()
	local n = 0;
	for name, each in pairs(guards) do
		if prosody.hosts[name] then
			each.status(self.session.print);
			n = n + 1;
		end
	end
	return true, ("%d component(s)"):format(n);
end

local why = start();
if why then
	go_down(why);
	module:log("error", "Every join is refused, because the gate is down: %s", why);
	module:set_status("error", "The gate is down: "..why);
end

-- The end.
