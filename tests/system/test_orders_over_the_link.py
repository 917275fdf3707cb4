"""Orders to a module at the other end of a real link: each is carried out once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.rig.answers import Request
from tests.rig.backend import Backend
from tests.rig.module import Module
from tests.rig.sidecar import Sidecar
from tests.system.test_orders import ANN, orders, sidecar

__all__ = ["sidecar"]

KICK = {"room": "standup", "user": ANN}
ROOM_JID = "standup@conference.example.com"


def ended(backend: Backend) -> list[Request]:
    return [request for request in backend.requests if request.endpoint == "room-destroyed"]


@pytest.fixture
def module() -> Module:
    return Module({"status": "done", "kicked": 1, "users": [ANN]})


@pytest.fixture(autouse=True)
def _patient(sidecar: Sidecar) -> None:
    sidecar.config["control"]["ttl"] = 300


async def test_an_order_is_carried_out_at_once_and_the_user_is_not_let_in_from_memory(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()
    async with module.linked(sidecar):
        await sidecar.decides("standup", ANN)
        begun = time.time()
        assert await orders(sidecar, "kick", {**KICK, "reason": "Enough"}) == (200, {"kicked": 1})
        (order,) = module.orders
        assert begun <= order.pop("issued") <= time.time()
        assert order == {"verb": "kick", **KICK, "reason": "Enough"}
        await backend.stop()
        assert (await sidecar.decides("standup", ANN)).allowed is False
        module.outcome = {"status": "absent"}
        assert (await orders(sidecar, "kick", KICK))[0] == 404
        assert await sidecar.command("kick", "standup", ANN) == (
            1,
            "the sidecar answered 404: no such room is open, or no such user is in it\n",
        )
        assert await sidecar.metric("orders_total", verb="kick", result="done") == 1
        assert await sidecar.metric("orders_waiting") == 0
    await sidecar.end()


async def test_a_question_under_way_does_not_bring_back_what_a_kick_took_away(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()
    async with module.linked(sidecar) as link:
        backend.latency = 0.5
        question = await link.begins("validate-access", {"roomName": "standup", "userJid": ANN, "timestamp": 1})
        await asyncio.sleep(0.2)
        await orders(sidecar, "kick", KICK)
        assert (await link.hears("answer", question)).document["allowed"] is True  # asked again, and said again
        calls = [each for each in backend.requests if each.endpoint == "validate-access"]
        assert len(calls) == 2
    await sidecar.end()


async def test_a_link_that_is_cut_before_the_outcome_neither_loses_nor_doubles_the_order(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()
    module.silent = True
    async with module.linked(sidecar):
        waiting = asyncio.ensure_future(orders(sidecar, "kick", KICK))
        await module.until(received=1)
    module.silent = False
    async with module.linked(sidecar):
        assert await waiting == (200, {"kicked": 1})
    assert (len(module.received), len(module.carried_out)) == (2, 1)
    await sidecar.end()


@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_sidecar_that_is_killed_carries_the_order_out_once(
    sidecar: Sidecar, backend: Backend, module: Module, acknowledged: bool
) -> None:
    await sidecar.run()
    module.silent = not acknowledged
    async with module.linked(sidecar):
        first = asyncio.ensure_future(orders(sidecar, "kick", KICK, Idempotency_Key="k-1"))
        await module.until(received=1)
        if acknowledged:
            assert await first == (200, {"kicked": 1})
        await sidecar.kill()
        await asyncio.gather(first, return_exceptions=True)
    module.silent = False
    await sidecar.run()
    async with module.linked(sidecar):
        assert await orders(sidecar, "kick", KICK, Idempotency_Key="k-1") == (200, {"kicked": 1})
    assert len(module.carried_out) == 1
    await sidecar.end()


async def test_an_order_without_a_module_is_carried_out_when_one_connects(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()
    assert await orders(sidecar, "end", {"room": "standup"}) == (202, {"pending": True})
    assert await orders(sidecar, "end", {"room": "standup", "reason": "second"}) == (202, {"pending": True})
    issued = time.time()
    async with module.linked(sidecar):
        await module.until(received=2)
    assert [order.get("reason") for order in module.orders] == [None, "second"]
    assert all(order["issued"] <= issued for order in module.orders)  # by it the module knows a later room of that name
    await sidecar.end()


async def test_who_is_in_a_room_is_what_the_module_says(sidecar: Sidecar, backend: Backend, module: Module) -> None:
    await sidecar.run()
    module.outcome = {"status": "done", "occupants": [{"nick": "Ann", "role": "moderator"}]}
    async with module.linked(sidecar):
        code, printed = await sidecar.command("who", "standup", "--json")
        assert (code, json.loads(printed)) == (0, {"occupants": [{"nick": "Ann", "role": "moderator"}]})
        assert await sidecar.command("who", ROOM_JID) == (0, "nick: Ann  role: moderator\n")
    assert module.orders[-1]["roomJid"] == ROOM_JID
    await sidecar.end()


async def test_after_thousands_of_orders_nothing_is_left_and_the_memory_has_not_grown(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()

    async def give(count: int) -> None:
        for number in range(count):
            assert (await orders(sidecar, "end", {"room": f"room-{number % 100}"}))[0] == 200

    async def memory() -> int:
        return int(json.loads((await sidecar.get("/status")).body)["memory_bytes"])

    async with module.linked(sidecar):
        await give(300)
        before = await memory()
        await asyncio.gather(*(give(425) for _ in range(4)))
        assert await memory() - before < 8_000_000
    assert len(module.carried_out) == 2_000
    assert await sidecar.metric("orders_waiting") == 0
    await sidecar.end()


async def test_the_rooms_of_a_prosody_that_was_killed_are_ended(
    sidecar: Sidecar, backend: Backend, module: Module
) -> None:
    await sidecar.run()
    now = int(time.time())
    elsewhere = "retro@conference.elsewhere.org"
    async with module.linked(sidecar, f"{now - 3600}-7"):
        await sidecar.event("room-destroyed", "other", roomJid="other@conference.example.com", timestamp=now - 90)
        await sidecar.event("user-joined", "standup", roomJid=ROOM_JID, timestamp=now - 60)
        await sidecar.event("user-joined", "retro", roomJid=elsewhere, timestamp=now - 60)
    await sidecar.kill()
    await sidecar.run()
    async with module.linked(sidecar, f"{now - 10}-8"):
        async with asyncio.timeout(10):
            while len(found := ended(backend)) < 2:
                await asyncio.sleep(0.02)
    said = found[-1].body
    assert (said["roomName"], said["roomJid"], said["cause"]) == ("standup", ROOM_JID, "server-restart")
    async with module.linked(sidecar, f"{now - 10}-8"):
        await asyncio.sleep(0.3)
    assert len(ended(backend)) == 2
    await sidecar.end()
