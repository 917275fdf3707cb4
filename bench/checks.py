"""Part `checks`: whether each proxy does what is measured. A figure for wrong answers has no meaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from bench.asking import Reply, announcement, ask, question
from bench.backend import PREFIX
from bench.peers import PEERS, PROXIES, at_a_place, behind, until_it_answers
from bench.sample import Measured, Sample, WentWrong, tried

FRESH = 2
"""Seconds; short, so that the answers are stale soon."""

QUESTIONS: tuple[tuple[str, str, dict[str, object], Callable[[Reply], bool]], ...] = (
    ("allow", "validate-access", question("standup", "ann"), lambda reply: reply.allowed is True),
    ("deny", "validate-access", question("cancelled-1", "ann"), lambda reply: reply.allowed is False),
    ("settings", "room-created", announcement("standup"), lambda reply: reply.document.get("chatEnabled") is True),
)


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """Once for each proxy, independent of the number of rounds."""
    for who in PROXIES:
        say(f"checks: {who}")
        async for each in tried("checks", who, checked(who)):
            yield each


async def checked(who: str) -> AsyncIterator[Sample]:
    """The checks that passed; raises WentWrong if one fails."""
    async with at_a_place(fresh=FRESH) as place, AsyncExitStack() as servers:
        async with behind(place) as backend:
            server = await servers.enter_async_context(PEERS[who](place))
            await until_it_answers(server)
            await _all_right(who, server.port, "asked")
            yield _passed(who, "allow, deny and settings as the backend says")
            await ask(backend.port, "/counts")
            await _all_right(who, server.port, "remembered")
            counted = (await ask(backend.port, "/counts")).document["calls"]
            if counted:
                raise WentWrong(f"{who} asked again for a fresh answer: {counted}")
            yield _passed(who, "a second question does not reach the backend")
        await asyncio.sleep(FRESH + 0.5)
        await _all_right(who, server.port, "stale, the backend gone")
        await _all_right(who, server.port, "stale, the backend gone for longer")
        yield _passed(who, "answers from memory when the backend is gone")


def _passed(who: str, case: str) -> Sample:
    return Sample("checks", "1: it does", who, case, 1, 0)


async def _all_right(who: str, port: int, when: str) -> None:
    for what, endpoint, body, right in QUESTIONS:
        reply = await ask(port, f"{PREFIX}/{endpoint}", body)
        if not right(reply):
            raise WentWrong(f"{who}, {what}, {when}: {reply.status} {reply.body[:300]!r}\n{reply.head}")
