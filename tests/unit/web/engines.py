"""A resolver and an outbox for the tests of what Prosody asks."""

from __future__ import annotations

import asyncio

from sidecar.core.model import Answer, Endpoint, Event, Key, Query, Source
from tests.unit.builders import ALLOW, CONFIG

PREFIX = "/webhooks/jitsi"
JOIN = {"roomName": "standup", "userJid": "ann@example.org/desk", "timestamp": 1}
BY_BACKEND = {"decidedBy": "backend", "decisionId": "ab" * 16}
"""What a decision of the backend has besides, where each new trace is of `ab`."""


class Engines:
    """They answer as a test wants, or raise."""

    def __init__(self) -> None:
        self.answers = {
            Endpoint.VALIDATE_ACCESS: Answer(200, ALLOW, Source.BACKEND, True, stored=True),
            Endpoint.ROOM_CREATED: Answer(200, CONFIG, Source.HIT, ttl=4),
        }
        self.error: Exception | None = None
        self.events: list[Event] = []
        self.remembers = False
        """Whether the answers are in memory."""
        self.held: asyncio.Event | None = None
        """If there is one, other answers come when it is set."""
        self.asked = 0

    def at_once(self, key: Key) -> Answer | None:
        if not self.remembers:
            return None
        self.asked += 1
        return self.answers[key.endpoint]

    async def resolve(self, query: Query) -> Answer:
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        return self.answers[query.key.endpoint]

    def is_outdated(self, query: Query) -> bool:
        return False

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        return await self.resolve(query)

    async def accept(self, event: Event) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(event)
