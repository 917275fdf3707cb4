"""A resolver in a harness: everything of it is real but the backend, the disk and the time.

harness = Harness()
harness.backend.says(allow())
answer = await harness.asks("alice@example.com")
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sidecar.backend.bulkhead import Bulkhead
from sidecar.backend.guard import Guard
from sidecar.backend.meter import Meter
from sidecar.core.breaker import BreakerRules
from sidecar.core.classify import classify
from sidecar.core.concurrency import Limit
from sidecar.core.model import Answer, Endpoint, Failure, Key, Misconfigured, Outcome, Query, Unavailable
from sidecar.core.policy import Policy
from sidecar.core.selection import Change, Selector
from sidecar.core.wire import query_of, read_message
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.disk import Memory
from sidecar.decisions.resolver import Resolver
from sidecar.facts import Asked, BreakerChanged, Crashed, Fact
from tests.unit.builders import ALLOW_LIFETIMES, a_config_policy, a_policy
from tests.unit.virtual import VirtualClock

DECISION, CONFIG = Endpoint.VALIDATE_ACCESS, Endpoint.ROOM_CREATED


def allow(cache_control: str = "", **more: object) -> Outcome:
    """The backend lets somebody in."""
    body = json.dumps({"allowed": True, "reason": None, **more}).encode()
    return classify(DECISION.kind, 200, body, cache_control)


def deny(reason: str = "Not invited", cache_control: str = "") -> Outcome:
    """The backend keeps somebody out."""
    body = json.dumps({"allowed": False, "reason": reason}).encode()
    return classify(DECISION.kind, 200, body, cache_control)


def config(cache_control: str = "", **settings: object) -> Outcome:
    """The backend sends a room's settings."""
    return classify(CONFIG.kind, 200, json.dumps({"chatEnabled": True, **settings}).encode(), cache_control)


def rejected(status: int = 404) -> Outcome:
    """The backend knows no such room."""
    return classify(CONFIG.kind, status, b'{"error":"no such room"}')


def broken(status: int = 500, retry_after: float | None = None) -> Outcome:
    """The backend is unwell."""
    return Unavailable(f"the backend answered {status}", status=status, retry_after=retry_after)


REFUSED = Unavailable("no connection", Failure.UNSENT)
RESET = Unavailable("the connection broke", Failure.RESET)
DISTRUST = Misconfigured("the backend answered 401", 401)

Step = Outcome | Callable[[Query, float], Awaitable[Outcome]]


def after(seconds: float, outcome: Outcome) -> Step:
    """An answer that takes its time."""

    async def step(query: Query, patience: float) -> Outcome:
        if seconds >= patience:
            await asyncio.sleep(patience)
            return Unavailable("no complete answer", Failure.TIMEOUT)
        await asyncio.sleep(seconds)
        return outcome

    return step


HANG = after(1e6, REFUSED)


class Held:
    """An answer that comes when the test wants it."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def comes(self, outcome: Outcome) -> None:
        self.outcome.set_result(outcome)

    async def __call__(self, query: Query, patience: float) -> Outcome:
        try:
            return await asyncio.wait_for(asyncio.shield(self.outcome), patience)
        except TimeoutError:
            return Unavailable("no complete answer", Failure.TIMEOUT)


async def crash(query: Query, patience: float) -> Outcome:
    """A defect of ours."""
    raise LookupError("a defect")


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the backend, as it saw it."""

    query: Query
    at: float
    seconds: float


class ScriptedBackend:
    """Says what the test wrote down, in order; then what it says always."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.at_once = 0
        self.most_at_once = 0
        self._script: deque[Step] = deque()
        self._always: dict[Endpoint, Step] = {DECISION: allow(), CONFIG: config()}
        self._rooms: dict[str, Step] = {}

    def says(self, *steps: Step) -> None:
        """These next, one after the other."""
        self._script.extend(steps)

    def always(self, step: Step, *, room: str | None = None) -> None:
        """From now on this, whenever nothing else is written down."""
        self._script.clear()
        if room is not None:
            self._rooms[room] = step
        else:
            self._always = dict.fromkeys(self._always, step)

    def well(self) -> None:
        """From now on it lets everybody in."""
        self._script.clear()
        self._rooms.clear()
        self._always = {DECISION: allow(), CONFIG: config()}

    def hold(self) -> Held:
        """The next answer comes when the test wants it."""
        held = Held()
        self._script.append(held)
        return held

    async def ask(self, query: Query, seconds: float) -> Outcome:
        self.calls.append(Call(query, asyncio.get_running_loop().time(), seconds))
        endpoint, room = query.key.endpoint, query.key.room
        step = self._script.popleft() if self._script else self._rooms.get(room, self._always[endpoint])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await step(query, seconds) if callable(step) else step
        finally:
            self.at_once -= 1


class Disk:
    """What the resolver sees of the disk; it can be made slow, or to fail."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.persist_takes = 0.0
        self.recall_takes = 0.0
        self.recall_fails: Exception | None = None
        self.persisted = 0

    @property
    def loaded(self) -> bool:
        return not self.recall_takes and self.recall_fails is None

    async def persist(self, key: Key | None = None) -> None:
        self.persisted += 1
        await asyncio.sleep(self.persist_takes)
        self.cache.dirty.clear()

    async def recall(self, key: Key) -> None:
        if self.recall_takes:
            await asyncio.sleep(self.recall_takes)
        if self.recall_fails is not None:
            raise self.recall_fails

    async def purge(self, now: float, selector: Selector, change: Change = Change.DROP) -> int:
        return self.cache.purge(now, selector, change)


