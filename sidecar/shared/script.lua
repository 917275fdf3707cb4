-- Everything that a sidecar does in the engine, in one step each. docs/shards.md describes the keys.
--
-- KEYS: generation, stream, and those of the operation. ARGV: operation, a random text, and those of the operation.
-- Each answer begins with the epoch and the engine's clock in milliseconds.

local operation, nonce = ARGV[1], ARGV[2]
local generation_key, stream = KEYS[1], KEYS[2]
local MOST = 100000 -- messages in the stream
local MOST_NUMBER = 2 ^ 52 -- of a message
local HOUR = 3600000
local DAY, MOST_CHANGES = 86400000, 10000 -- what is kept of changes
local DRIFT = 1000 -- what sidecars know of the time of one deny differs by less
local RESTRICTS = { deny = true, lobby = true, private = true }
local HERE, AWAY = 10000, 300000 -- a sidecar that was heard of so lately is there; or may come back with its rooms

local seconds = redis.call("TIME")
local now = seconds[1] * 1000 + math.floor(seconds[2] / 1000)

local function epoch()
	local generation = redis.call("GET", generation_key)
	if not generation or redis.call("EXISTS", stream) == 0 then
		generation = nonce
		redis.call("SET", generation_key, generation)
		redis.call("DEL", stream)
		redis.call("XADD", stream, "1-0", "m", "", "at", now)
	end
	local facts = redis.call("INFO", "server", "replication")
	local run, replication = facts:match("run_id:(%x+)"), facts:match("master_replid:(%x+)")
	return run:sub(1, 16) .. "-" .. replication:sub(1, 16) .. "-" .. generation
end

-- The number of the last message, also if it was trimmed.
local function tail()
	local said = redis.call("XINFO", "STREAM", stream)
	for index = 1, #said, 2 do
		if said[index] == "last-generated-id" then
			return tonumber(said[index + 1]:match("^%d+"))
		end
	end
end

local function say(message, at)
	redis.call("XADD", stream, "MAXLEN", "~", MOST, string.format("%d-0", tail() + 1), "m", message, "at", at)
end

local function keep_for(key, milliseconds)
	if redis.call("PTTL", key) < milliseconds then
		redis.call("PEXPIRE", key, milliseconds)
	end
end

-- The parts of a fence: drop, revoke, suspect, denied; then when the last was replaced, and whether it waits to be.
local function read_fence(key)
	local fence = redis.call("HMGET", key, "d", "r", "s", "k", "at", "waits", "every")
	if not fence[1] then
		redis.call("HSET", key, "d", nonce, "r", nonce, "s", nonce, "k", nonce)
		redis.call("PEXPIRE", key, HOUR)
		return { nonce, nonce, nonce, nonce }
	end
	if fence[6] and now - fence[5] >= tonumber(fence[7]) then
		redis.call("HSET", key, "k", nonce, "at", now)
		redis.call("HDEL", key, "waits")
		fence[4] = nonce
	end
	return { fence[1], fence[2], fence[3], fence[4] }
end

