"""The backend hears of the end of each meeting of a Prosody that was killed, once, and of no other one."""

from __future__ import annotations

import asyncio
import json

from sidecar.control.restarts import Restarts
from sidecar.core.events import OpenRoom
from sidecar.core.model import Event
from tests.unit.harness import settled
from tests.unit.virtual import VirtualClock, in_virtual_time

HOST, NOW = "conference.example.org", 1_700_000_000


class Rooms:
    """The rooms that are open, and when something was last heard of them."""

    def __init__(self, **seen_at: int) -> None:
        self.seen_at = seen_at
        self.ended: list[str] = []

    async def left_behind(self, host: str, before: float) -> list[OpenRoom]:
        return [OpenRoom(room, f"{room}@{host}") for room, at in self.seen_at.items() if at < before]

    async def accept(self, event: Event) -> None:
        assert json.loads(event.body)["cause"] == "server-restart"
        del self.seen_at[event.room]
        self.ended.append(event.room)


def restarts_of(rooms: Rooms) -> Restarts:
    return Restarts(rooms, rooms.accept, VirtualClock(), lambda fact: None)


@in_virtual_time
async def test_a_prosody_that_is_up_again_in_the_second_of_the_last_event_has_left_its_rooms_behind() -> None:
    rooms = Rooms(standup=NOW)
    restarts = restarts_of(rooms)
    restarts.module_connected(HOST, f"{NOW - 900}-1", has_events=False)
    await settled()
    restarts.module_connected(HOST, f"{NOW}-2", has_events=False)
    await settled()
    assert rooms.ended == ["standup"]


@in_virtual_time
async def test_a_room_that_was_made_in_the_second_of_the_start_is_not_ended_when_the_link_comes_back() -> None:
    rooms = Rooms(retro=NOW - 60)
    restarts = restarts_of(rooms)
    for boot in (f"{NOW - 900}-1", f"{NOW}-2"):
        restarts.module_connected(HOST, boot, has_events=False)
        await settled()
    rooms.seen_at["standup"] = NOW
    restarts.module_connected(HOST, f"{NOW}-2", has_events=False)
    await settled()
    assert rooms.ended == ["retro"]


@in_virtual_time
async def test_a_prosody_with_events_from_before_gets_time_to_end_its_rooms_itself() -> None:
    rooms = Rooms(standup=NOW - 60, retro=NOW - 60)
    restarts = restarts_of(rooms)
    restarts.module_connected(HOST, f"{NOW}-2", has_events=True)
    await asyncio.sleep(Restarts.FOR_EVENTS / 2)
    del rooms.seen_at["standup"]
    restarts.module_connected(HOST, f"{NOW}-2", has_events=False)
    await asyncio.sleep(Restarts.FOR_EVENTS)
    assert rooms.ended == ["retro"]
