-- requireLobby: this user waits in the lobby until a moderator lets them in, whoever else may pass.
--
-- If the room has no lobby, one is made for those who wait. Everybody else who is allowed still comes in: as a member,
-- see members_only.lib.lua. The answer of Jitsi's muc_lobby_rooms is given here, ahead of it and of the modules that
-- lead past a lobby.
--
--   join ──> has to wait? ──> lobby ──> a moderator invites ──> member, and `admitted` ──> join

local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";
local xmlns_muc_user = "http://jabber.org/protocol/muc#user";
local no_lobby = "You have to wait in the lobby of this meeting, but this server has no lobby";

local rooms, decisions, locks, setup, messages; -- handed over by start.lib.lua

local function admitted(room)
	local life = rooms.life_of(room);
	life.admitted = life.admitted or {};
	return life.admitted;
end

local function has_to_wait(event)
	local bare_jid = event.occupant.bare_jid;
	if not decisions.of(event.stanza).waits or admitted(event.room)[bare_jid] then return false; end
	return event.room:get_affiliation(bare_jid) ~= "outcast"; -- mod_muc refuses those
end

-- A lock that others have set before stays theirs: then nobody is led past the lobby.
local function open_for_some(room)
	local is_locked_by_others = room:get_members_only() and locks.owner_of(room, "members_only") == "others";
	setup.open_lobby(room);
	if not room._data.lobbyroom then return; end
	locks.take(room, "lobby", "waiting");
	if not is_locked_by_others then locks.take(room, "members_only", "waiting"); end
end

-- In the form of Jitsi's muc_lobby_rooms.
local function send_to_lobby(event, lobby_jid)
	event.origin.send(st.error_reply(event.stanza, "auth", "registration-required", nil, event.room.jid)
		:text_tag("lobbyroom", lobby_jid, { xmlns = xmlns_jitmeet }):up()
		:text_tag("lobbyroom", lobby_jid)); -- for older apps
end

local function refuse(event)
	local refusal = { type = "JOIN_REFUSED"; reason = no_lobby };
	if event.origin.type == "c2s" then
		event.origin.send(messages.data(event.room.jid, event.stanza.attr.from, refusal));
	end
	event.origin.send(messages.refusal(event.stanza, event.room.jid, refusal));
end

-- Returns true if the join ends here.
local function on_pre_join(event)
	if not has_to_wait(event) then return; end
	local room = event.room;
	-- mod_muc makes an owner of whoever makes a room, but this user has not come in.
	if event.is_new_room then setup.call(room, "set_affiliation", true, event.occupant.bare_jid, "none"); end
	if not room._data.lobbyroom then open_for_some(room); end
	local lobby_jid = room._data.lobbyroom;
	module:log("info", "A join into %s has to wait in the lobby%s", room.jid, lobby_jid and "" or ", and there is none");
	if lobby_jid then send_to_lobby(event, lobby_jid); else refuse(event); end
	return true;
end

local function is_moderator(room, nick)
	local occupant = nick and room:get_occupant_by_nick(nick);
	return occupant and occupant.role == "moderator";
end

-- This is how a moderator lets somebody in from Jitsi's lobby.
local function on_invite(event)
	local invite = event.stanza:get_child("x", xmlns_muc_user);
	invite = invite and invite:get_child("invite");
	if not invite or not is_moderator(event.room, invite.attr.from) then return; end
	admitted(event.room)[jid.bare(event.stanza.attr.to)] = true;
end

-- Or in a form; `actor` is there if it was a user.
local function on_affiliation(event)
	local affiliation = event.affiliation;
	if not event.actor then return; end
	admitted(event.room)[event.jid] = (affiliation == "member" or affiliation == "admin" or affiliation == "owner") or nil;
end

-- It is for one stay, breakout rooms included.
local function on_left(event)
	local life = rooms.known_life(event.room);
	if not life or not life.admitted then return; end
	local stanza = event.stanza;
	if rooms.is_in_breakout(event.room) and stanza and stanza:get_child_text("status") == "switch_room" then return; end
	life.admitted[event.occupant.bare_jid] = nil;
end

local function new(need)
	rooms, decisions, locks, setup = need.rooms, need.decisions, need.locks, need.setup;
	messages = need.messages;
	return { on_pre_join = on_pre_join; on_invite = on_invite; on_affiliation = on_affiliation; on_left = on_left };
end

return { version = "0.2.0"; new = new };
