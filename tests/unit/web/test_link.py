"""The sidecar's end of the link: what modules say in, answers and orders out, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode, web
from pytest_aiohttp import AiohttpRawServer

from sidecar.clock import SystemClock
from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Crashed, Fact, LinkChanged, LinkIgnored, Notice
from sidecar.web import link as link_module
from sidecar.web.hosts import Hosts
from sidecar.web.link import FRAME_LIMIT, GIVE_UP_AT, MOST_IGNORED, Links, Module
from sidecar.web.questions import Questions, WebhookSettings
from tests.rig.link import HELLO, PROTOCOL, Link
from tests.unit.builders import ALLOW, CONFIG, DENY
from tests.unit.web.engines import BY_BACKEND, JOIN, PREFIX, Engines

Open = Callable[..., AbstractAsyncContextManager[Link]]


class Orders:
    """Keeps what a link reports."""

    def __init__(self) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []
        self.modules: list[tuple[str, str, bool]] = []

    def acknowledged(self, order_id: str, outcome: dict[str, Any], host: str) -> None:
        self.done.append((order_id, outcome))

    def module_connected(self, host: str, boot: str, *, has_events: bool) -> None:
        self.modules.append((host, boot, has_events))


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def facts() -> list[Fact]:
    return []


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(SystemClock())


@pytest.fixture
def links(engines: Engines, facts: list[Fact], hosts: Hosts) -> Links:
    clock = SystemClock()
    questions = Questions(engines, engines, WebhookSettings(PREFIX), clock, lambda size: "ab" * size, facts.append)
    return Links(questions, hosts, clock, facts.append)


@pytest.fixture
async def url(links: Links, aiohttp_raw_server: AiohttpRawServer) -> AsyncIterator[str]:
    server = await aiohttp_raw_server(links.handle)
    yield str(server.make_url(PREFIX))
    await links.end(0.1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_module_that_is_gone_before_its_link_is_opened_leaves_no_traceback(
    links: Links, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (
        f"GET {PREFIX}/link HTTP/1.1",
        *("Host: x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Sec-WebSocket-Protocol: {PROTOCOL}", "", ""),
    )
    # as the daemon does it: a handler goes on when its client is gone
    runner = web.ServerRunner(web.Server(links.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        with socket.create_connection(runner.addresses[0]) as module:  # closed before the loop runs again
            module.sendall("\r\n".join(lines).encode())
        async with Link.open(
            f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}"
        ) as link:  # the one before has been served
            await link.asks("join", JOIN)
    finally:
        await links.end(0.1)
        await runner.cleanup()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("timeout", "is_named"), [(3, True), (4.0, True), (4.5, False), (None, False), (True, False), ("1", False)]
)
async def test_a_module_that_stops_waiting_before_its_answer_is_there_is_named(
    url: str, links: Links, facts: list[Fact], timeout: Any, is_named: bool
) -> None:
    """The deadline is 4 s."""
    async with Link.open(url, {**HELLO, "timeout": timeout}) as link:
        await link.asks("join", JOIN)
        said = [fact.message for fact in facts if isinstance(fact, Notice) and fact.level == "warning"]
        assert bool(said) is is_named
        assert links.impatient() == said
        assert all("conference.example.com waits" in each and "muc_webhook_timeout above 4 " in each for each in said)
    await until(lambda: not links.impatient())


async def test_a_question_over_the_link_is_one_of_its_component(url: str, hosts: Hosts) -> None:
    async with Link.open(url) as link:
        await until(lambda: hosts.document() != [])
        assert hosts.document()[0]["asked_seconds"] is None
        await link.asks("join", JOIN)
        (host,) = hosts.document()
        assert (host["host"], host["linked"], host["silent_seconds"]) == (HELLO["host"], True, 0)
        assert host["asked_seconds"] < 5
    await until(lambda: not hosts.document()[0]["linked"])
    assert hosts.document()[0]["had_link"]


async def test_an_answer_has_the_id_of_its_question(url: str) -> None:
    async with Link.open(url) as link:
        first, second = await link.begins("validate-access", JOIN), await link.begins("room-created", JOIN)
        assert (await link.hears("answer", second)).body == CONFIG
        assert (await link.hears("answer", first)).document == {**json.loads(ALLOW), **BY_BACKEND}
        assert set(link.counts().values()) == {1}


@pytest.mark.parametrize("from_memory", [False, True])
async def test_a_join_gets_the_decision_and_the_room_config(url: str, engines: Engines, from_memory: bool) -> None:
    engines.remembers = from_memory
    async with Link.open(url) as link:
        answer = await link.asks("join config", JOIN)
        assert (answer.status, answer.config_status) == (200, 200)
        assert answer.document == {**json.loads(ALLOW), **BY_BACKEND}
        assert answer.config == CONFIG
        assert (await link.asks("join", JOIN)).config is None


@pytest.mark.parametrize("from_memory", [False, True])
async def test_a_config_that_the_module_has_already_is_not_sent_again(
    url: str, engines: Engines, from_memory: bool
) -> None:
    engines.remembers = from_memory
    known, other = hashlib.sha256(CONFIG).hexdigest()[:32], hashlib.sha256(b"{}").hexdigest()[:32]
    async with Link.open(url) as link:
        assert (await link.hears("hello", "0")).document["configDigests"] is True
        answer = await link.asks(f"join config {known}", JOIN)
        assert (answer.document["allowed"], answer.config_status, answer.config) == (True, 304, b"")
        answer = await link.asks(f"join config {other}", JOIN)
        assert (answer.document["allowed"], answer.config_status, answer.config) == (True, 200, CONFIG)


async def test_a_problem_is_no_config_that_a_module_can_have(url: str, engines: Engines) -> None:
    engines.answers[Endpoint.ROOM_CREATED] = Answer(503, b"{}", Source.POLICY)
    async with Link.open(url) as link:
        answer = await link.asks(f"join config {hashlib.sha256(b'{}').hexdigest()[:32]}", JOIN)
        assert (answer.config_status, answer.config) == (503, b"{}")


async def test_a_join_that_is_denied_gets_no_config(url: str, engines: Engines) -> None:
    engines.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, DENY, Source.BACKEND, allowed=False)
    async with Link.open(url) as link:
        answer = await link.asks("join config", JOIN)
        assert (answer.document, answer.config) == ({**json.loads(DENY), **BY_BACKEND}, None)


async def test_a_room_without_a_config_gets_a_problem(url: str, engines: Engines) -> None:
    engines.answers[Endpoint.ROOM_CREATED] = Answer(503, b"", Source.POLICY)
    async with Link.open(url) as link:
        assert (await link.asks("room-created", JOIN)).document["status"] == 503
        assert json.loads((await link.asks("join config", JOIN)).config or b"")["status"] == 503


async def test_an_event_is_taken_with_its_id_as_the_key(url: str, engines: Engines) -> None:
    async with Link.open(url) as link:
        assert (await link.event("user-joined", "standup", "a-1")).status == 202
    assert [(event.endpoint, event.idempotency_key) for event in engines.events] == [(Endpoint.USER_JOINED, "a-1")]


@pytest.mark.parametrize(
    ("words", "body", "status", "says"),
    [
        ("validate-acess", json.dumps(JOIN), 404, "no such endpoint"),
        ("user-joined", json.dumps(JOIN), 404, "no such endpoint"),
        ("validate-access", "{", 400, "not JSON"),
        ("validate-access", '{"roomName": "a"}', 400, "userJid is missing"),
        ("join config", "", 400, "not JSON"),
        ("join config a", json.dumps(JOIN), 404, "no such endpoint"),
        ("validate-access", " " * 70_000, 413, "longer than 65536 bytes"),
    ],
)
async def test_a_question_that_cannot_be_understood_gets_a_problem(
    url: str, words: str, body: str, status: int, says: str
) -> None:
    async with Link.open(url) as link:
        await link.says("ask", "1", *words.split(), body=body.encode())
        answer = await link.hears("answer", "1")
        assert (answer.status, says in answer.document["detail"]) == (status, True)


async def test_a_defect_keeps_a_user_out_with_a_definite_answer(url: str, engines: Engines, facts: list[Fact]) -> None:
    engines.error = RuntimeError("a defect")
    async with Link.open(url) as link:
        assert (await link.asks("join config", JOIN)).document["allowed"] is False
    assert [fact.where for fact in facts if isinstance(fact, Crashed)] == ["resolver"]


async def test_a_slow_answer_holds_up_no_other(url: str, engines: Engines) -> None:
    engines.held = asyncio.Event()
    async with Link.open(url) as link:
        slow = await link.begins("validate-access", JOIN)
        assert (await link.event("user-joined", "standup", "a-1")).status == 202
        await link.says("ping", "7")
        await link.hears("pong", "7")
        assert slow not in link.counts()
        engines.held.set()
        assert (await link.hears("answer", slow)).document == {**json.loads(ALLOW), **BY_BACKEND}


async def test_too_many_at_once_are_answered_503(url: str, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MOST_UNDER_WAY", 2)
    engines.held = asyncio.Event()
    async with Link.open(url) as link:
        *held, extra = [await link.begins("validate-access", JOIN) for _ in range(3)]
        assert (await link.hears("answer", extra)).status == 503
        engines.held.set()
        for ident in held:
            assert (await link.hears("answer", ident)).status == 200


# -- who may open one


async def refused(url: str, *, protocol: str = PROTOCOL, **headers: str) -> int:
    """The status of a handshake that is no good."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{url}/link", protocols=[protocol], headers=headers)
    return caught.value.status


