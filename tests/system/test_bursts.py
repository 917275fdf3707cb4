"""High load on a backend that is well, and a backend that is not: whom the breaker and the limit keep out."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from tests.rig.answers import Request, hang, reply
from tests.rig.backend import Backend
from tests.rig.faults import Fault
from tests.rig.sidecar import Reply, Sidecar
from tests.system.bursts import ACCOUNT, ENDPOINT, GUEST, made_up_names, rooms_at_once, strangers


async def test_six_hundred_rooms_at_once_are_all_let_in() -> None:
    assert (await rooms_at_once(600)).judge() == []


async def test_so_are_strangers_though_the_backend_takes_half_a_second() -> None:
    burst = await strangers(600)
    assert burst.judge() == []
    assert burst.most_at_once > 100


@pytest.mark.parametrize("status", [500, 503, 404, 403, 400, 429])
async def test_a_guest_with_made_up_names_keeps_nobody_out(status: int) -> None:
    assert (await made_up_names(3.0, status)).judge() == []


@pytest.mark.parametrize("people", [[GUEST] * 3, [GUEST] * 12, [ACCOUNT], [ACCOUNT, GUEST, GUEST]])
@pytest.mark.parametrize("known_names", [False, True])
async def test_nor_does_one_with_several_connections_or_an_account(people: list[str], *, known_names: bool) -> None:
    assert (await made_up_names(3.0, people=people, known_names=known_names)).judge() == []


@pytest.mark.parametrize("people", [[GUEST], [GUEST] * 3, [ACCOUNT], [ACCOUNT, GUEST, GUEST]])
async def test_nor_does_one_in_rooms_that_exist_whose_own_name_the_backend_cannot_read(people: list[str]) -> None:
    assert (await made_up_names(3.0, people=people, unreadable=True)).judge() == []


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.ERROR_500, Fault.HTML_404, Fault.HANG])
@pytest.mark.parametrize("answered_before", [False, True])
async def test_a_backend_that_fails_for_everybody_is_noticed_within_three_seconds(
    fault: Fault, *, answered_before: bool
) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        if answered_before:
            for number in range(5):
                assert (await sidecar.decides(f"early-{number}", f"early-{number}@example.com")).allowed
        await backend.goes(fault)
        asked: list[asyncio.Future[Reply]] = []
        begun = time.monotonic()
        while not await sidecar.metric("breaker_moves_total", state="open"):
            number = len(asked)
            asked.append(asyncio.ensure_future(sidecar.decides(f"new-{number}", f"user-{number}@example.com")))
            await asyncio.sleep(0.1)
            assert time.monotonic() - begun < 3.0, "the breaker has not opened"
        await backend.goes(Fault.NONE)
        await asyncio.gather(*asked)


async def test_a_backend_that_can_do_a_hundred_at_once_is_not_given_more_for_longer_than_a_second() -> None:
    places, under_way, above = asyncio.Semaphore(100), 0, [0.0, 0.0]

    async def answer(request: Request) -> web.StreamResponse:
        nonlocal under_way
        under_way += 1
        if under_way == 121:
            above[0] = time.monotonic()
        async with places:
            await asyncio.sleep(0.1)
        if under_way == 121:
            above[1] = max(above[1], time.monotonic() - above[0])
        under_way -= 1
        return await reply({"allowed": True})(request)

    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        backend.on(ENDPOINT, answer)
        asked: list[asyncio.Future[Reply]] = []
        begun = time.monotonic()
        while time.monotonic() - begun < 4.0:
            number = len(asked)
            asked.append(asyncio.ensure_future(sidecar.decides(f"room-{number}", f"user-{number}@example.com")))
            await asyncio.sleep(0.002)
        await asyncio.gather(*asked)
    assert above[1] <= 1.3


async def test_the_limit_its_changes_and_their_causes_are_metrics_from_the_start() -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        assert await sidecar.metric("backend_limit") == 100
        assert await sidecar.metric("backend_calls_waiting") == 0
        exposed = (await sidecar.get("/metrics")).body.decode()
        for cause in ("near floor", "above floor", "turned away", "cut was wrong", "looks for floor", "partly proven"):
            assert f'prosody_sidecar_backend_limit_changes_total{{cause="{cause}"}} 0.0' in exposed


async def test_a_room_that_hangs_keeps_no_place_that_others_need() -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        backend.on(ENDPOINT, hang, room="broken")
        hanging = [asyncio.ensure_future(sidecar.decides("broken", f"h{n}@example.com")) for n in range(150)]
        await asyncio.sleep(0.5)
        replies = [await sidecar.decides(f"room-{n}", f"u{n}@example.com") for n in range(20)]
        assert all(each.allowed for each in replies)
        await asyncio.gather(*hanging)
