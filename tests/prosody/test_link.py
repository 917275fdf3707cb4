"""The module's end of the link: whatever becomes of it, each question has one answer, its own, and in time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.prosody.conftest import GATE, Server, StartProsody, eventually
from tests.rig.answers import allow, deny, hold, reply
from tests.rig.link import Message
from tests.rig.raw_link import CLOSE, RawLink, RawSidecar, accepted, frame
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO = '{"allowed":false,"reason":"link"}'
TIMEOUT = "wait/remote-server-timeout"


def over_http(endpoint: str, _: dict[str, Any]) -> dict[str, Any]:
    """Says no, and where it was asked."""
    return {"allowed": False, "reason": "http"} if endpoint == "validate-access" else {}


@asynccontextmanager
async def linked(
    start_prosody: StartProsody, timeout: float = 4, **options: Any
) -> AsyncIterator[tuple[Server, RawSidecar, RawLink]]:
    """A Prosody of its own, what it takes for a sidecar, and the link between them."""
    async with RawSidecar() as sidecar:
        options = {"muc_webhook_timeout": timeout, **options}
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.url, options=options)
        yield prosody, sidecar, await sidecar.link()


async def ignored(prosody: Server) -> int:
    """How many messages meant nothing to the module."""
    found = re.search(r"(\d+) messages ignored", await prosody.shell("muc_webhook:status()"))
    assert found is not None
    return int(found[1])


async def test_a_link_cut_at_any_byte_of_an_answer_costs_no_answer(start_prosody: StartProsody, room: str) -> None:
    whole = len(frame(f"answer 1 200\n{NO}"))
    async with linked(start_prosody) as (prosody, sidecar, first), Client.connect(prosody) as ann:
        sidecar.over_http = over_http
        links = [first]
        for cut in range(whole + 1):
            await ann.begin_join(f"{room}-{cut}", "ann")
            question = await links[-1].reads()
            answer = frame(f"answer {question.id} 200\n{NO}")
            left = whole - cut
            links[-1].writes_bytes(answer[: len(answer) - left])
            links[-1].cut()
            error = (await ann.await_join(f"{room}-{cut}")).error
            assert error is not None
            assert (str(error), error.text) == ("cancel/not-allowed", "http" if left else "link")
            assert sidecar.asked("validate-access", f"{room}-{cut}") == (1 if left else 0)
            await prosody.reload()  # sets it up again at once
            links.append(await sidecar.link())


async def test_a_question_does_not_wait_until_another_one_is_acknowledged(
    start_prosody: StartProsody, room: str
) -> None:
    """A kernel acknowledges late, after some 40 ms, once a program is seen to answer."""
    took = []
    async with (
        linked(start_prosody) as (prosody, _, link),
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
    ):
        for number in range(30):
            await ann.begin_join(f"{room}-ann-{number}", "ann")
            question = await link.reads()
            if number >= 20:
                begun = time.monotonic()
                await bob.begin_join(f"{room}-bob-{number}", "bob")
                other = await link.reads()
                took.append(time.monotonic() - begun)
                link.writes(f"answer {other.id} 200\n{NO}")
                await bob.await_join(f"{room}-bob-{number}")
            link.writes(f"answer {question.id} 200\n{NO}")
            await ann.await_join(f"{room}-ann-{number}")
    assert sorted(took)[len(took) // 2] < 0.02


@pytest.mark.parametrize("cut", [0, 1, 9, 12, 40, 128, 168])
async def test_a_handshake_that_breaks_off_refuses_nobody(start_prosody: StartProsody, room: str, cut: int) -> None:
    async with RawSidecar(lambda key: accepted(key)[:cut]) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.url)
        async with Client.connect(prosody) as ann:
            for number in range(3):
                assert (await ann.join(f"{room}-{number}")).joined
            sidecar.handshake = accepted
            await sidecar.link(within=10)


async def test_a_handshake_that_hangs_refuses_nobody_and_leaves_nothing(start_prosody: StartProsody, room: str) -> None:
    async with RawSidecar(lambda _: None) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.url)
        async with Client.connect(prosody) as ann:
            result = await ann.join(room)
            assert result.joined
            assert result.took < 1
            before = prosody.sockets()
            sidecar.handshake = accepted
            link = await sidecar.link(within=8)
            assert prosody.sockets() == before
            await ann.begin_join(f"{room}-2", "ann")
            await link.reads()


REFUSALS = {
    "old": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "no upgrade": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "too old": b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
    "wrong token": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "no answer to the key": b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "an empty 101": b"HTTP/1.1 101 OK\r\n\r\n",
}


@pytest.mark.parametrize("refusal", [*REFUSALS, "another subprotocol"])
async def test_a_sidecar_without_this_link_is_asked_over_http_and_not_pestered(
    start_prosody: StartProsody, room: str, refusal: str
) -> None:
    def handshake(key: bytes) -> bytes:
        return REFUSALS.get(refusal) or accepted(key, "prosody-sidecar.v9")

    async with RawSidecar(handshake) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.url)
        async with Client.connect(prosody) as ann:
            assert (await ann.join(room)).joined
        await asyncio.sleep(0.5)
        assert sidecar.handshakes == 1
        assert [endpoint for endpoint, _, _ in sidecar.posts] == ["validate-access", "room-created"]
        shown = await prosody.shell("muc_webhook:status()")
        assert re.search(r"link: none \(.+\), next try in [23]\d\d s; HTTP is used", shown), shown


# -- whose answer is it?


async def test_only_the_answer_with_the_id_of_the_question_counts_and_only_once(
    start_prosody: StartProsody, room: str
) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        async with Client.connect(prosody) as eve:
            await ann.begin_join(room, "ann")
            of_ann = await link.reads()
            await eve.begin_join(room, "eve")
            of_eve = await link.reads()
            for stranger in ("999999", "0", "a-b", of_ann.id + "0"):
                link.writes(f'answer {stranger} 200\n{{"allowed":true}}')
            link.writes(f"answer {of_eve.id} 200\n{NO}")
            link.writes(f'answer {of_eve.id} 200\n{{"allowed":true}}')
            assert (await eve.await_join(room)).denied
            link.writes(f'answer {of_ann.id} 200 200 16\n{{"allowed":true}}{{}}')
            assert (await ann.await_join(room)).joined
            assert await prosody.occupants(room) == ["ann"]
        assert await ignored(prosody) == 5


async def test_an_answer_after_the_deadline_is_that_to_nobody(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody, timeout=1) as (prosody, _, link), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        late = await link.reads()
        assert str((await ann.await_join(room)).error) == TIMEOUT
        await ann.begin_join(room, "ann")
        question = await link.reads()
        link.writes(f'answer {late.id} 200\n{{"allowed":true}}')
        link.writes(f"answer {question.id} 200\n{NO}")
        assert (await ann.await_join(room)).denied
        assert await ignored(prosody) == 1


async def test_what_came_on_a_link_that_is_gone_answers_nothing_on_the_next(
    start_prosody: StartProsody, room: str
) -> None:
    async with linked(start_prosody) as (prosody, sidecar, link), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        first = await link.reads()
        link.cut()
        assert (await ann.await_join(room)).joined  # over HTTP
        later = await sidecar.link()
        await ann.begin_join(f"{room}-2", "ann")
        second = await later.reads()
        assert second.id != first.id
        later.writes(f'answer {first.id} 200\n{{"allowed":true}}')
        later.writes(f"answer {second.id} 200\n{NO}")
        assert (await ann.await_join(f"{room}-2")).denied


@pytest.mark.parametrize("status", ["", "2000", "20", "yes", "200 200", "200 200 x", "-200", "200 new", "old"])
async def test_an_answer_that_cannot_be_read_is_none(start_prosody: StartProsody, room: str, status: str) -> None:
    async with linked(start_prosody, timeout=1) as (prosody, _, link), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        question = await link.reads()
        link.writes(f'answer {question.id} {status}\n{{"allowed":true}}')
        assert str((await ann.await_join(room)).error) == TIMEOUT


# -- what a link may do


async def test_an_answer_of_a_mebibyte_is_read(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, log_level="info")
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"meetingTitle": "Big", "x": "x" * (1024 * 1024 - 100)}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {"meetingTitle": "Big"}
    assert [r.endpoint for r in prosody.backend.requests] == ["join"]


async def test_a_sidecar_that_stops_reading_is_left_in_time_for_http(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, sidecar, link):
        link.stops_reading()
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(20)]
            for number, client in enumerate(crowd):
                await client.begin_join(room, f"n{number}")
            results = await asyncio.gather(*(client.await_join(room) for client in crowd))
        assert all(result.joined for result in results)
        assert max(result.took for result in results) < 4
        assert sidecar.asked("validate-access", room) == 20
        assert "gives no sign of life" in prosody.log_of_test()


@pytest.mark.parametrize("what", ["junk", "answer 7 200\n{}", "pong 1"])
async def test_a_sidecar_that_floods_harms_no_join(start_prosody: StartProsody, room: str, what: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        flood = frame(what) * 10_000
        for _ in range(3):
            link.writes_bytes(flood)
        for number in range(2):
            result = await ann.join(f"{room}-{number}")
            assert result.joined
            assert result.took < 2


async def test_an_endless_message_ends_the_link(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        link.writes_bytes(b"\x81\x7f\x00\x00\x00\x7f\xff\xff\xff\xff" + b"x" * 5_000_000)
        await link.is_over()
        assert (await ann.join(room)).joined


BROKEN = {
    "a reserved bit": b"\xf1\x00",
    "an opcode that is none": b"\x83\x00",
    "a continuation of nothing": b"\x80\x00",
    "a long ping": b"\x89\x7e\x01\x00" + b"x" * 256,
    "a close that is too short": b"\x88\x01x",
    "a good-bye": frame(b"\x03\xe9", CLOSE),
}


@pytest.mark.parametrize("what", BROKEN.values(), ids=BROKEN.keys())
async def test_a_link_that_ends_in_the_middle_of_a_question_costs_no_answer(
    start_prosody: StartProsody, room: str, what: bytes
) -> None:
    async with linked(start_prosody) as (prosody, sidecar, link), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await link.reads()
        link.writes_bytes(what)
        if what == BROKEN["a good-bye"]:
            link.cut()
        assert (await ann.await_join(room)).joined
        assert sidecar.asked("validate-access", room) == 1


async def test_an_error_in_a_handler_harms_nothing_else(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        await prosody.module(f'{GATE}.parts.orders.carry_out = function () error("oops"); end')
        await ann.begin_join(room, "ann")
        question = await link.reads()
        link.writes_bytes(frame('order o-1\n{"verb":"end"}') + frame(f"answer {question.id} 200\n{NO}"))
        assert (await ann.await_join(room)).denied
        assert "oops" in prosody.log_of_test()
        prosody.log_is_read()


async def test_an_order_that_is_not_known_has_failed(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (_, __, link):
        for order in ('{"verb":"sing"}', "{", ""):
            link.writes(f"order o-1\n{order}")
            done = await link.reads("done")
            assert (done.id, json.loads(done.body)["status"]) == ("o-1", "failed")


# -- reload and restart


async def test_what_was_asked_before_a_reload_is_answered_once_on_its_own_link(
    start_prosody: StartProsody, room: str
) -> None:
    async with linked(start_prosody) as (prosody, sidecar, old), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        question = await old.reads()
        await prosody.reload()
        new = await sidecar.link()
        new.writes(f'answer {question.id} 200\n{{"allowed":true}}')
        old.writes(f"answer {question.id} 200\n{NO}")
        assert (await ann.await_join(room)).denied
        await old.is_over()
        await ann.begin_join(f"{room}-2", "ann")
        assert (await new.reads()).id != question.id
        assert sidecar.posts == []


async def test_an_unload_ends_the_link_and_what_is_asked_on_it(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await link.reads()
        await prosody.unload()
        assert (await ann.await_join(room)).denied
        await link.is_over()


async def test_a_sidecar_that_says_bye_answers_what_it_was_asked_and_is_asked_no_more(
    start_prosody: StartProsody, room: str
) -> None:
    async with linked(start_prosody) as (prosody, sidecar, old), Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        question = await old.reads()
        sidecar.handshake = lambda _: None
        old.writes("bye 0")
        async with Client.connect(prosody) as bob:
            assert (await bob.join(f"{room}-2")).joined
            assert sidecar.asked("validate-access", f"{room}-2") == 1
        old.writes(f"answer {question.id} 200\n{NO}")
        assert (await ann.await_join(room)).denied
        await old.is_over()


async def test_after_bye_the_next_link_is_there_at_once(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (_, sidecar, link):
        link.writes("bye 0")
        await sidecar.link(within=1)


# -- events


async def test_an_event_goes_on_until_it_is_taken_with_the_same_id(start_prosody: StartProsody, room: str) -> None:
    async with (
        linked(start_prosody, muc_webhook_events=["user-joined"]) as (prosody, sidecar, link),
        Client.connect(prosody) as ann,
    ):
        await ann.begin_join(room, "ann")
        link.writes(f'answer {(await link.reads()).id} 200 200 16\n{{"allowed":true}}{{}}')
        assert (await ann.await_join(room)).joined
        event = await link.reads()
        assert (event.kind, event.words) == ("event", ("user-joined",))
        link.cut()
        later = await sidecar.link()
        again = await later.reads()
        assert (again.id, again.body) == (event.id, event.body)
        later.writes(f"taken {event.id} 503")
        once_more = await later.reads()
        assert (once_more.id, once_more.body) == (event.id, event.body)
        later.writes(f"taken {event.id} 202\n{{}}")
        later.writes(f"taken {event.id} 202\n{{}}")

        async def waiting() -> bool:
            return "events: 0 waiting, 0 dropped" in await prosody.shell("muc_webhook:status()")

        await eventually(waiting, True)
        assert sidecar.posts == []


async def test_events_that_wait_go_as_soon_as_the_link_is_up(start_prosody: StartProsody, room: str) -> None:
    async with (
        linked(start_prosody, muc_webhook_events=["user-joined"]) as (prosody, sidecar, link),
        Client.connect(prosody) as ann,
    ):
        await ann.begin_join(room, "ann")
        link.writes(f'answer {(await link.reads()).id} 200 200 16\n{{"allowed":true}}{{}}')
        event = await link.reads()
        link.writes(f"taken {event.id} 503")
        queue = "local queue = webhook.module.save().queue"
        await eventually(lambda: prosody.module(f"{queue}; return queue.failures"), 1)
        await prosody.module(f'{queue}; queue.paused_until = require "util.time".now() + 60')
        link.cut()
        assert (await (await sidecar.link()).reads()).id == event.id


async def test_events_do_not_hold_up_questions(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_events": ["user-joined"]})
    await prosody.link_up()
    prosody.backend.on("*", hold(allow()))
    async with AsyncExitStack() as stack:
        for number in range(12):
            client = await stack.enter_async_context(Client.connect(prosody))
            result = await client.join(f"{room}-{number}")
            assert result.joined
            assert result.took < 1
        prosody.backend.on("validate-access", deny("No"))
        async with Client.connect(prosody) as eve:
            assert (await eve.join(room)).denied
    assert prosody.backend.most_at_once["user-joined"] <= 4


def answers_join(question: Message, config: str | None) -> str:
    """Lets in. Without a config: it is the one whose digest the question has."""
    yes = '{"allowed":true,"reason":null}'
    return f"answer {question.id} 200 {200 if config else 304} {len(yes)}\n{yes}{config or ''}"


def digest(config: str) -> str:
    return hashlib.sha256(config.encode()).hexdigest()[:32]


async def test_a_config_that_the_module_has_had_need_not_be_sent_again(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        link.writes('hello 0\n{"version":"0.2.0","configDigests":true}')
        first, second = '{"meetingTitle":"One","password":"a"}', '{"meetingTitle":"Two"}'
        sent: list[tuple[str | None, str | None, str]] = [
            (None, first, "One"),
            (digest(first), None, "One"),
            (digest(first), second, "Two"),
            (digest(second), None, "Two"),
        ]
        for known, config, title in sent:
            await ann.begin_join(room, "ann", password="a" if title == "One" else None)
            question = await link.reads()
            assert question.words == ("join", "config", *([known] if known else []))
            link.writes(answers_join(question, config))
            assert (await ann.await_join(room)).config == {"meetingTitle": title}
            await ann.leave(room, "ann")


async def test_a_config_is_known_for_its_own_room_only(start_prosody: StartProsody, room: str) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        link.writes('hello 0\n{"version":"0.2.0","configDigests":true}')
        await ann.begin_join(f"{room}-1", "ann")
        link.writes(answers_join(await link.reads(), '{"meetingTitle":"One"}'))
        assert (await ann.await_join(f"{room}-1")).joined
        await ann.begin_join(f"{room}-2", "ann")
        question = await link.reads()
        assert question.words == ("join", "config")
        link.writes(answers_join(question, None))  # that it has not
        assert str((await ann.await_join(f"{room}-2")).error) == TIMEOUT
        assert await prosody.occupants(f"{room}-2") == []


async def test_a_sidecar_that_knows_no_digests_is_asked_for_the_whole_config(
    start_prosody: StartProsody, room: str
) -> None:
    async with linked(start_prosody) as (prosody, _, link), Client.connect(prosody) as ann:
        for _ in range(2):
            await ann.begin_join(room, "ann")
            question = await link.reads()
            assert question.words == ("join", "config")
            link.writes(answers_join(question, '{"meetingTitle":"One"}'))
            assert (await ann.await_join(room)).config == {"meetingTitle": "One"}
            await ann.leave(room, "ann")
