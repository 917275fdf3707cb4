-- Jitsi's visitor nodes: Prosodys of their own, with mod_fmuc on the MUC component, where people only watch.
--
-- A visitor is asked about and stays a visitor. The participants of the main Prosody are mirrored into the node's room,
-- over s2s; they have passed the gate there.

local host, main_domain; -- made by `new`

local function is_node()
	return host.modules.fmuc ~= nil;
end

-- Other servers vouch for their users only. A user of this Prosody is a visitor, whatever the domain is called.
local function is_mirrored(domain)
	if not main_domain or prosody.hosts[domain] or not is_node() then return false; end
	return domain == main_domain or domain:sub(-#main_domain - 1) == "."..main_domain;
end

local function new()
	host, main_domain = prosody.hosts[module.host], module:get_option_string("main_domain");
	return { is_node = is_node; is_mirrored = is_mirrored };
end

return { version = "0.2.0"; new = new };