async def test_a_page_in_a_browser_gets_no_link(url: str) -> None:
    assert await refused(url, Origin="http://127.0.0.1") == 403


async def test_another_subprotocol_is_refused(url: str) -> None:
    assert await refused(url, protocol="prosody-sidecar.v9") == 426


async def test_without_the_token_there_is_no_link(
    engines: Engines, facts: list[Fact], aiohttp_raw_server: AiohttpRawServer
) -> None:
    clock = SystemClock()
    settings = WebhookSettings(PREFIX, tokens=("right", "old"))
    questions = Questions(engines, engines, settings, clock, lambda size: "ab" * size, facts.append)
    links = Links(questions, Hosts(clock), clock, facts.append)
    url = str((await aiohttp_raw_server(links.handle)).make_url(PREFIX))
    assert await refused(url) == 401
    assert await refused(url, **{"X-Webhook-Secret": "wrong"}) == 401
    assert links.connected() == []
    async with Link.open(url, headers={"X-Webhook-Secret": "right"}) as link:
        assert (await link.asks("validate-access", JOIN)).status == 200
    await links.end(0.1)


async def test_a_link_with_a_token_that_no_longer_counts_is_ended(
    engines: Engines, facts: list[Fact], aiohttp_raw_server: AiohttpRawServer
) -> None:
    clock = SystemClock()
    settings = WebhookSettings(PREFIX, tokens=("new", "old"))
    questions = Questions(engines, engines, settings, clock, lambda size: "ab" * size, facts.append)
    links = Links(questions, Hosts(clock), clock, facts.append)
    url = str((await aiohttp_raw_server(links.handle)).make_url(PREFIX))

    def has_old_token() -> dict[str, bool]:
        return {each["host"]: each["old_token"] for each in links.document()}

    async with (
        Link.open(url, {**HELLO, "host": "a"}, {"X-Webhook-Secret": "new"}) as new,
        Link.open(url, {**HELLO, "host": "b"}, {"X-Webhook-Secret": "old"}) as old,
    ):
        links.sweep()
        assert has_old_token() == {"a": False, "b": True}
        questions.settings = WebhookSettings(PREFIX, tokens=("new",))
        links.sweep()
        links.sweep()
        await old.hears("bye", "0")
        await old.says("pong", "bye")
        assert await old.ends() == WSCloseCode.GOING_AWAY
        assert (await new.asks("validate-access", JOIN)).status == 200
        assert has_old_token() == {"a": False}
    ended = next(fact for fact in facts if isinstance(fact, LinkChanged) and not fact.up)
    assert ended.reason == "its token no longer counts"
    assert sum(message.kind == "bye" for message in old.seen) == 1
    await links.end(0.1)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("POST", {}, 405), ("GET", {}, 426), ("GET", {"Upgrade": "websocket", "Sec-WebSocket-Protocol": PROTOCOL}, 400)],
)
async def test_what_is_no_handshake_gets_a_problem(url: str, method: str, headers: dict[str, str], status: int) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, f"{url}/link", headers=headers) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "first",
    ["", "hello 0", "hello 0\n{", "hello 0\n[]", 'hello 0\n{"host": "a"}', "ask 1 validate-access\n{}"]
    + [f"hello 0\n{json.dumps({**HELLO, 'boot': boot})}" for boot in (7, "", "a\nb", "x" * 300)],
)
async def test_who_does_not_say_hello_is_no_module(url: str, links: Links, first: str) -> None:
    async with Link.open(url, hello=None) as link:
        await link.socket.send_str(first)
        assert await link.ends() == WSCloseCode.POLICY_VIOLATION
    assert links.connected() == []


