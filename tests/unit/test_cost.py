"""What a decision from memory costs, counted and not timed: steps of the interpreter and calls of functions, which are
the same on a busy machine as on an idle one. The benchmark says what that means in microseconds.

Whoever makes the way longer on purpose raises the bound, and says in the commit what for.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from sidecar.clock import SystemClock
from sidecar.core.model import Endpoint, Entry, Verdict
from sidecar.core.wire import query_of, read_message
from sidecar.daemon.build import Parts
from tests.unit.daemon.builders import a_sidecar

STEPS, CALLS = 2_550, 125
"""Measured on Python 3.11: 2,443 and 117; a second that begins just then adds about a hundred."""

CONFIG = "state_dir: null\nbackend: {url: 'http://127.0.0.1:1/x'}\n"


class Body:
    """A body that came along with its head."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def is_eof(self) -> bool:
        return True

    def read_nowait(self) -> bytes:
        return self._data


class Request:
    """As much of aiohttp's request as is looked at."""

    method = "POST"
    transport = None
    headers = CIMultiDictProxy(CIMultiDict({"Host": "127.0.0.1:8788", "Content-Type": "application/json"}))

    def __init__(self, endpoint: str, body: bytes) -> None:
        self.path = f"/webhooks/jitsi/{endpoint}"
        self.content = Body(body)


def a_body(user: int) -> bytes:
    room = f"room-{user // 10}"
    question = {"roomName": room, "roomJid": f"{room}@muc.example.com", "userJid": f"u{user}@example.com"}
    return json.dumps({**question, "userName": "Somebody", "guest": False, "timestamp": 1_763_830_000}).encode()


def remembering(users: int) -> tuple[Parts, io.StringIO]:
    """A sidecar that knows all of them, and its log."""
    clock, out = SystemClock(), io.StringIO()
    parts = a_sidecar(CONFIG, clock=clock, output=out)
    policy, now = parts.resolver.policy_for(Endpoint.VALIDATE_ACCESS, "room-1"), clock.monotonic()
    for user in range(users):
        message = read_message(Endpoint.VALIDATE_ACCESS, a_body(user))
        key = query_of(Endpoint.VALIDATE_ACCESS, message, now, "", frozenset()).key
        parts.cache.put(key, Entry(Verdict.ALLOW, b'{"allowed":true}', now, now, policy.allow))
    return parts, out


def ended(handling: Any) -> Any:
    """What a coroutine returns that never has to wait."""
    try:
        handling.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


def counted(work: Callable[[], Any]) -> tuple[int, Counter[str], Any]:
    """Steps, calls by name, and what came of it."""
    steps, calls = 0, Counter[str]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            calls[frame.f_code.co_qualname] += 1
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = work()
    finally:
        sys.settrace(before)
    return steps, calls, result


async def test_a_warm_decision_takes_no_more_steps_than_it_did() -> None:
    parts, out = remembering(100)

    def handling(user: int) -> Any:
        return parts.webhooks.handle(cast("web.BaseRequest", Request("validate-access", a_body(user))))

    for user in range(50):
        ended(handling(user))
    work = handling(60)
    steps, calls, response = counted(lambda: ended(work))
    assert response.status == 200
    await asyncio.sleep(0)
    assert json.loads(out.getvalue().splitlines()[-1])["source"] == "hit"  # it did what is counted
    assert steps <= STEPS, f"{steps} steps; most calls: {calls.most_common(8)}"
    assert calls.total() <= CALLS, f"{calls.total()} calls: {calls.most_common(20)}"


async def test_the_count_notices_a_few_more_steps() -> None:
    parts, _ = remembering(1)
    cache = parts.cache
    key = next(key for key, _ in cache.items())
    once, _, _ = counted(lambda: cache.get(key))
    twice, _, _ = counted(lambda: (cache.get(key), cache.get(key)))
    assert once < twice < 3 * once
