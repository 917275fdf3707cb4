"""Whatever happens to the module's files, nobody gets in without a decision.

`make damage` damages every file in every way on both versions; `make test` damages each file in one way.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import allow, deny, hold
from tests.rig.prosody import ROOT, LuaValue, Prosody
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

GUARD = "mod_muc_webhook.lua"
LIBRARIES = sorted(str(path.relative_to(ROOT / "lua")) for path in (ROOT / "lua" / "muc_webhook").glob("*.lib.lua"))
WHOLE_MATRIX = os.environ.get("SOAK") == "1"
DECIDED = "cancel/not-allowed"
REFUSED = "wait/internal-server-error"
LOCKED: dict[str, LuaValue] = {"restrict_room_creation": True, "muc_room_default_members_only": True}
"""What our snippets set, for the case that nothing of ours runs."""


def _replace(file: Path, text: str, by: str) -> None:
    file.write_text(file.read_text().replace(text, by))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "first half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "syntax error": lambda file: file.write_text(f"local x = = 1\n{file.read_text()}"),
    "runtime error": lambda file: file.write_text(f"error('boom')\n{file.read_text()}"),
    "missing require": lambda file: file.write_text(f'require "net.no_such_thing"\n{file.read_text()}'),
    "other version": lambda file: _replace(file, 'version = "', 'version = "9.'),
    "missing": lambda file: file.unlink(),
}
THROWS = ("runtime error", "missing require")


def libraries_for(kind: str) -> list[str]:
    """All libraries; or, without SOAK=1, so many that each of them is damaged in one way at least."""
    kinds = len(DAMAGES)
    first = list(DAMAGES).index(kind)
    some = [LIBRARIES[n % len(LIBRARIES)] for n in range(first, max(kinds, len(LIBRARIES)), kinds)]
    return LIBRARIES if WHOLE_MATRIX else some


class Damaged:
    """One file of the server's own copy of the module, damaged for a while."""

    def __init__(self, server: Prosody, name: str, kind: str) -> None:
        self.path = server.folder / "lua" / name
        self._whole = self.path.read_bytes()
        DAMAGES[kind](self.path)

    def repair(self) -> None:
        self.path.write_bytes(self._whole)


@pytest_asyncio.fixture(loop_scope="session")
async def denying(start_prosody: StartProsody) -> Server:
    """A server whose meeting service denies everybody, and whose files nobody else needs."""
    prosody = await start_prosody(fresh=True, log_level="info")
    prosody.backend.on("validate-access", deny("No"))
    return prosody


async def who_gets_in(prosody: Server, room: str) -> str:
    """What a user hears; jicofo has to get in whatever happens, and nobody who only looks like it."""
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="focus") as jigasi,
    ):
        heard = str((await ann.join(room, nick="ann")).error)
        if heard == REFUSED:
            assert str((await ann.join(room, nick="focus")).error) == REFUSED
            assert str((await jigasi.join(room, nick="caller")).error) == REFUSED
        assert (await focus.join(room, nick="focus")).joined
    return heard


def advised_command(text: str) -> str:
    """The last command for Prosody's shell that a message says to run."""
    command: str = re.findall('prosodyctl shell "(.*?)"', text)[-1]
    return command


async def load_again(prosody: Server) -> None:
    """What an operator does once the files are right."""
    is_loaded = await prosody.module("return webhook ~= nil")
    await (prosody.reload() if is_loaded else prosody.load())


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_reload_with_a_damaged_library_changes_nothing(denying: Server, room: str, kind: str) -> None:
    for library in libraries_for(kind):
        mark = denying.mark()
        damaged = Damaged(denying, library, kind)
        with pytest.raises(RuntimeError):
            await denying.reload()
        assert await who_gets_in(denying, room) == DECIDED, library
        log = denying.log_since(mark)
        assert f"{library}" in log, log
        assert "The reload is refused, and nothing has changed" in log
        damaged.repair()
    await denying.reload()
    assert await who_gets_in(denying, room) == DECIDED


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_reload_with_a_damaged_guard_lets_nobody_in(denying: Server, room: str, kind: str) -> None:
    damaged = Damaged(denying, GUARD, kind)
    with pytest.raises(RuntimeError):
        await denying.reload()
    # Only running it shows what is wrong with a guard that throws when it is run: then the old one is gone already.
    assert await who_gets_in(denying, room) == (REFUSED if kind in THROWS else DECIDED)
    damaged.repair()
    denying.log_is_read()  # Prosody's own words about a module that throws
    await load_again(denying)
    assert await who_gets_in(denying, room) == DECIDED