# -- what a link must bear


async def test_a_message_that_is_too_long_ends_its_own_link_only(url: str) -> None:
    async with Link.open(url) as other, Link.open(url) as link:
        await link.says("ask", "1", "validate-access", body=b" " * FRAME_LIMIT)
        assert await link.ends() == WSCloseCode.MESSAGE_TOO_BIG
        assert (await other.asks("validate-access", JOIN)).status == 200


@pytest.mark.parametrize(
    "junk",
    ["", "junk", "ask", "ask \n{}", "ask a/b join\n{}", "answer 1 200\n{}", "done 1\n{", "done 1\n[]"],
)
async def test_what_means_nothing_is_ignored_and_counted(url: str, facts: list[Fact], junk: str) -> None:
    async with Link.open(url) as link:
        await link.socket.send_str(junk)
        assert (await link.asks("validate-access", JOIN)).status == 200
    assert sum(isinstance(fact, LinkIgnored) for fact in facts) == 1


async def test_a_flood_of_what_means_nothing_ends_the_link(url: str) -> None:
    async with Link.open(url) as other, Link.open(url) as link:
        for _ in range(MOST_IGNORED + 1):
            await link.socket.send_str("junk")
        assert await link.ends() == WSCloseCode.POLICY_VIOLATION
        assert (await other.asks("validate-access", JOIN)).status == 200


