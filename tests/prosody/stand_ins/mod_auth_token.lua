-- As Jitsi's authentication by token: users without a name of their own, some with a token. What is in the token, the
-- test gives the session by mod_rig_token.
local new_sasl = require "util.sasl".new;

local provider = {};
function provider.test_password() return nil, "not here"; end
function provider.user_exists() return nil; end
function provider.create_user() return nil, "not here"; end
function provider.set_password() return nil, "not here"; end
function provider.get_sasl_handler()
	return new_sasl(module.host, { anonymous = function () return true; end });
end

module:provides("auth", provider);