async def test_a_reload_looks_at_the_files_that_prosody_would_take(denying: Server, room: str) -> None:
    lua = denying.folder / "lua"
    first = lua / "mod_muc_webhook"  # Prosody looks here before it looks into lua/ itself
    first.mkdir()
    shutil.copy(lua / GUARD, first / GUARD)
    with pytest.raises(RuntimeError):
        await denying.reload()
    assert re.search(r"of one release to \S*/lua/mod_muc_webhook \(", denying.log_of_test())
    assert await who_gets_in(denying, room) == DECIDED
    shutil.copytree(lua / "muc_webhook", first / "muc_webhook")
    await denying.reload()
    assert await who_gets_in(denying, room) == DECIDED
    shutil.rmtree(first)
    await denying.reload()
    assert await who_gets_in(denying, room) == DECIDED


async def test_a_library_that_is_no_text_is_named(denying: Server) -> None:
    (denying.folder / "lua" / LIBRARIES[0]).write_bytes(b"\x1bLua")
    with pytest.raises(RuntimeError):
        await denying.reload()
    assert f"{LIBRARIES[0]} does not compile" in denying.log_of_test()
    denying.log_is_read()  # Lua's own words about it


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_restart_with_a_damaged_library_refuses_until_it_is_right(
    denying: Server, room: str, kind: str
) -> None:
    for library in libraries_for(kind):
        mark = denying.mark()
        damaged = Damaged(denying, library, kind)
        await denying.restart()
        assert await who_gets_in(denying, room) == REFUSED, library
        log = denying.log_since(mark)
        assert library in log, log
        assert "dpkg-reconfigure prosody-sidecar" in log
        status = await denying.shell("muc_webhook:status()")
        assert "the gate is DOWN" in status
        assert library in status
        damaged.repair()
        command = re.findall('prosodyctl shell "(.*?)"', log)[-1]
        assert "OK" in await denying.shell(command)
        assert await who_gets_in(denying, room) == DECIDED, library


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "other version"])
async def test_a_restart_with_a_damaged_guard_is_for_prosodys_own_options(
    start_prosody: StartProsody, room: str, kind: str
) -> None:
    prosody = await start_prosody(fresh=True, log_level="info", options=LOCKED)
    Damaged(prosody, GUARD, kind)
    await prosody.restart()
    prosody.log_is_read()
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        assert (await ann.join(room, nick="ann")).denied
        assert (await focus.join(room, nick="focus")).joined
        assert str((await ann.join(room, nick="ann")).error) == "auth/registration-required"


async def test_a_guard_alone_refuses_and_says_what_else_to_copy(denying: Server, room: str) -> None:
    shutil.rmtree(denying.folder / "lua" / "muc_webhook")
    await denying.restart()
    assert await who_gets_in(denying, room) == REFUSED
    assert "Copy mod_muc_webhook.lua and the folder muc_webhook of one release to" in denying.log_of_test()


async def test_a_module_that_is_unloaded_refuses_until_it_is_loaded(denying: Server, room: str) -> None:
    await denying.unload()
    assert await who_gets_in(denying, room) == REFUSED
    status = await denying.shell("muc_webhook:status()")
    assert "the gate is DOWN" in status
    assert "OK" in await denying.shell(advised_command(status))
    assert await who_gets_in(denying, room) == DECIDED


