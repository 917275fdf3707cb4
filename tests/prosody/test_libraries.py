"""A library that is cut off, as a full disk or an interrupted copy leaves it, is never taken for a whole one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.rig.prosody import ROOT, VERSIONS, Prosody

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIBRARIES = sorted((ROOT / "lua" / "muc_webhook").glob("*.lib.lua"))
MOST_TRIED_ON_THE_GUARD = 6

FIND = """
    local text, whole, version = ...;
    local compiling, accepted = {}, {};
    for length = 0, whole - 1 do
        local chunk = load(text:sub(1, length), "=cut", "t", setmetatable({ module = module }, { __index = _G }));
        if chunk then
            compiling[#compiling + 1] = length;
            local ok, library = pcall(chunk);
            if ok and type(library) == "table" and library.version == version then accepted[#accepted + 1] = length; end
        end
    end
    return { compiling = compiling, accepted = table.concat(accepted, " ") };
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[Prosody]:
    """One is enough: what is tried is the same Lua in both versions."""
    gc = "gc = { threshold = 200 }\n"  # by default memory is collected after each 5 % of growth, which costs most here
    async with Prosody.start(version=VERSIONS[0], webhook_url="http://127.0.0.1:9/", extra_global=gc) as server:
        yield server


def lua_text(text: str) -> str:
    """A literal of any text."""
    return "[====[\n" + text + "]====]"


async def reload_problem(server: Prosody) -> str:
    """What the guard says to a reload of what is on the disk; empty if nothing is wrong."""
    problem = await server.module("local ok, err = pcall(webhook.module.save); return ok and '' or tostring(err)")
    return str(problem)


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.name)
async def test_a_library_that_is_cut_off_is_refused(server: Prosody, path: Path) -> None:
    text = path.read_text()
    whole = len(text[: text.rindex("}") + 1].encode())
    version = text.rpartition('version = "')[2].partition('"')[0]
    find = f"return (function (...) {FIND} end)({lua_text(text)}, {whole}, {json.dumps(version)})"
    found = await server.lua(find)
    assert found["accepted"] == "", "cut here it would be taken for a whole one"

    on_disk = server.folder / "lua" / "muc_webhook" / path.name
    positions: list[int] = found["compiling"]
    assert len(positions) > MOST_TRIED_ON_THE_GUARD
    try:
        for length in positions[:: -(len(positions) // MOST_TRIED_ON_THE_GUARD)]:
            on_disk.write_bytes(text.encode()[:length])
            assert path.name in await reload_problem(server)
    finally:
        on_disk.write_text(text)
    assert await reload_problem(server) == ""
