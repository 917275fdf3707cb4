-- Accounts for tests: every name is an account, and its password is "secret".
local new_sasl = require "util.sasl".new;

local provider = {};
function provider.test_password(_, password) return password == "secret"; end
function provider.user_exists() return true; end
function provider.create_user() return nil, "not here"; end
function provider.set_password() return nil, "not here"; end
function provider.users() return function () end; end
function provider.get_sasl_handler()
	return new_sasl(module.host, {
		plain_test = function (_, _, password) return password == "secret", true; end;
	});
end

module:provides("auth", provider);
