-- Carries out what the sidecar orders.

local verbs = {}; -- verb -> function (order, done)

-- Calls done(outcome) once.
local function carry_out(_, order, done)
	local carry = verbs[order.verb];
	if not carry then return done { status = "failed"; error = "this module knows no such order" }; end
	carry(order, done);
end

local function new()
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
