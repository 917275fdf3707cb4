"""A config means what its JSON says, however the module reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.prosody.conftest import Server
from tests.rig.answers import raw
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

OWN = ("meetingTitle", "meetingDescription", "meetingId", "moderators", "password")
OTHERS = ("chatEnabled", "audioQuality", "toolbarButtons", "maxParticipants", "note", "defaults")

COMPARE = """
    local parts = module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts;
    local json = require "util.json";
    local function written(names, values)
        local all = {};
        for name in pairs(names) do all[name] = values[name]; end
        return json.encode_ordered(json.decode(json.encode(all)));
    end
    local differences = {};
    for _, text in ipairs(texts) do
        local read, unreadable = parts.config.read(text);
        local plain = { settings = {}; frontend = {}; dropped = {}; unreadable = {} };
        for name, value in pairs(json.decode(text)) do parts.settings.add(plain, name, value); end
        table.sort(plain.unreadable);
        if (unreadable or "") ~= table.concat(plain.unreadable, ", ") then
            table.insert(differences, text.." has unreadable settings: "..tostring(unreadable));
        end
        local for_room, for_frontend = parts.settings.for_room, parts.settings.for_frontend;
        for _, pair in ipairs(not read and {} or {
            { written(for_room, read.settings), written(for_room, plain.settings) };
            { written(for_frontend, read.frontend), written(for_frontend, plain.frontend) };
            { json.encode_ordered(json.decode(read.payload).config), written(for_frontend, plain.frontend) };
        }) do
            if pair[1] ~= pair[2] then table.insert(differences, text.." is read as "..pair[1]); end
        end
    end
    return table.concat(differences, "\\n");
"""


def lua_text(text: str) -> str:
    return '"' + "".join(f"\\{byte:03}" for byte in text.encode()) + '"'


class Author:
    """Writes configs as a program may that has no library for it: names twice, spaces, escapes where none is needed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        texts = [
            "",
            "ann@example.com",
            "4711",
            "a ] b",
            "{",
            'say "hi"',
            "back\\slash",
            "Zoë 😀",
            '"password":"x"',
            "null",
        ]
        text = json.dumps(self.random.choice(texts), ensure_ascii=self.random.random() < 0.5)
        return text.replace("a", "\\u0061") if self.random.random() < 0.1 else text

    def value(self, depth: int) -> str:
        number = str(self.random.randrange(100))
        choices: list[Callable[[], str]] = [self.text, self.text, lambda: "null", lambda: "true", lambda: number]
        if depth < 3:
            choices += [lambda: self.list(depth), lambda: self.config(depth + 1)]
        return self.random.choice(choices)()

    def list(self, depth: int) -> str:
        return "[" + ",".join(self.value(depth + 1) for _ in range(self.random.randrange(3))) + "]"

    def config(self, depth: int = 0) -> str:
        names = self.random.choices(OWN + OTHERS, k=self.random.randrange(7))
        return "{" + ",".join(f"{self.name(name)}:{self.space()}{self.value_of(name, depth)}" for name in names) + "}"

    def value_of(self, name: str, depth: int) -> str:
        """Mostly one that can be read, if it protects the room: otherwise there is nothing more to see."""
        if name == "password" and self.random.random() < 0.9:
            return self.random.choice((self.text(), "null", "4711"))
        if name == "maxParticipants" and self.random.random() < 0.9:
            return self.random.choice(("5", '"5"', "0", "null"))
        return self.value(depth)

    def name(self, name: str) -> str:
        return f'"{name}"' if self.random.random() < 0.95 else f'"\\u{ord(name[0]):04x}{name[1:]}"'

    def space(self) -> str:
        return self.random.choice(("", "", " ", "\n\t"))


async def test_a_config_is_read_as_its_json_says(prosody: Server) -> None:
    author = Author(20260801)
    for _ in range(10):
        texts = [author.config() for _ in range(200)]
        literal = "{" + ";".join(map(lua_text, texts)) + "}"
        assert await prosody.lua(f"local texts = {literal};{COMPARE}") == ""


async def test_rooms_that_differ_in_their_own_settings_only_keep_them_apart(prosody: Server) -> None:
    author = Author(1)
    texts = []
    for _ in range(20):
        common = author.random.choice(("chatEnabled", "defaults")), author.value(0)
        for _ in range(20):
            own = [f'"{name}": {author.value_of(name, 2)}' for name in OWN]
            texts.append("{" + f'"{common[0]}": {common[1]}, ' + ", ".join(own) + "}")
    literal = "{" + ";".join(map(lua_text, texts)) + "}"
    assert await prosody.lua(f"local texts = {literal};{COMPARE}") == ""


NESTED = {
    "password": '{"dialIn":{"number":"+10000","password":"4711"},"password":null,"chatEnabled":true}',
    "moderators": '{"defaults":{"moderators":["eve@example.org"]},"moderators":null,"chatEnabled":true}',
    "title": '{"series":{"meetingTitle":"Layoffs"},"meetingTitle":null,"chatEnabled":true}',
    "the other order": '{"chatEnabled":true,"password":null,"dialIn":{"password":"4711"}}',
    "no own one": '{"dialIn":{"password":"4711","moderators":["eve@example.org"]},"chatEnabled":true}',
}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
async def test_a_setting_inside_of_another_one_is_not_the_rooms(prosody: Server, room: str, text: str) -> None:
    prosody.backend.on("room-created", raw(text.encode()))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, domain=prosody.token_domain) as eve,
    ):
        assert (await first.join(room, nick="first")).config == {"chatEnabled": True}
        await eve.set_token("t", id="e", email="eve@example.org")
        assert (await eve.join(room, nick="eve")).role == "participant"


@pytest.mark.parametrize(
    "members",
    [
        ["ann@example.org", None],
        [None, "ann@example.org"],
        [12],
        [True, {"id": 12}, [], "", "ann@example.org"],
        [1.5, 12.0],
    ],
)
async def test_one_wrong_member_takes_nothing_from_the_other_moderators(
    prosody: Server, room: str, members: list[Any]
) -> None:
    prosody.backend.on("room-created", raw(json.dumps({"moderators": members}).encode()))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, domain=prosody.token_domain) as ann,
    ):
        await first.join(room, nick="first")
        await ann.set_token("t", id=12, email="ann@example.org")
        assert (await ann.join(room, nick="ann")).role == "moderator"
    are_all_fit = all(member is None or member in (12, "ann@example.org") for member in members)
    assert ("wrong type were dropped: members of moderators" in prosody.log_of_test()) is not are_all_fit
