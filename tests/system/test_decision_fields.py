"""What a decision says about a person, through a kill -9 and for no other guest: a sidecar process, real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.rig.answers import allow, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Reply, Sidecar

SETTINGS = {
    "endpoints": {"validate-access": {"allow": {"fresh": 1, "stale_while_revalidate": 0}}},
    "identity": {"anonymous_domains": ["guest.example.org"]},
}
ANN = "ann@example.org"


@pytest.fixture
async def sidecar(backend: Backend) -> AsyncIterator[Sidecar]:
    async with Sidecar.prepared(backend.url, SETTINGS, on_disk=True) as it:
        await it.run()
        yield it


def said(answer: Reply) -> dict[str, object]:
    return {name: value for name, value in answer.document.items() if not name.startswith("deci")}


async def restart_without_backend(sidecar: Sidecar, backend: Backend) -> None:
    await sidecar.kill()
    await backend.stop()
    await sidecar.run()


async def test_who_has_to_wait_does_so_after_a_kill_right_after_the_answer(sidecar: Sidecar, backend: Backend) -> None:
    for number in range(4):
        backend.on("validate-access", allow())
        who = f"user{number}@example.org"
        assert "requireLobby" not in said(await sidecar.decides("standup", who))
        await asyncio.sleep(1.5)  # the allow is on disk, and stale
        backend.on("validate-access", reply({"allowed": True, "requireLobby": True, "isModerator": True}))
        await sidecar.decides("standup", who)
        await restart_without_backend(sidecar, backend)
        assert said(await sidecar.decides("standup", who)) == {
            "allowed": True,
            "reason": None,
            "isModerator": True,
            "requireLobby": True,
        }
        await backend.listen()
        await sidecar.kill()
        await sidecar.run()


async def test_a_guest_gets_nothing_of_another_one_after_a_restart(sidecar: Sidecar, backend: Backend) -> None:
    backend.on("validate-access", allow())
    await sidecar.decides("standup", "x0@guest.example.org")
    await asyncio.sleep(1.5)
    backend.on("validate-access", reply({"allowed": True, "isModerator": True}))
    answers = await asyncio.gather(*(sidecar.decides("standup", f"x{n}@guest.example.org") for n in range(1, 6)))
    assert len(backend.asked("validate-access")) == 6, "each of them was asked about"
    assert all(said(answer)["isModerator"] for answer in answers)
    await asyncio.sleep(0.5)
    await restart_without_backend(sidecar, backend)
    assert said(await sidecar.decides("standup", "x3@guest.example.org"))["isModerator"] is True
    for stranger in ("x0@guest.example.org", "x9@guest.example.org"):
        assert (await sidecar.decides("standup", stranger)).allowed is False


async def test_minutes_are_those_that_are_left_after_a_restart(sidecar: Sidecar, backend: Backend) -> None:
    backend.on("validate-access", reply({"allowed": True, "remainingMinutes": 0.05}))
    assert said(await sidecar.decides("standup", ANN))["remainingMinutes"] == 0.05
    await asyncio.sleep(1.5)
    await restart_without_backend(sidecar, backend)
    left = said(await sidecar.decides("standup", ANN))["remainingMinutes"]
    assert isinstance(left, float | int)
    assert 0 <= left < 0.03
    await asyncio.sleep(2)
    assert said(await sidecar.decides("standup", ANN))["remainingMinutes"] == 0


async def test_the_log_has_the_id_of_the_answer(sidecar: Sidecar, backend: Backend) -> None:
    backend.on("validate-access", reply({"allowed": True, "isModerator": "perhaps"}))
    answer = (await sidecar.decides("standup", ANN)).document
    assert (answer["decidedBy"], "isModerator" in answer) == ("backend", False)
    (line,) = [line for line in await sidecar.logged("request") if line.get("decisionId") == answer["decisionId"]]
    assert (line["source"], line["allowed"], line["room"]) == ("backend", True, "standup")
    warning = (await sidecar.until_logged("a part of this answer is not used"))["reason"]
    assert warning == "isModerator must be true or false; it is left out"
    trace = backend.asked("validate-access")[0].headers["traceparent"]
    assert answer["decisionId"] in trace