FRESH, SWR, SIE = ALLOW_LIFETIMES.fresh, ALLOW_LIFETIMES.stale_while_revalidate, ALLOW_LIFETIMES.stale_if_error
BREAKER_RULES = BreakerRules()
CONFIG_POLICY = a_config_policy()


@dataclass
class Harness:
    """Build with what differs from the defaults; must be made inside a running loop."""

    decision: Policy = field(default_factory=a_policy)
    config: Policy = CONFIG_POLICY
    rooms: dict[str, Policy] = field(default_factory=dict)
    """Policy of validate-access for single rooms."""
    breaker: BreakerRules = BREAKER_RULES
    max_in_flight: int = 64
    jitter: float = 0.0
    anonymous: frozenset[str] = frozenset()
    memory: Callable[[Cache], Memory] | None = None
    """What outlives the process; None: `disk`."""
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.backend = ScriptedBackend()
        self.facts: list[Fact] = []
        self.delivered_later: list[Query] = []
        self.cache = Cache(Limits(1000, 1000, 1000))
        self.disk = Disk(self.cache)
        self.bulkhead = Bulkhead(Limit(self.max_in_flight), self.clock)
        self.meter = Meter(self.bulkhead, self.clock, self.facts.append)
        self.guards = {
            endpoint: Guard(
                endpoint,
                self.backend,
                self.breaker,
                self.bulkhead,
                self.meter,
                self.clock,
                lambda: self.jitter,
                self.facts.append,
            )
            for endpoint in (DECISION, CONFIG)
        }
        self.resolver = Resolver(
            self.cache,
            self.guards,
            lambda endpoint, room: self.config if endpoint is CONFIG else self.rooms.get(room, self.decision),
            self.disk if self.memory is None else self.memory(self.cache),
            self.delivered_later.append,
            self.clock,
            lambda: self.jitter,
            self.facts.append,
        )

    def query(self, endpoint: Endpoint, **fields: Any) -> Query:
        body = json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
        return query_of(endpoint, read_message(endpoint, body), self.clock.monotonic(), "", self.anonymous)

    async def asks(self, who: str = "alice@example.com", room: str = "standup", **fields: Any) -> Answer:
        """May this one come in?"""
        return await self.resolver.resolve(self.query(DECISION, roomName=room, userJid=f"{who}/phone", **fields))

    async def asks_config(self, room: str = "standup", **fields: Any) -> Answer:
        """The settings of a room."""
        return await self.resolver.resolve(self.query(CONFIG, roomName=room, **fields))

    def soon(self, who: str = "alice@example.com", room: str = "standup", **fields: Any) -> asyncio.Task[Answer]:
        """The same question, asked beside whatever happens next."""
        return asyncio.ensure_future(self.asks(who, room, **fields))

    async def trip(self, endpoint: Endpoint = DECISION) -> None:
        """Let enough connections fail for the breaker to open; then the backend is well again."""
        self.backend.always(REFUSED)
        for number in range(12):
            if endpoint is DECISION:
                await self.asks(f"stranger-{number}@example.com", f"elsewhere-{number}")
            else:
                await self.asks_config(f"elsewhere-{number}")
        assert self.changes(endpoint)[-1] == "open"
        self.backend.well()
        self.backend.calls.clear()

    async def half_opens(self) -> None:
        """An outage, and then the pause of the breaker: the next question is the probe."""
        await self.trip()
        await self.passes(3.7)

    async def probes(self, outcome: Step) -> asyncio.Task[Answer]:
        """The probe is out; this will come of it."""
        self.backend.always(outcome)
        probe = self.soon("prober@example.com", "room-1")
        await settled()
        return probe

    def changes(self, endpoint: Endpoint = DECISION) -> list[str]:
        """What the breaker did."""
        return [fact.state for fact in self.facts if isinstance(fact, BreakerChanged) and fact.endpoint is endpoint]

    def asked(self) -> list[Asked]:
        """The calls that were reported."""
        return [fact for fact in self.facts if isinstance(fact, Asked)]

    def crashes(self) -> list[BaseException]:
        """Defects that were reported."""
        return [fact.error for fact in self.facts if isinstance(fact, Crashed)]

    async def passes(self, seconds: float) -> None:
        """Time passes."""
        await asyncio.sleep(seconds)


async def settled() -> None:
    """Everything that can happen without time passing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def now() -> float:
    """Seconds of the loop, which may be virtual."""
    return asyncio.get_running_loop().time()


def reason(answer: Answer) -> object:
    """What a decision gives as its reason."""
    return json.loads(answer.body)["reason"]


async def a_room_with_a_deny(harness: Harness, others: int = 3) -> None:
    """Some are let in, then one is denied: the others are suspect from now on."""
    for number in range(others):
        await harness.asks(f"user-{number}@example.com")
    harness.backend.says(deny("Cancelled"))
    await harness.asks("late@example.com")
    harness.backend.calls.clear()