async def test_a_module_that_does_not_read_is_not_read_from_and_is_given_up(
    url: str, engines: Engines, links: Links
) -> None:
    engines.answers[Endpoint.ROOM_CREATED] = Answer(200, b"x" * 1_000_000, Source.HIT)
    engines.remembers = True
    async with Link.open(url) as other, Link.open(url, hello={**HELLO, "host": "deaf"}) as deaf:
        transport = deaf.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        for _ in range(30):
            await deaf.begins("room-created", JOIN)
        await asyncio.sleep(0.1)
        assert engines.asked < 30, "it has stopped to read"
        assert (await other.asks("validate-access", JOIN)).status == 200
        for _ in range(GIVE_UP_AT):
            links.sweep()
        await until(lambda: "deaf" not in [module.host for module in links.connected()])


async def test_a_silent_module_is_asked_for_a_sign_of_life_and_given_up_without_one(url: str, links: Links) -> None:
    async with Link.open(url) as lively, Link.open(url, hello={**HELLO, "host": "silent"}) as silent:
        for _ in range(GIVE_UP_AT - 1):
            links.sweep()
        for link in (lively, silent):
            await link.hears("ping", "0", within=1.0)
        await lively.says("pong", "0")
        await lively.asks("validate-access", JOIN)
        links.sweep()
        await until(lambda: [module.host for module in links.connected()] == [HELLO["host"]])
        assert [each.id for each in silent.seen if each.kind == "ping"] == ["0"]


async def test_a_link_that_vanishes_leaves_nothing(url: str, engines: Engines, links: Links, facts: list[Fact]) -> None:
    engines.held = asyncio.Event()
    async with Link.open(url) as link:
        await link.begins("validate-access", JOIN)
        await link.says("event", "a-1", "user-joined", body=json.dumps(JOIN).encode())
        link.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: links.connected() == [])
        engines.held.set()
    await until(lambda: len(engines.events) == 1)  # it had been accepted
    assert [fact.up for fact in facts if isinstance(fact, LinkChanged)] == [True, False]
    assert [fact for fact in facts if isinstance(fact, Crashed)] == []


# -- messages on the wire


