"""A recording that the config wants is started without a script in the page, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.jitsi import in_room, order_to_record, promote
from tests.prosody.story import OPTIONS, story
from tests.rig.answers import hold, reply
from tests.rig.xmpp import CLIENT, MUC, Client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.jitsi]

JIBRI = "{http://jitsi.org/protocol/jibri}jibri"
RECORD = {"autoRecord": True, "recordingEnabled": True, "moderators": ["boss@auth.localhost"]}
QUICK = """
    local waits = module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts.auto_record.waits;
    for i in ipairs(waits) do waits[i] = 0.1; end"""


@dataclass
class Jicofo:
    """What jicofo does with orders to record; `error` is why it refuses, "silence" that it says nothing."""

    client: Client
    room: str
    error: str = ""
    orders: list[ET.Element] = field(default_factory=list)
    sessions: int = 0

    async def run(self) -> None:
        while True:
            order = await self.client.expect(lambda e: e.find(JIBRI) is not None, 3600)
            self.orders.append(order)
            if self.error != "silence":
                await self.answer(order)

    async def answer(self, order: ET.Element) -> None:
        if self.error:
            condition = f"<{self.error} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
            await self._reply(order, "error", f"<error type='cancel'>{condition}</error>")
            return
        self.sessions += 1
        jibri = f"<jibri xmlns='http://jitsi.org/protocol/jibri' status='pending' session_id='s{self.sessions}'/>"
        await self._reply(order, "result", jibri)
        await self.says("on")

    async def says(self, status: str, session: str | None = None, mode: str = "file", **more: str) -> None:
        attributes = {"status": status, "session_id": session or f"s{self.sessions}", "recording_mode": mode, **more}
        text = " ".join(f"{name}='{value}'" for name, value in attributes.items())
        element = f"<jibri-recording-status xmlns='http://jitsi.org/protocol/jibri' {text}/>"
        await self.client.send(f"<presence to='{self.client.room_jid(self.room)}/focus'>{element}</presence>")
        await self.client.ping()

    async def _reply(self, order: ET.Element, kind: str, payload: str) -> None:
        await self.client.send(f"<iq type='{kind}' id='{order.get('id')}' to='{order.get('from')}'>{payload}</iq>")

    async def asked(self, times: int) -> None:
        """Waits until it was asked that often, and some more time for what should not come."""

        async def count() -> bool:
            return len(self.orders) >= times

        await eventually(count, True)
        await asyncio.sleep(0.4)
        assert len(self.orders) == times


@asynccontextmanager
async def jicofo_in(prosody: Server, room: str, error: str = "") -> AsyncIterator[Jicofo]:
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        jicofo = Jicofo(focus, room, error)
        running = asyncio.create_task(jicofo.run())
        try:
            yield jicofo
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def quick(start_prosody: StartProsody) -> Server:
    """A server that hardly waits before it asks."""
    prosody = await start_prosody(options=OPTIONS, log_level="info")
    await prosody.module(QUICK)
    prosody.backend.on("room-created", reply(RECORD))
    return prosody


async def recordings(prosody: Server, room: str) -> list[str]:
    return [each for each in await story(prosody, room) if each.split()[0].isupper()]


async def order_by(client: Client, room: str) -> None:
    """What a page does that obeys START_RECORDING."""
    await client.send(f"<iq type='set' id='page' to='{client.room_jid(room)}/focus'>{order_to_record()}</iq>")


async def test_the_first_moderator_begins_the_recording(quick: Server, room: str) -> None:
    async with (
        jicofo_in(quick, room) as jicofo,
        Client.connect(quick) as ann,
        Client.connect(quick, user="boss") as boss,
    ):
        joined = await ann.join(room, nick="ann")
        assert joined.asked_to_record, "a page with a script is asked as ever"
        await asyncio.sleep(0.4)
        assert jicofo.orders == [], "jicofo takes orders of moderators only"
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        [order] = jicofo.orders
        assert order.get("from") == f"{boss.room_jid(room)}/boss"
        jibri = order.find(JIBRI)
        assert jibri is not None
        assert jibri.get("action") == "start"
        assert jibri.get("recording_mode") == "file"
        await boss.ping()
        assert not boss.has(lambda e: e.tag == f"{CLIENT}iq"), "the answer is not the page's"
        assert await recordings(quick, room) == ["STARTED s1"]


async def test_the_recording_begins_when_somebody_becomes_a_moderator(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick) as ann:
        await ann.join(room, nick="ann")
        await promote(quick, room, ann)
        await jicofo.asked(1)


async def test_the_recording_begins_when_the_config_comes_late(quick: Server, room: str) -> None:
    slow = hold(reply(RECORD))
    quick.backend.on("room-created", slow)
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.begin_join(room, "boss")
        slow.release()
        await boss.await_join(room)
        await jicofo.asked(1)


@pytest.mark.parametrize(
    "config",
    [
        {"autoRecord": True},
        {"recordingEnabled": True},
        {**RECORD, "recordingEnabled": False},
        {**RECORD, "autoRecord": 1},
    ],
    ids=str,
)
async def test_nothing_begins_unless_both_settings_say_so(quick: Server, room: str, config: dict[str, Any]) -> None:
    quick.backend.on("room-created", reply({**config, "moderators": RECORD["moderators"]}))
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(0)


async def test_refused_orders_are_repeated_a_few_times_and_each_is_an_event(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room, "service-unavailable") as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(5)
        assert await recordings(quick, room) == ["FAILED None"] * 5
        assert {each.body["error"] for each in quick.backend.asked("recording", room)} == {"service-unavailable"}
        assert not boss.has(lambda e: e.tag == f"{CLIENT}iq")
        await boss.leave(room, "boss")
        await boss.join(room, nick="boss")
        await jicofo.asked(5)


async def test_a_later_order_can_succeed(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room, "resource-constraint") as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await quick.backend.received("recording", room)
        jicofo.error = ""
        await quick.backend.received("recording", room, count=2)
        assert (await recordings(quick, room))[-1] == "STARTED s1"
        await jicofo.asked(len(jicofo.orders))


async def test_an_order_without_an_answer_is_a_refused_one(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    await prosody.module(QUICK)
    prosody.backend.on("room-created", reply(RECORD))
    async with jicofo_in(prosody, room, "silence") as jicofo, Client.connect(prosody, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        await prosody.module("""
            local _, life = next(webhook.module.save().lives);
            life.auto_record.due = 0""")
        await prosody.reload()  # goes on with what is due
        await prosody.backend.received("recording", room)
        assert prosody.backend.asked("recording", room)[0].body["error"] == "timeout"
        await jicofo.client.send(
            f"<iq type='result' id='{jicofo.orders[0].get('id')}' to='{jicofo.orders[0].get('from')}'/>"
        )
        await jicofo.client.ping()
        await boss.ping()
        assert not boss.has(lambda e: e.tag == f"{CLIENT}iq"), "a late answer is not the page's either"


@pytest.mark.parametrize("stopped", ["on", "pending"])
async def test_what_somebody_has_stopped_is_not_started_again(quick: Server, room: str, stopped: str) -> None:
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        await jicofo.says(stopped)
        await jicofo.says("off", initiator=f"{boss.room_jid(room)}/boss")
        await boss.leave(room, "boss")
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        await quick.reload()
        await quick.module(QUICK)
        await jicofo.says("off")
        await jicofo.asked(1)


async def test_what_was_stopped_stays_so_when_the_module_begins_with_nothing(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    await prosody.module(QUICK)
    prosody.backend.on("room-created", reply(RECORD))
    async with (
        jicofo_in(prosody, room) as jicofo,
        Client.connect(prosody, user="boss") as boss,
        Client.connect(prosody) as ann,
    ):
        await boss.join(room, nick="boss")
        await ann.join(room, nick="ann")
        await jicofo.asked(1)
        await jicofo.says("off")
        await prosody.unload()
        await boss.leave(room, "boss")
        await prosody.load()
        await prosody.module(QUICK)
        prosody.backend.on("room-created", reply({**RECORD, "meetingTitle": "Again"}))
        await boss.join(room, nick="boss")
        await jicofo.asked(1)


async def test_a_recording_that_breaks_off_is_started_again(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        await jicofo.says("off", failure_reason="error")
        await jicofo.asked(2)
        assert await recordings(quick, room) == ["STARTED s1", "FAILED s1", "STARTED s2"]


async def test_what_jicofo_repeats_of_an_earlier_try_is_no_news(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room, "silence") as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.says("off", "s0", failure_reason="error")
        await jicofo.asked(1)
        await jicofo.client.send(
            f"<iq type='result' id='{jicofo.orders[0].get('id')}' to='{jicofo.orders[0].get('from')}'/>"
        )
        await jicofo.says("off", "s0", failure_reason="error")
        await jicofo.asked(1)


async def test_a_page_that_obeys_is_not_followed_by_a_second_recording(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=OPTIONS)
    prosody.backend.on("room-created", reply(RECORD))
    async with jicofo_in(prosody, room, "silence") as jicofo, Client.connect(prosody, user="boss") as boss:
        assert (await boss.join(room, nick="boss")).asked_to_record
        await order_by(boss, room)
        await asyncio.sleep(2.5)  # the module waits for 2 s before it asks
        await jicofo.asked(1)
        jicofo.error = ""
        await jicofo.answer(jicofo.orders[0])
        answer = await boss.expect(lambda e: e.tag == f"{CLIENT}iq" and e.get("id") == "page")
        assert answer.get("type") == "result", "it is the page's own"
        assert await recordings(prosody, room) == ["STARTED s1"]


async def test_what_runs_already_is_no_failure(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room, "unexpected-request") as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        assert await recordings(quick, room) == []


async def test_a_live_stream_is_waited_for(quick: Server, room: str) -> None:
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await jicofo.says("on", "live", mode="stream")
        await boss.join(room, nick="boss")
        await jicofo.asked(0)
        await jicofo.says("off", "live", mode="stream")
        await jicofo.asked(1)


async def test_a_participant_does_not_answer_for_jicofo(quick: Server, room: str) -> None:
    async with (
        jicofo_in(quick, room, "silence") as jicofo,
        Client.connect(quick, user="boss") as boss,
        Client.connect(quick) as eve,
    ):
        await eve.join(room, nick="eve")
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        [order] = jicofo.orders
        await eve.send(f"<iq type='result' id='{order.get('id')}' to='{order.get('from')}'/>")
        await eve.ping()
        asked = """
            for _, life in pairs(webhook.module.save().lives) do
                if life.auto_record and life.auto_record.asked == "%s" then return true end
            end"""
        assert await quick.module(asked % order.get("id")) is True, "the question is still open"


async def test_a_reload_between_order_and_answer_loses_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    prosody.backend.on("room-created", reply(RECORD))
    async with jicofo_in(prosody, room, "silence") as jicofo, Client.connect(prosody, user="boss") as boss:
        await boss.join(room, nick="boss")
        await prosody.reload()  # while the module waits before it asks
        await prosody.reload("muc")
        await eventually_asked(jicofo)
        await prosody.reload()
        jicofo.error = ""
        await jicofo.answer(jicofo.orders[0])
        await jicofo.asked(1)
        assert not boss.has(lambda e: e.tag == f"{CLIENT}iq")
        assert await recordings(prosody, room) == ["STARTED s1"]


async def eventually_asked(jicofo: Jicofo) -> None:
    async def is_asked() -> bool:
        return jicofo.orders != []

    await eventually(is_asked, True)


async def test_another_meeting_in_the_same_room_is_recorded_too(quick: Server, room: str) -> None:
    quick.backend.on("room-created", reply({**RECORD, "persistent": True}))
    async with jicofo_in(quick, room) as jicofo, Client.connect(quick, user="boss") as boss:
        await boss.join(room, nick="boss")
        await jicofo.asked(1)
        await jicofo.says("off", initiator=f"{boss.room_jid(room)}/boss")
        await boss.leave(room, "boss")
        await jicofo.says("off")
        await jicofo.client.leave(room, "focus")
        await jicofo.client.send(f"<presence to='{boss.room_jid(room)}/focus'><x xmlns='{MUC}'/></presence>")
        await boss.join(room, nick="boss")
        await jicofo.asked(2)
        await in_room(quick, room, "room:set_persistent(false)")
