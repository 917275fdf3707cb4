"""A deny outlives kill -9, a slow disk, a large database, a flood of strangers, and damage. The daemon is real."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.clock import SystemClock
from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict, jid_subject
from sidecar.store import Store, read_boot_id
from tests.rig.answers import Held, allow, allow_if, deny, hold, raw, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tests.rig.strace import injected, under

DOWN = reply({}, status=500)
LET_IN_BY_POLICY: dict[str, Any] = {"endpoints": {"validate-access": {"on_unavailable": "allow"}}}
LIFETIMES = Lifetimes(15, 15, 3600)
ON_DISK = 0.6
"""Seconds after which everything has been written behind."""


async def remember(folder: Path, strangers: int) -> None:
    """A state folder in which alice was allowed, then many others elsewhere, and at last bob was denied in her room."""
    clock = SystemClock()
    now = clock.monotonic()

    def row(room: str, user: str, verdict: Verdict, age: float) -> tuple[Key, Entry]:
        key = Key(Endpoint.VALIDATE_ACCESS, room, None, None, jid_subject(user), None)
        body = json.dumps({"allowed": verdict is Verdict.ALLOW, "reason": None}).encode()
        return key, Entry(verdict, body, now - age, now - age, LIFETIMES)

    async with Store(folder, clock, read_boot_id(), print) as store:
        assert store.decisions is not None
        await store.decisions.save(dict([row("cancelled", "alice@example.com", Verdict.ALLOW, 5)]))
        for first in range(0, strangers, 5_000):
            some = range(first, min(strangers, first + 5_000))
            await store.decisions.save(dict(row(f"r{n}", f"u{n}@example.com", Verdict.ALLOW, 5) for n in some))
        await store.decisions.save(dict([row("cancelled", "bob@example.com", Verdict.DENY, 1)]))


@pytest.mark.parametrize("strangers", [95_000])
async def test_the_first_answer_after_a_start_knows_every_deny_however_much_is_on_disk(strangers: int) -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url, on_disk=True) as sidecar:
        backend.on("validate-access", deny("Cancelled"))
        await remember(Path(sidecar.config["state_dir"]), strangers)
        begun = time.monotonic()
        await sidecar.run()
        first = await sidecar.decides("cancelled", "alice@example.com")
        print(f"\n{strangers} rows: the first answer {time.monotonic() - begun:.2f} s after the start of the process")
        assert (first.allowed, first.asked) == (False, True)
        assert first.seconds < 0.5


async def test_a_disk_that_reads_slowly_at_start_lets_nobody_in_who_was_denied() -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url, LET_IN_BY_POLICY, on_disk=True) as sidecar:
        backend.on("validate-access", deny())
        await sidecar.run()
        assert (await sidecar.decides("board", "mallory@example.com")).allowed is False
        await asyncio.sleep(ON_DISK)
        await sidecar.kill()
        backend.on("validate-access", DOWN)
        await sidecar.run(under=under("pread64:delay_enter=100000"))
        said = set()
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            said.add((await sidecar.decides("board", "mallory@example.com")).allowed)
        assert said == {False}


async def test_strangers_at_made_up_rooms_displace_no_deny_and_no_config_of_a_room_in_use() -> None:
    settings = {**LET_IN_BY_POLICY, "cache": {"denies": 50, "configs": 50}}
    async with Backend() as backend, Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
        backend.on("validate-access", allow_if(lambda body: body["userJid"].startswith("carol")))
        backend.on("room-created", reply({"meetingTitle": "Board"}))
        await sidecar.run()
        assert (await sidecar.decides("board", "mallory@example.com")).allowed is False
        assert (await sidecar.decides("board", "carol@example.com")).allowed is True
        assert (await sidecar.configures("board")).status == 200
        for number in range(300):
            assert (await sidecar.decides(f"made-up-{number}", "mallory@example.com")).allowed is False
            await sidecar.configures(f"made-up-{number}")
        await asyncio.sleep(ON_DISK)
        backend.on("validate-access", DOWN)
        backend.on("room-created", DOWN)
        for _ in range(2):
            assert (await sidecar.decides("board", "mallory@example.com")).allowed is False
            assert (await sidecar.configures("board")).document == {"meetingTitle": "Board"}
            assert (await sidecar.decides("board", "carol@example.com")).allowed is True
            await sidecar.kill()
            await sidecar.run()


async def test_a_guest_who_was_denied_alone_stays_out_after_a_restart_though_others_get_in() -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url, LET_IN_BY_POLICY, on_disk=True) as sidecar:
        private = '{"allowed":false,"reason":"Banned"}'
        backend.on("validate-access", raw(private, headers={"Cache-Control": "private"}))
        await sidecar.run()
        assert (await sidecar.decides("board", "banned@guest.example.com", guest=True)).allowed is False
        backend.on("validate-access", allow())
        assert (await sidecar.decides("board", "other@guest.example.com", guest=True)).allowed is True
        await asyncio.sleep(ON_DISK)
        await sidecar.kill()
        backend.on("validate-access", DOWN)
        await sidecar.run()
        assert (await sidecar.decides("board", "banned@guest.example.com", guest=True)).allowed is False
        assert (await sidecar.decides("board", "other@guest.example.com", guest=True)).allowed is True


@pytest.mark.parametrize("cache_control", ["", "no-store"])
async def test_who_has_to_wait_in_the_lobby_waits_after_the_answer_has_expired_and_a_kill(cache_control: str) -> None:
    lifetimes = {"fresh": 0.5, "stale_while_revalidate": 0, "stale_if_error": 1}
    settings = {"endpoints": {"validate-access": {"on_unavailable": "allow", "allow": lifetimes}}}
    async with Backend() as backend, Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
        lobby = '{"allowed":true,"requireLobby":true}'
        backend.on("validate-access", raw(lobby, headers={"Cache-Control": cache_control} if cache_control else {}))
        await sidecar.run()
        assert (await sidecar.decides("board", "bob@example.com")).document["requireLobby"] is True
        await sidecar.kill()
        backend.on("validate-access", DOWN)
        await asyncio.sleep(1.6)
        await sidecar.run()
        bob = await sidecar.decides("board", "bob@example.com")
        assert (bob.allowed, bob.document.get("requireLobby")) == (True, True)
        ann = await sidecar.decides("board", "ann@example.com")
        assert (ann.allowed, ann.document.get("requireLobby")) == (True, None)


async def test_a_late_allow_answered_with_a_newer_deny_is_on_disk_when_it_is_heard() -> None:
    """A question from before a deny in the room brings an allow, just after a newer question has brought a deny."""
    settings = {
        "endpoints": {"validate-access": {"answer_within": 3, "allow": {"fresh": 0.01, "stale_while_revalidate": 0}}}
    }
    async with Backend() as backend, Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
        await sidecar.run()
        assert (await sidecar.decides("r", "user@example.com")).allowed is True
        await asyncio.sleep(ON_DISK)
        assert sidecar.process is not None
        async with injected(sidecar.process.pid, "pwrite64:delay_enter=10000"):  # a commit takes a tenth of a second
            late, newer = hold(allow()), hold(deny())
            first = await asked(sidecar, backend, late)
            backend.on("validate-access", deny())
            await sidecar.decides("r", "other@example.com")
            second = await asked(sidecar, backend, newer)
            newer.release()
            await asyncio.sleep(0.01)
            late.release()
            heard = await first
            await sidecar.kill()
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
        assert heard.allowed is False
        backend.on("validate-access", DOWN)
        await sidecar.run()
        assert (await sidecar.decides("r", "user@example.com")).allowed is False


async def asked(sidecar: Sidecar, backend: Backend, answer: Held) -> asyncio.Task[Any]:
    """A question that has reached the backend, and waits there."""
    backend.on("validate-access", answer)
    before = len(backend.requests)
    task = asyncio.ensure_future(sidecar.decides("r", "user@example.com"))
    async with asyncio.timeout(5.0):
        while len(backend.requests) == before:
            await asyncio.sleep(0.005)
    return task


async def test_a_row_whose_key_was_changed_on_disk_lets_nobody_in() -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url, on_disk=True) as sidecar:
        await sidecar.run()
        assert (await sidecar.decides("board", "alice@example.com")).allowed is True
        await asyncio.sleep(ON_DISK)
        await sidecar.stop()
        connection = sqlite3.connect(Path(sidecar.config["state_dir"]) / "decisions.db")
        with connection:
            connection.execute("UPDATE decisions SET subject = 'jid mallory@example.com'")
        connection.close()
        backend.on("validate-access", DOWN)
        await sidecar.run()
        assert (await sidecar.decides("board", "mallory@example.com")).allowed is False