@pytest.mark.parametrize("size", [0, 125 - len("order o-1\n"), 126, 65_535 - len("order o-1\n"), 65_536])
async def test_a_message_of_any_length_arrives_as_it_is(url: str, links: Links, size: int) -> None:
    async with Link.open(url) as link:
        assert links.send("o-1", b"x" * size)
        assert links.send("o-2", b"{}")
        assert (await link.hears("order", "o-1")).body == b"x" * size
        assert (await link.hears("order", "o-2")).body == b"{}"


async def test_what_is_sent_in_one_turn_of_the_loop_is_one_write(
    url: str, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Link.open(url) as link:
        (transport,) = [each._request.transport for each in links._links]
        assert transport is not None
        written: list[bytes] = []
        monkeypatch.setattr(transport, "write", written.append)
        for number in range(5):
            links.send(f"o-{number}", b"{}")
        assert written == []
        await asyncio.sleep(0)
        assert len(written) == 1
        monkeypatch.undo()
        transport.write(written[0])
        assert [(await link.hears("order", f"o-{number}")).body for number in range(5)] == [b"{}"] * 5


async def test_a_link_that_is_being_closed_sends_nothing(
    url: str, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Link.open(url):
        (link,) = links._links
        transport = link._request.transport
        assert transport is not None
        closing = asyncio.ensure_future(link.close(WSCloseCode.GOING_AWAY))
        await asyncio.sleep(0)
        written: list[bytes] = []
        monkeypatch.setattr(transport, "write", written.append)
        link.send("order o-1", b"{}")
        await asyncio.sleep(0)
        monkeypatch.undo()
        assert written == []
        await closing
    await until(lambda: links.connected() == [])


# -- orders


async def test_an_order_goes_to_the_latest_link_of_its_host_and_its_outcome_comes_back(url: str, links: Links) -> None:
    links.control = orders = Orders()
    async with (
        Link.open(url, hello={**HELLO, "host": "other"}) as other,
        Link.open(url) as old,
        Link.open(url) as new,
    ):
        assert links.connected() == [Module("other", "1-1", "0.2.0"), Module(HELLO["host"], "1-1", "0.2.0")]
        assert links.send("o-1", b'{"verb":"end"}', HELLO["host"])
        assert (await new.hears("order", "o-1")).document == {"verb": "end"}
        assert not links.send("o-2", b"{}", "nobody")
        await new.says("done", "o-1", body=b'{"status":"done"}')
        await until(lambda: orders.done == [("o-1", {"status": "done"})])
        assert all(message.kind != "order" for link in (other, old) for message in link.seen)
    here = (HELLO["host"], "1-1", False)
    assert orders.modules == [("other", "1-1", False), here, here]


@pytest.mark.parametrize(("said", "has_events"), [(3, True), (0, False), (None, False), (True, False), ("3", False)])
async def test_a_hello_says_whether_the_module_has_events_from_before(
    url: str, links: Links, said: object, has_events: bool
) -> None:
    links.control = orders = Orders()
    async with Link.open(url, hello={**HELLO, "events": said}):
        pass
    assert orders.modules == [(HELLO["host"], "1-1", has_events)]


# -- the end


async def test_at_the_end_what_is_under_way_is_answered_then_the_link_is_closed(
    url: str, engines: Engines, links: Links
) -> None:
    engines.held = asyncio.Event()
    async with Link.open(url) as link:
        slow = await link.begins("validate-access", JOIN)
        await until(lambda: engines.asked == 1)
        ending = asyncio.ensure_future(links.end(5.0))
        await link.hears("bye", "0")
        late = await link.begins("validate-access", JOIN)
        await link.says("pong", "bye")
        await until(lambda: engines.asked == 2)
        assert await refused(url) == 503
        engines.held.set()
        for ident in (slow, late):
            assert (await link.hears("answer", ident)).status == 200
        assert await link.ends() == WSCloseCode.GOING_AWAY
        await ending


async def test_a_module_that_takes_no_leave_does_not_hold_up_the_end(url: str, links: Links) -> None:
    async with Link.open(url) as link:
        transport = link.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        async with asyncio.timeout(5):
            await links.end(0.1)
        await until(lambda: links.connected() == [])
