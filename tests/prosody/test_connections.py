"""What becomes of connections to whom the module asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import Request, allow, deny, hold, reset
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_connection_is_used_again(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        for number in range(50):
            assert (await ann.join(f"{room}-{number}", nick="ann")).joined
            await ann.leave(f"{room}-{number}", "ann")
    assert len(prosody.backend.requests) == 100
    assert len({q.connection for q in prosody.backend.requests}) == 1


async def test_a_crowd_leaves_sixteen_connections_behind(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(40)]
        before = prosody.sockets()
        for number, client in enumerate(crowd):
            await client.begin_join(room, f"n{number}")
        await prosody.backend.received("validate-access", room, count=40)
        slow.release()
        assert all(r.joined for r in await asyncio.gather(*(c.await_join(room) for c in crowd)))

        async def kept() -> int:
            return prosody.sockets() - before

        await eventually(kept, 16)
        await prosody.unload()
        await eventually(kept, 0)


async def test_the_next_user_never_gets_the_answer_to_another_question(start_prosody: StartProsody, room: str) -> None:
    """A time-out must close the connection: its late answer would be taken for that of the next question."""
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 1})
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join("warm-" + room, nick="ann")
        late = hold(allow())
        prosody.backend.on("validate-access", late)
        assert str((await ann.join(room, nick="ann")).error) == "wait/remote-server-timeout"
        prosody.backend.on("validate-access", deny("No", after=0.1))
        await eve.begin_join(room, "eve")
        await prosody.backend.received("validate-access", room, count=2)
        late.release()
        assert str((await eve.await_join(room)).error) == "cancel/not-allowed"


@pytest.mark.parametrize("how", ["politely", "at the next question"])
async def test_a_backend_that_closes_its_connections_refuses_nobody(
    start_prosody: StartProsody, room: str, how: str
) -> None:
    prosody = await start_prosody(fresh=True)
    used: set[int] = set()

    async def answer(request: Request) -> web.StreamResponse:
        response = web.json_response({"allowed": True})
        if how == "politely":
            response.force_close()
        elif request.connection in used:
            return await reset()(request)  # a connection that was idle for too long
        used.add(request.connection)
        return response

    prosody.backend.on("validate-access", answer)
    prosody.backend.on("room-created", answer)
    async with Client.connect(prosody) as ann:
        for number in range(10):
            assert (await ann.join(f"{room}-{number}")).joined
            await ann.leave(f"{room}-{number}")


async def test_a_backend_that_restarted_refuses_nobody(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        for number in range(5):
            assert (await ann.join(f"{room}-{number}")).joined
            await prosody.backend.stop()
            await prosody.backend.listen()


async def test_two_questions_at_once_have_two_connections(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await bob.begin_join(room, "bob")
        first, second = await prosody.backend.received("validate-access", room, count=2)
        slow.release()
        assert first.connection != second.connection
        assert (await ann.await_join(room)).joined
        assert (await bob.await_join(room)).joined


# -- other sides that speak HTTP in a way of their own

YES, NO = b'{"allowed": true}', b'{"allowed": false, "reason": "No"}'
Speak = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak, greeting: bytes = b"") -> AsyncIterator[str]:
    """A server that says what it likes; `speak` gets each request's number. Gives its URL."""
    numbers = iter(range(1000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                await speak(next(numbers), reader, writer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


def http(body: bytes, version: str = "1.1", *headers: str, length: bool = True) -> bytes:
    lines = [f"HTTP/{version} 200 OK", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + end


def says(*parts: bytes, closes: bool = False) -> Speak:
    async def speak(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        if closes:
            writer.close()

    return speak


WAYS = {
    "HTTP/1.0": says(http(YES, "1.0"), closes=True),
    "HTTP/1.0 until the end": says(http(YES[:5], "1.0", length=False), YES[5:], closes=True),
    "HTTP/1.0 that is kept": says(http(YES, "1.0", "Connection: keep-alive")),
    "close": says(http(YES, "1.1", "Connection: close"), closes=True),
    "close, but does not": says(http(YES, "1.1", "Connection: close")),
    "until the end": says(http(YES[:5], length=False), YES[5:], closes=True),
    "chunked": says(chunked(YES)),
    "chunked in pieces": says(chunked(YES)[:60], chunked(YES)[60:]),
    "in pieces": says(http(YES)[:9], http(YES)[9:40], http(YES)[40:-5], http(YES)[-5:]),
    "in two pieces": says(http(YES)[:-5], http(YES)[-5:]),
    "announced": says(b"HTTP/1.1 100 Continue\r\n\r\n" + http(YES)),
    "announced in time": says(b"HTTP/1.1 100 Continue\r\n\r\n", http(YES)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_every_way_to_say_yes_is_understood(start_prosody: StartProsody, room: str, way: Speak) -> None:
    async with speaking(way) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann:
            for number in range(3):
                assert (await ann.join(f"{room}-{number}")).joined
                await ann.leave(f"{room}-{number}")


@pytest.mark.parametrize("head", ["1.1, Connection: close", "1.1, Connection: Close", "1.0"])
async def test_a_connection_that_is_not_to_be_used_again_is_not(
    start_prosody: StartProsody, room: str, head: str
) -> None:
    used: list[int] = []
    version, *headers = head.split(", ")

    async def speak(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.append(writer.get_extra_info("peername")[1])
        writer.write(http(YES, version, *headers))

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url)
        async with Client.connect(prosody) as ann:
            assert (await ann.join(room)).joined
    assert len(used) == len(set(used)) == 2


BROKEN = {
    "cut off": says(http(YES)[:-1], closes=True),
    "cut off in a chunk": says(chunked(YES, end=b""), closes=True),
    "no HTTP": says(b"yes\r\n\r\n"),
    "nothing": says(closes=True),
    "too much": says(chunked(YES + b" " * 1_100_000)),
    "too long": says(http(YES + b" " * 1_100_000, length=False), closes=True),
}


@pytest.mark.parametrize("way", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_yes_is_none(start_prosody: StartProsody, room: str, way: Speak) -> None:
    async with speaking(way) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 3})
        async with Client.connect(prosody) as ann:
            assert str((await ann.join(room)).error) == "wait/remote-server-timeout"


async def test_what_comes_unasked_answers_nobody(start_prosody: StartProsody, room: str) -> None:
    """A second answer on a free connection must not become that to the next user's question."""

    used: list[int] = []

    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.append(writer.get_extra_info("peername")[1])
        writer.write(http(NO) if number >= 2 else http(YES))
        await writer.drain()
        if number == 1:
            await asyncio.sleep(0.05)
            writer.write(http(YES))

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
            assert (await ann.join(room)).joined
            await asyncio.sleep(0.1)
            assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"
    assert used[0] == used[1] != used[2], "such a connection is not to be trusted"


ASK_WHILE_BYTES_ARRIVE = """
    os.execute("sleep %s");
    local connections = module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts.connections;
    connections.send("%s/validate-access", "{}", {}, function (code, body) prosody.rig_answer = code.." "..body; end);
    os.execute("sleep %s")"""


@pytest.mark.parametrize("connection", ["kept", "new"])
async def test_what_comes_before_the_question_is_not_its_answer(
    start_prosody: StartProsody, room: str, connection: str
) -> None:
    """Prosody's loop stands still meanwhile, so that it finds the bytes and sends the question in the same round."""
    unasked = asyncio.Event()

    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(NO if number > 1 else YES))
        if number == 1 and connection == "kept":
            await unasked.wait()
            writer.write(http(YES))

    greeting = http(YES) if connection == "new" else b""
    async with speaking(speak, greeting) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        if connection == "kept":
            async with Client.connect(prosody) as ann:
                assert (await ann.join(room)).joined
        before, after = (0.3, 0) if connection == "kept" else (0, 0.3)
        asking = asyncio.create_task(prosody.module(ASK_WHILE_BYTES_ARRIVE % (before, url, after)))
        await asyncio.sleep(0.1)
        unasked.set()
        await asking
        expected = f"200 {NO.decode()}" if connection == "kept" else "0 an answer before the question"
        await eventually(lambda: prosody.lua("return prosody.rig_answer"), expected)


BEHIND = {
    "a whole answer": http(YES),
    "a whole answer in chunks": chunked(YES),
    "half a head": b"HTTP/1.1 200 OK\r\n",
    "a head": http(YES)[: -len(YES)],
    "half an answer": http(YES)[:-3],
    "a head of chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no HTTP": b"garbage",
    "no HTTP and an end": b"garbage\r\n\r\n",
    "a line": b"\r\n",
}


@pytest.mark.parametrize("deny", [http(NO), chunked(NO)], ids=["at once", "in chunks"])
@pytest.mark.parametrize("rest", BEHIND.values(), ids=BEHIND.keys())
async def test_a_deny_counts_whatever_is_behind_it_and_its_connection_is_closed(
    start_prosody: StartProsody, room: str, deny: bytes, rest: bytes
) -> None:
    used: list[int] = []

    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.append(writer.get_extra_info("peername")[1])
        writer.write(deny + rest if number == 2 else http(NO) if number == 3 else http(YES))

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
            assert (await ann.join(room)).joined
            assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"
            assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"
    assert used[0] == used[1] == used[2] != used[3]


async def test_an_answer_in_chunks_leaves_its_connection_behind(start_prosody: StartProsody, room: str) -> None:
    used: list[int] = []

    async def speak(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.append(writer.get_extra_info("peername")[1])
        writer.write(chunked(YES))

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann:
            assert (await ann.join(room)).joined
    assert len(used) == 2
    assert len(set(used)) == 1


async def test_a_question_that_dies_on_a_free_connection_is_sent_once_more_and_no_oftener(
    start_prosody: StartProsody, room: str
) -> None:
    asked = 0

    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if number < 2:
            writer.write(http(YES))
        else:
            writer.transport.abort()

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
            assert (await ann.join(room)).joined
            assert str((await bob.join(room, nick="bob")).error) == "wait/remote-server-timeout"
    assert asked == 4


async def test_a_connection_that_was_free_for_long_is_not_used(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await prosody.lua("""
            local pool = module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts.connections.pool
            for conn, since in pairs(pool.since) do pool.since[conn] = since - 31 end""")
        await bob.join(room, nick="bob")
    first, second = prosody.backend.asked("validate-access", room)
    assert first.connection != second.connection


async def test_a_time_out_closes_the_connection(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 1})
    prosody.backend.on("validate-access", hold(allow()))
    async with Client.connect(prosody) as ann:
        before = prosody.sockets()
        assert str((await ann.join(room)).error) == "wait/remote-server-timeout"

        async def open_connections() -> int:
            return prosody.sockets() - before

        await eventually(open_connections, 0)


async def test_a_reload_closes_what_is_free_and_what_becomes_so(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        before = prosody.sockets()
        await ann.join(room, nick="ann")
        slow = hold(allow())
        prosody.backend.on("validate-access", slow)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await prosody.reload()
        slow.release()
        assert (await bob.await_join(room)).joined

        async def open_connections() -> int:
            return prosody.sockets() - before

        await eventually(open_connections, 0)