async def test_an_unloaded_module_that_cannot_be_loaded_refuses(denying: Server, room: str) -> None:
    await denying.unload()
    damaged = Damaged(denying, GUARD, "runtime error")
    with pytest.raises(RuntimeError):
        await denying.load()
    denying.log_is_read()
    assert await who_gets_in(denying, room) == REFUSED
    damaged.repair()
    await denying.load()
    assert await who_gets_in(denying, room) == DECIDED


async def test_mod_muc_reloaded_leaves_the_gate_alive(denying: Server, room: str) -> None:
    await denying.reload("muc")
    assert await who_gets_in(denying, room) == DECIDED


async def test_mod_muc_unloaded_and_loaded_has_the_gate_again(denying: Server, room: str) -> None:
    await denying.unload("muc")
    assert "mod_muc was unloaded" in await denying.shell("muc_webhook:status()")
    await denying.load("muc")
    assert await who_gets_in(denying, room) == DECIDED


async def test_mod_muc_loaded_while_a_library_is_damaged_refuses(denying: Server, room: str) -> None:
    damaged = Damaged(denying, LIBRARIES[0], "empty")
    await denying.unload("muc")
    await denying.load("muc")
    assert await who_gets_in(denying, room) == REFUSED
    status = await denying.shell("muc_webhook:status()")
    assert f"{LIBRARIES[0]} is not whole" in status
    damaged.repair()
    assert "OK" in await denying.shell(advised_command(status))
    assert await who_gets_in(denying, room) == DECIDED


@pytest.mark.parametrize("way", ["unload", "reload"])
async def test_a_join_that_waits_while_mod_muc_goes_gets_in_only_by_its_decision(
    start_prosody: StartProsody, room: str, way: str
) -> None:
    prosody = await start_prosody(fresh=True, log_level="info")
    held = hold(deny("No"))
    prosody.backend.on("validate-access", held)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, nick="ann")
        await prosody.backend.received("validate-access", room)
        await getattr(prosody, way)("muc")
        held.release()
        assert str((await ann.await_join(room)).error) == DECIDED


async def test_a_join_that_was_allowed_while_mod_muc_was_away_is_refused(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, log_level="info")
    held = hold(allow())
    prosody.backend.on("validate-access", held)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, nick="ann")
        await prosody.backend.received("validate-access", room)
        await prosody.unload("muc")
        held.release()
        assert str((await ann.await_join(room)).error) == REFUSED


async def test_a_join_that_waits_while_the_module_goes_is_refused_with_fail_open_too(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, log_level="info", options={"muc_webhook_fail_open": True})
    prosody.backend.on("validate-access", hold(deny("No")))
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, nick="ann")
        await prosody.backend.received("validate-access", room)
        await prosody.unload()
        assert str((await ann.await_join(room)).error) == REFUSED


async def test_a_host_that_was_off_and_on_has_its_gate(denying: Server, room: str) -> None:
    await host_off_and_on(denying)
    assert await who_gets_in(denying, room) == DECIDED


async def test_a_host_that_comes_back_with_a_damaged_library_refuses(denying: Server, room: str) -> None:
    damaged = Damaged(denying, LIBRARIES[0], "first half")
    await host_off_and_on(denying)
    assert await who_gets_in(denying, room) == REFUSED
    damaged.repair()
    await denying.reload()
    assert await who_gets_in(denying, room) == DECIDED


async def host_off_and_on(prosody: Server) -> None:
    await prosody.lua("""
        local hostmanager = require "core.hostmanager"
        assert(hostmanager.deactivate("conference.localhost"))
        assert(hostmanager.activate("conference.localhost"))""")


async def test_those_inside_stay_and_can_act_while_the_gate_is_down(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, log_level="info")
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody) as cat,
    ):
        await ann.join(room, nick="ann")
        await cat.join(room, nick="cat")
        await prosody.unload()
        assert (await ann.join(room, nick="annie")).joined  # another nick
        assert str((await bob.join(room, nick="bob")).error) == REFUSED
        assert await prosody.occupants(room) == ["annie", "cat"]
