-- Prosody loads a module into an environment with these globals.
std = "lua54"
max_line_length = 130
read_globals = { "prosody" }

files["lua"] = {
	std = "lua52", -- the oldest that Prosody 13 runs with
	globals = { "module" },
}
files["tests/prosody"] = {
	globals = { "module" },
}
