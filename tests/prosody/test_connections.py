"""Questions over HTTP: each has a connection of its own, and only a whole answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.prosody.conftest import StartProsody, eventually
from tests.rig.answers import allow, deny, hold
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_question_has_a_connection_and_none_is_left(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        before = prosody.sockets()
        for number in range(10):
            assert (await ann.join(f"{room}-{number}", nick="ann")).joined
            await ann.leave(f"{room}-{number}", "ann")

        async def left() -> int:
            return prosody.sockets() - before

        await eventually(left, 0)
    assert len({q.connection for q in prosody.backend.requests}) == len(prosody.backend.requests) == 20


async def test_the_next_user_never_gets_the_answer_to_another_question(start_prosody: StartProsody, room: str) -> None:
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


async def test_a_backend_that_restarted_refuses_nobody(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        for number in range(5):
            assert (await ann.join(f"{room}-{number}")).joined
            await prosody.backend.stop()
            await prosody.backend.listen()


# -- other sides that speak HTTP in a way of their own

YES, NO = b'{"allowed": true}', b'{"allowed": false, "reason": "No"}'
Speak = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[str]:
    """A server that says what it likes; `speak` gets each request's number. Gives its URL."""
    numbers = iter(range(1000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET "):  # for the link
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    break
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
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_every_way_to_say_yes_is_understood(start_prosody: StartProsody, room: str, way: Speak) -> None:
    async with speaking(way) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann:
            for number in range(3):
                assert (await ann.join(f"{room}-{number}")).joined
                await ann.leave(f"{room}-{number}")


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


async def test_a_question_whose_connection_ended_without_an_answer_is_asked_again(
    start_prosody: StartProsody, room: str
) -> None:
    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"" if number % 2 == 0 else http(YES))
        writer.close()

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url)
        async with Client.connect(prosody) as ann:
            assert (await ann.join(room)).joined


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
async def test_a_deny_counts_whatever_is_behind_it(
    start_prosody: StartProsody, room: str, deny: bytes, rest: bytes
) -> None:
    async with speaking(says(deny + rest)) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
            assert str((await ann.join(room)).error) == "cancel/not-allowed"
            assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"


async def test_a_late_second_answer_is_that_to_nobody(start_prosody: StartProsody, room: str) -> None:
    async def speak(number: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(NO))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(http(YES))

    async with speaking(speak) as url:
        prosody = await start_prosody(fresh=True, webhook_url=url, options={"muc_webhook_timeout": 2})
        async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
            assert str((await ann.join(room)).error) == "cancel/not-allowed"
            await asyncio.sleep(0.1)
            assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"


async def test_a_time_out_closes_the_connection(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 1})
    prosody.backend.on("validate-access", hold(allow()))
    async with Client.connect(prosody) as ann:
        before = prosody.sockets()
        assert str((await ann.join(room)).error) == "wait/remote-server-timeout"

        async def open_connections() -> int:
            return prosody.sockets() - before

        await eventually(open_connections, 0)
