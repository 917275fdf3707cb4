"""Part `checks`: whether each proxy does what is measured. A figure for wrong answers has no meaning, so the
benchmark ends if a check fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from bench.asking import Reply, announcement, ask, question
from bench.backend import PREFIX
from bench.peers import PEERS, PROXIES, at_a_place, behind
from bench.program import WentWrong
from bench.sample import Sample

FRESH = 1
"""Seconds; short, so that the answers are stale soon."""

QUESTIONS: tuple[tuple[str, str, dict[str, object], Callable[[Reply], bool]], ...] = (
    ("allow", "validate-access", question("standup", "ann"), lambda reply: reply.allowed is True),
    ("deny", "validate-access", question("cancelled-1", "ann"), lambda reply: reply.allowed is False),
    ("settings", "room-created", announcement("standup"), lambda reply: reply.document.get("chatEnabled") is True),
)


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """Once for each proxy, independent of the number of rounds."""
    for who in PROXIES:
        say(f"checks: {who}")
        async for case in checked(who):
            yield Sample("checks", "1: it does", who, case, 1, 0)


async def checked(who: str) -> AsyncIterator[str]:
    """The checks that passed; raises WentWrong if one fails."""
    async with at_a_place(fresh=FRESH) as place, PEERS[who](place) as server:
        async with behind(place) as backend:
            await _all_right(who, server.port, "asked")
            yield "allow, deny and settings as the backend says"
            await ask(backend.port, "/counts")
            await _all_right(who, server.port, "remembered")
            counted = (await ask(backend.port, "/counts")).document["calls"]
            if counted:
                raise WentWrong(f"{who} asked again for a fresh answer: {counted}")
            yield "a second question does not reach the backend"
        await asyncio.sleep(FRESH + 0.5)
        await _all_right(who, server.port, "stale, the backend gone")
        await _all_right(who, server.port, "stale, the backend gone for longer")
        yield "answers from memory when the backend is gone"


async def _all_right(who: str, port: int, when: str) -> None:
    for what, endpoint, body, right in QUESTIONS:
        reply = await ask(port, f"{PREFIX}/{endpoint}", body)
        if not right(reply):
            raise WentWrong(f"{who}, {what}, {when}: {reply.status} {reply.body[:300]!r}\n{reply.head}")