local function read_fences(first)
	local fences = {}
	for index = first, #KEYS do
		fences[#fences + 1] = read_fence(KEYS[index])
	end
	return fences
end

local function denied_in(room, every)
	local fence = redis.call("HMGET", room, "k", "at")
	if not fence[1] then
		return
	end
	if not fence[2] or now - fence[2] >= every then
		redis.call("HSET", room, "k", nonce, "at", now)
		redis.call("HDEL", room, "waits")
	else
		redis.call("HSET", room, "waits", 1, "every", every)
	end
end

local function store(key, current, verdict, settled, asked, content, lifetime)
	redis.call("HSET", key, "e", current, "v", verdict, "w", settled, "a", asked, "c", content)
	redis.call("PEXPIRE", key, lifetime)
	for index = 4, #KEYS do
		keep_for(KEYS[index], lifetime + HOUR)
	end
end

local does = {}

-- KEYS: members, their processes. ARGV: position, most, this shard, the epoch that is to end, by how much its clock was
-- set back, the process of this shard
function does.beat()
	local position, most, member, renew = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
	local current = epoch()
	if renew == current then
		local clock, set_back = redis.call("GET", generation_key):match("^([^+]*)%+?(%d*)$")
		redis.call("SET", generation_key, string.format("%s+%.0f", clock, (tonumber(set_back) or 0) + ARGV[7]))
		current = epoch()
	end
	redis.call("ZADD", KEYS[3], now, member) -- a write: it fails where an engine may not write
	for _, gone in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", now - AWAY)) do
		redis.call("HDEL", KEYS[4], gone)
	end
	redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", now - AWAY)
	local before = redis.call("HGET", KEYS[4], member) or ""
	if before ~= ARGV[8] then
		redis.call("HSET", KEYS[4], member, ARGV[8])
	end
	local members = redis.call("ZCOUNT", KEYS[3], now - HERE, "+inf")
	if tail() > MOST_NUMBER then -- somebody has written with a number of his own, after which there is none
		redis.call("DEL", stream)
		current = epoch()
	end
	if position < 0 or position > MOST_NUMBER then
		position = 0
	end
	local messages = redis.call("XRANGE", stream, string.format("%d-0", position + 1), "+", "COUNT", most)
	local numbered = {}
	for index, message in ipairs(messages) do
		local number, content = tonumber(message[1]:match("^%d+")), message[2]
		numbered[index] = { number, tonumber(content[4]) or now, content[2] or "?" }
	end
	local replicas = redis.call("INFO", "replication"):match("connected_slaves:(%d+)")
	return { current, now, tail(), members, tonumber(replicas), numbered, before }
end

-- KEYS: members, their processes. ARGV: shards that may be forgotten here, each with the milliseconds that it was away
function does.present()
	local current = epoch()
	for index = 3, #ARGV, 2 do
		redis.call("ZADD", KEYS[3], "GT", now - ARGV[index + 1], ARGV[index])
	end
	local known = redis.call("ZRANGEBYSCORE", KEYS[3], now - AWAY, "+inf", "WITHSCORES")
	local members = {}
	for index = 1, #known, 2 do
		local process = redis.call("HGET", KEYS[4], known[index]) or ""
		members[#members + 1] = { known[index], now - known[index + 1], process }
	end
	return { current, now, members }
end

-- KEYS: the answer, its fences
function does.read()
	local current, fences = epoch(), read_fences(4)
	for index, fence in ipairs(fences) do
		fences[index] = table.concat(fence, " ")
	end
	local kept = redis.call("HMGET", KEYS[3], "c", "w")
	return { current, now, table.concat(fences, "\n"), kept[1], kept[2] } -- one text: a client reads it in one piece
end

-- KEYS: the answer, its fences. ARGV: verdict, epoch, asked, lifetime, content, the fences as they were
function does.keep()
	local verdict, of, asked, lifetime, content = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
	local current = epoch()
	if of ~= current then
		return { current, now, "epoch" }
	end
	local fences = read_fences(4)
	for index, fence in ipairs(fences) do
		for part = 1, 4 do
			if fence[part] ~= ARGV[3 + index * 4 + part] then
				return { current, now, "fences" }
			end
		end
	end
	local kept = redis.call("HMGET", KEYS[3], "v", "w", "a")
	if kept[1] == "private" or (RESTRICTS[kept[1]] and tonumber(kept[2]) >= asked) then
		return { current, now, "denied" }
	end
	if kept[3] and tonumber(kept[3]) > asked then
		return { current, now, "older" }
	end
	store(KEYS[3], current, verdict, now, asked, content, lifetime)
	return { current, now, "kept" }
end

-- KEYS: the answer, its fences, of which the second is the room's. ARGV: verdict (lobby: an allow that leads there),
-- milliseconds since it was asked and since it was answered, lifetime, content, every, message, whether it is said again
function does.deny()
	local verdict, asked, settled = ARGV[3], now - ARGV[4], now - ARGV[5]
	local lifetime, content, every, message = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), ARGV[9]
	local current = epoch()
	local kept = redis.call("HMGET", KEYS[3], "v", "a", "e", "w")
	-- Times of two epochs cannot be compared: then what restricts counts.
	local newer = kept[3] == current and kept[1] ~= "deny" and kept[1] ~= "private" and tonumber(kept[2]) > settled
	local stricter = kept[1] == "deny" and verdict == "lobby" and tonumber(kept[4]) >= asked
	if newer or (kept[1] == "private" and verdict ~= "private") then
		return { current, now, "older" }
	elseif stricter then -- no allow from before the lobby may replace the deny
		redis.call("HSET", KEYS[3], "w", string.format("%.0f", math.max(kept[4], settled)))
		say(message, settled)
		return { current, now, "stricter" }
	end
	-- Every sidecar says its denies again to a new epoch, in which all allows from before are suspect: who wants to use
	-- one reads this entry first. So one message is enough, although the times that sidecars know differ a little.
	if ARGV[10] == "again" and kept[3] == current and kept[1] == verdict and kept[4] + DRIFT >= settled then
		redis.call("HSET", KEYS[3], "w", string.format("%.0f", math.max(kept[4], settled)))
		keep_for(KEYS[3], lifetime)
		return { current, now, "known" }
	end
	store(KEYS[3], current, verdict, settled, asked, content, lifetime)
	if verdict == "deny" then
		denied_in(KEYS[5], every)
	end
	say(message, settled)
	return { current, now, "kept" }
end

-- KEYS: the changes of the last day, the fences. ARGV: the part, message
function does.change()
	local current = epoch()
	for index = 4, #KEYS do
		if redis.call("EXISTS", KEYS[index]) == 1 then
			redis.call("HSET", KEYS[index], ARGV[3], nonce)
			keep_for(KEYS[index], HOUR)
		end
	end
	redis.call("ZADD", KEYS[3], now, ARGV[4])
	redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", now - DAY)
	if redis.call("ZCOUNT", KEYS[3], "-inf", "+inf") > MOST_CHANGES then
		local oldest = redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", "+inf", "WITHSCORES", "LIMIT", 0, 1)
		redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", oldest[2])
	end
	redis.call("PEXPIRE", KEYS[3], DAY)
	say(ARGV[4], now)
	return { current, now, "kept" }
end

-- KEYS: the changes of the last day
function does.changes()
	local current, changes = epoch(), redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", "+inf", "WITHSCORES")
	local said = {}
	for index = 1, #changes, 2 do
		said[#said + 1] = { tonumber(changes[index + 1]), changes[index] }
	end
	return { current, now, said }
end

-- KEYS: the answer
function does.withdraw()
	redis.call("DEL", KEYS[3])
	return { epoch(), now, "kept" }
end

-- KEYS: the orders that wait, the shards that have no such room. ARGV: id, milliseconds until it is given up, message
function does.order()
	local current = epoch()
	local known = redis.call("HGET", KEYS[3], ARGV[3])
	local number = known and known:match("^%d+") or tostring(tail() + 1)
	redis.call("HSET", KEYS[3], ARGV[3], string.format("%s %.0f ", number, now + ARGV[4]) .. ARGV[5])
	redis.call("DEL", KEYS[4])
	say(ARGV[5], now)
	return { current, now, "kept" }
end

-- KEYS: the orders that wait, the shards that have no such room, all shards. ARGV: id, shard (empty: the order was
-- carried out, or failed), message, the epoch of which the sidecar knows that it has the names of all shards
function does.outcome()
	local current, id, shard, message = epoch(), ARGV[3], ARGV[4], ARGV[5]
	if redis.call("HEXISTS", KEYS[3], id) == 0 then
		return { current, now, "over" }
	end
	if shard ~= "" then
		if ARGV[6] ~= current then
			return { current, now, "incomplete" }
		end
		redis.call("HSET", KEYS[4], shard, 1)
		keep_for(KEYS[4], HOUR)
		for _, each in ipairs(redis.call("ZRANGEBYSCORE", KEYS[5], now - AWAY, "+inf")) do
			if redis.call("HEXISTS", KEYS[4], each) == 0 then
				return { current, now, "waits" }
			end
		end
	end
	say(message, now)
	return { current, now, "said" }
end

-- KEYS: the orders that wait, the shards that have no such room. ARGV: id
function does.over()
	redis.call("HDEL", KEYS[3], ARGV[3])
	redis.call("DEL", KEYS[4])
	return { epoch(), now, "kept" }
end

-- KEYS: the orders that wait. Those whose sidecar has not ended them in time are removed.
function does.orders()
	local current, orders = epoch(), redis.call("HGETALL", KEYS[3])
	local waiting = {}
	for index = 1, #orders, 2 do
		local number, ends, message = orders[index + 1]:match("^(%d+) (%d+) (.*)$")
		if not number or tonumber(ends) < now then
			redis.call("HDEL", KEYS[3], orders[index])
		else
			waiting[#waiting + 1] = { tonumber(number), message }
		end
	end
	return { current, now, waiting }
end

-- Errors that do not end by themselves: somebody else has written what cannot be read.
local UNREADABLE = { "WRONGTYPE", "attempt to ", "bad argument", "stream ID", "equal or smaller", "exhausted" }

local function is_unreadable(message)
	for _, part in ipairs(UNREADABLE) do
		if message:find(part, 1, true) then
			return true
		end
	end
	return false
end

local function has_its_type(key)
	local kind, answer = key:match("^.*}:(%a+)"), nil
	if kind == "generation" then
		answer = redis.pcall("GET", key)
	elseif kind == "stream" then
		answer = redis.pcall("XRANGE", key, "-", "+", "COUNT", 1)
	elseif kind == "members" or kind == "changes" then
		answer = redis.pcall("ZCOUNT", key, 0, 0)
	else
		answer = redis.pcall("HEXISTS", key, "f")
	end
	return type(answer) ~= "table" or not answer.err
end

-- It is removed, as if the engine had lost it: keys of another type, or else what the operation is about.
local function remove_unreadable(message)
	local of_type = true
	for _, key in ipairs(KEYS) do
		if not has_its_type(key) then
			redis.call("DEL", key)
			of_type = false
		end
	end
	if of_type and (operation == "beat" or message:find("XADD", 1, true) or message:find("ID", 1, true)) then
		redis.call("DEL", stream)
	elseif of_type then
		for index = 3, #KEYS do
			redis.call("DEL", KEYS[index])
		end
	end
	redis.log(redis.LOG_WARNING, "prosody-sidecar: removed what cannot be read, in " .. operation .. ": " .. message)
end

local function text(failure)
	return type(failure) == "table" and failure.err or failure
end

local well, answer = pcall(does[operation])
if not well and is_unreadable(text(answer)) then
	remove_unreadable(text(answer))
	well, answer = pcall(does[operation])
end
return well and answer or redis.error_reply(text(answer))
