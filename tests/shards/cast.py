"""Users of whom one shard learns something, and what two shards answer about each.

A scene is one user in a room of its own. First both shards know the user as allowed (`meet`). Then one of them, `here`,
learns what has become of the user (`learn`). Then one of the two is asked, so that it hears nothing from the question
at the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.rig.answers import allow_if
from tests.rig.backend import Backend
from tests.rig.sidecar import Reply, Sidecar
from tests.shards.rig import order

FRESH_HERE = 0.3
"""Seconds, in the rooms of users who are denied: `here` has to ask the backend again."""
FRESH = 60.0
ALLOW: dict[str, Any] = {"endpoints": {"validate-access": {"allow": {"fresh": FRESH}}}}
SHORT = {"allow": {"fresh": FRESH_HERE, "stale_while_revalidate": 0}}
HERE = {**ALLOW, "rooms": [{"match": "denied-*", "validate-access": SHORT}]}
THERE = ALLOW
"""The settings of the shard that learns, and of the other."""


class Person(Enum):
    """The text is for tables."""

    KNOWN = "known here only"
    STRANGER = "stranger"
    DENIED = "denied"
    KICKED = "kicked"
    ENDED = "in a meeting that was cancelled and ended"
    CANCELLED = "in a room where another user was denied"


@dataclass(frozen=True)
class Scene:
    """`when` it is learned, how the `backend` is when somebody asks, and whether `here` is asked or the other."""

    person: Person
    when: str
    backend: str
    at_here: bool

    @property
    def room(self) -> str:
        return f"{self.person.name.lower()}-{self.when}-{self.backend}-{'here' if self.at_here else 'there'}"

    @property
    def user(self) -> str:
        return f"ann-{self.room}@example.com"

    @property
    def another(self) -> str:
        return f"bob-{self.room}@example.com"

    @property
    def pairs(self) -> set[tuple[str, str]]:
        """Room and user, of both users."""
        return {(self.room, user) for user in (self.user, self.another)}


@dataclass(frozen=True)
class Seen:
    """One answer, as a table shows it."""

    allowed: bool
    source: str
    """memory, shared (the engine, a moment ago), backend, policy."""
    seconds: float

    @property
    def words(self) -> str:
        return f"{'yes' if self.allowed else 'no'}, {self.source}"


@dataclass
class Cast:
    """All scenes, two shards, and the meeting service, which knows who is invited."""

    here: Sidecar
    there: Sidecar
    invited: set[tuple[str, str]] = field(default_factory=set)

    def direct(self, backend: Backend) -> None:
        """Let the backend answer by who is invited."""
        backend.on(
            "validate-access",
            allow_if(lambda body: (body["roomName"], body["userJid"].partition("/")[0]) in self.invited),
        )

    async def meet(self, scene: Scene) -> None:
        """Both shards know the user as allowed; one who is known here only, neither yet."""
        if scene.person is Person.STRANGER:
            return
        self.invited |= scene.pairs
        if scene.person is not Person.KNOWN:
            for shard in (self.there, self.here):
                assert (await shard.decides(scene.room, scene.user)).allowed
        if scene.person is Person.DENIED:
            await asyncio.sleep(FRESH_HERE)

    async def learn(self, scene: Scene) -> None:
        """The shard `here` learns it."""
        match scene.person:
            case Person.KNOWN:
                assert (await self.here.decides(scene.room, scene.user)).allowed
            case Person.DENIED:
                self._cancel(scene)
                assert not (await self.here.decides(scene.room, scene.user)).allowed
            case Person.KICKED:
                assert (await order(self.here, "kick", room=scene.room, user=scene.user))[0] == 202
            case Person.ENDED:
                self._cancel(scene)
                assert (await order(self.here, "end", room=scene.room))[0] == 202
            case Person.CANCELLED:
                self._cancel(scene)
                assert not (await self.here.decides(scene.room, scene.another)).allowed

    def _cancel(self, scene: Scene) -> None:
        self.invited -= scene.pairs

    async def ask(self, scene: Scene) -> Seen:
        """What the shard answers that is asked."""
        shard = self.here if scene.at_here else self.there
        before = await _recalled(shard)
        reply = await shard.decides(scene.room, scene.user)
        assert reply.allowed is not None, reply
        source = str(reply.document["decidedBy"])
        was_unknown = not scene.at_here and scene.person is Person.KNOWN
        if source == "memory" and was_unknown and await _recalled(shard) > before:
            source = "shared"
        return Seen(reply.allowed, source, reply.seconds)


async def _recalled(shard: Sidecar) -> float:
    return sum([await shard.metric("shared_reads_total", outcome=outcome) for outcome in ("hit", "suspect")])


async def newcomer(shard: Sidecar, cast: Cast, number: int) -> Reply:
    """Somebody who is invited and whom no shard knows."""
    user = f"newcomer-{number}@example.com"
    cast.invited.add(("newcomers", user))
    return await shard.decides("newcomers", user)
