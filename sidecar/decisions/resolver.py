"""Carries out the plans: one question in, one answer out, always within its deadline.

cache.get -> freshness -> decide -> admit      one step, no await in between
a flight per key -> Lane.carry -> settle -> cache.put
whoever still waits gets the reply; without one, the column of the open breaker decides
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, assert_never

from sidecar.backend.guard import Lane, Released
from sidecar.clock import Clock
from sidecar.core.answers import remembered, replied, unavailable
from sidecar.core.breaker import Permit, Ticket
from sidecar.core.model import (
    GUEST,
    Answer,
    Endpoint,
    Entry,
    Key,
    Kind,
    Query,
    Rejected,
    Replied,
    Verdict,
)
from sidecar.core.policy import (
    NEVER,
    Act,
    Fallback,
    Freshness,
    OnUnavailable,
    Plan,
    Reply,
    Rules,
    Settled,
    decide,
    freshness,
    settle,
)
from sidecar.decisions.cache import Cache, Selector
from sidecar.decisions.single_flight import Flight, Flights, Pending
from sidecar.errors import DiskError
from sidecar.facts import Crashed, Emit

RulesFor = Callable[[Endpoint, str], Rules]

PROBE_PATIENCE = 0.5
"""Seconds a question waits for the outcome of somebody else's probe."""

DISK_PATIENCE = 0.25
"""Seconds a definite deny waits to be on disk before it is answered all the same."""

RENDERING = 0.15
"""Seconds of a deadline that are kept for writing the answer, and those of hundreds that are due at that instant."""

LATE_FOLLOWER = 0.5
"""Who joined a flight that was this old already, and was let down by it, has earned a question of his own."""


class Memory(Protocol):
    """What outlives the process, as far as decisions need it."""

    @property
    def loaded(self) -> bool:
        """Whether the cache holds everything the disk remembers."""
        ...

    async def recall(self, key: Key) -> None:
        """While it does not: put this one entry into the cache, if there is one. Never raises."""
        ...

    async def persist(self) -> None:
        """Return when everything the cache calls dirty is on disk; raises DiskError if it is not."""
        ...

    async def purge(self, now: float, selector: Selector) -> int:
        """Forget what is meant, in the cache and on disk; raises DiskError if the disk still remembers."""
        ...


class View(NamedTuple):
    """What is known about a question at one instant."""

    rules: Rules
    entry: Entry | None
    state: Freshness
    permit: Permit
    plan: Plan


Landing = Settled | Released


class Gateway:
    """The sole interpreter of a plan."""

    def __init__(
        self,
        cache: Cache,
        lanes: dict[Endpoint, Lane],
        rules_for: RulesFor,
        memory: Memory,
        tell_later: Callable[[Query], None],
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
    ) -> None:
        """`tell_later` takes a `room-created` that was answered while the backend was away."""
        self.cache = cache
        self.lanes = lanes
        self.rules_for = rules_for
        self._memory = memory
        self._tell_later = tell_later
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._flights: Flights[Key, Landing] = Flights(lambda error: emit(Crashed("flight", error)))
        self._answered_early: set[Key] = set()
        """Rooms whose `room-created` memory has answered while the question is still under way."""

    async def resolve(self, query: Query) -> Answer:
        """Answer one question; never raises for the backend, and never takes longer than the deadline."""
        endpoint, room = query.key.endpoint, query.key.room
        rules, lane = self.rules_for(endpoint, room), self.lanes[endpoint]
        until = query.received_at + rules.deadline - RENDERING
        probe_awaited = second_chance_taken = under_way = False
        while True:
            if query.key.subject == GUEST and self.cache.guests_are_alone(room):
                query = query.alone()
            if not self._memory.loaded and self.cache.get(query.key) is None:
                await self._disk(self._memory.recall(query.key), until)
            # From here until the plan is under way nothing is awaited: what was seen is still so.
            now = self._clock.monotonic()
            permit = lane.permit(now, room)
            if now >= until or (probe_awaited and permit is Permit.PROBE_OUT):
                permit = Permit.OPEN
            view = self._view(query.key, rules, now, permit)
            match view.plan.act:
                case Act.ANSWER:
                    if view.plan.refresh:
                        self._flight(query, view, now, behind=True)
                    return await self._remembered(query, view, now, told=view.plan.refresh or under_way)
                case Act.REFUSE:
                    return self._unavailable(query, view, now, asked=under_way)
                case Act.AWAIT_PROBE:
                    probe_awaited = True
                    await lane.breaker_moves(min(PROBE_PATIENCE, until - now))
                case Act.ASK:
                    flight, led = self._flight(query, view, now)
                    late = now - flight.started_at > LATE_FOLLOWER and not second_chance_taken
                    second_chance_taken = second_chance_taken or late
                    answer = await self._await_flight(query, view, flight, led=led, late=late, until=until)
                    if answer is not None:
                        return answer
                    under_way = not flight.task.done()
                case _:
                    assert_never(view.plan.act)

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        """Answer one more question in the time that the first one, which was asked with it, has left.

        None: there was too little. The backend is being asked all the same; whoever asks again joins in. If the first
        one took next to nothing, this one has its own time and its own end.
        """
        deadline = self.rules_for(first.key.endpoint, first.key.room).deadline
        left = first.received_at + deadline - RENDERING / 2 - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self.resolve(query)
        except TimeoutError:
            return None

    async def _await_flight(
        self, query: Query, view: View, flight: Flight[Landing], *, led: bool, late: bool, until: float
    ) -> Answer | None:
        """The answer of a flight, or what stands in for it; None: look again and decide anew."""
        patience = until - self._clock.monotonic()
        impatient = view.plan.fallback is Fallback.SLOW
        if impatient:
            patience = min(patience, view.rules.answer_within)
        try:
            landed = await flight.within(patience)
        except Exception:  # noqa: BLE001 - the flight has reported its own crash; here it is one more failure
            landed = Settled()
        now = self._clock.monotonic()
        match landed:
            case Released():
                return None
            case Pending():
                after = self._view(query.key, view.rules, now, Permit.OPEN)
                if impatient and after.state is not Freshness.SUSPECT and after.plan.act is Act.ANSWER:
                    return await self._remembered(query, after, now, told=True)
                return None  # past the deadline the next look takes the open column; before it, it asks on
            case Settled(reply=Reply() as reply):
                if landed.private and query.key.subject == GUEST and not led:
                    return None  # the answer was for one guest only; this one asks alone
                return replied(reply, landed, view.state, collapsed=not led)
            case Settled():
                if late and until - now > LATE_FOLLOWER:
                    return None
                after = self._view(query.key, view.rules, now, Permit.OPEN)
                if after.plan.act is Act.ANSWER:
                    return await self._remembered(query, after, now, told=True)
                due = self._due_in(query, now)
                return unavailable(query, after.entry, after.rules, asked=landed, before=view.state, retry_after=due)
            case _:
                assert_never(landed)

    def preview(self, key: Key) -> View:
        """What a question with this key would meet now; changes nothing."""
        now = self._clock.monotonic()
        rules = self.rules_for(key.endpoint, key.room)
        return self._view(key, rules, now, self.lanes[key.endpoint].permit(now, key.room))

    async def purge(self, selector: Selector) -> int:
        """Forget what is meant, also what is under way; returns how many entries went. Raises DiskError."""
        self._flights.detach(selector.fits)
        return await self._memory.purge(self._clock.monotonic(), selector)

    async def drain(self, seconds: float) -> None:
        """Let the calls that are under way end; at most so long."""
        await self._flights.drain(seconds)

    def _view(self, key: Key, rules: Rules, now: float, permit: Permit) -> View:
        entry = self.cache.get(key)
        limits = rules.lifetimes(entry.verdict) if entry is not None else None
        allowed = entry is not None and entry.verdict is Verdict.ALLOW
        suspect_before = self._suspect_before(key, rules, now) if allowed else NEVER
        state = freshness(entry, limits, now, suspect_before)
        return View(rules, entry, state, permit, decide(state, permit))

    def _suspect_before(self, key: Key, rules: Rules, now: float) -> float:
        if key.endpoint.kind is Kind.CONFIG:
            return NEVER
        return self.cache.suspect_before(key.room, now, rules.deny.fresh)

    def _flight(self, query: Query, view: View, now: float, *, behind: bool = False) -> tuple[Flight[Landing], bool]:
        """The flight to wait for, and whether it was begun for this question."""
        probe = None
        if view.permit is Permit.PROBE_FREE:
            # A flight from before the outage may hang until its deadline; the probe does not join it.
            probe = self.lanes[query.key.endpoint].take_probe(now, query.key.room)
        else:
            flight = self._flights.get(query.key)
            # Nobody takes the answer to a question that is older than the last deny in the room.
            if flight is not None and flight.started_at >= self._suspect_before(query.key, view.rules, now):
                return flight, False
        return self._flights.start(query.key, now, self._fly(query, view.rules, now, probe, behind=behind)), True

    async def _fly(self, query: Query, rules: Rules, now: float, probe: Ticket | None, *, behind: bool) -> Landing:
        # Its own time, not the caller's: whoever joins it later may have far more left.
        until = now + rules.deadline - RENDERING
        try:
            carried = await self.lanes[query.key.endpoint].carry(query, until, probe, behind=behind)
            if isinstance(carried, Released):
                if behind or query.key in self._answered_early:
                    self._tell_if_answered(query, rules, now)
                return carried
            outcome = carried.outcome
            if query.key.subject == GUEST and isinstance(outcome, Replied | Rejected) and outcome.cache_control.private:
                self.cache.keep_guests_alone(query.key)
                query = query.alone()
            landed_at = self._clock.monotonic()
            current = self.cache.get(query.key)
            settled = settle(landed_at, query, carried.asked_at, current, outcome, rules, self._jitter())
            await self._remember(query, rules, settled, landed_at, until)
        except BaseException:
            self._tell_if_answered(query, rules, now)
            raise
        finally:
            self._answered_early.discard(query.key)
        return settled

    async def _remember(self, query: Query, rules: Rules, settled: Settled, now: float, until: float) -> None:
        key = query.key
        if settled.drop:
            self.cache.drop(key)
        if settled.store is not None:
            self.cache.put(key, settled.store)
        if settled.denied:
            self.cache.suspect(key.room, now, rules.deny.fresh)
            await self._on_disk(key, until)
        if settled.reply is None:
            self._tell_if_answered(query, rules, now)

    def _tell_if_answered(self, query: Query, rules: Rules, now: float) -> None:
        """The backend has not heard of this room, and those who waited were answered from memory or with the default
        config: it hears of it later."""
        if query.key.endpoint.kind is Kind.CONFIG:
            view = self._view(query.key, rules, now, Permit.OPEN)
            if view.plan.act is Act.ANSWER or rules.on_unavailable is OnUnavailable.DEFAULT:
                self._tell_later(query)

    async def _disk(self, work: Awaitable[None], until: float) -> None:
        """Wait for the disk for a moment. One that hangs or fails turns nobody away."""
        try:
            async with asyncio.timeout(min(DISK_PATIENCE, max(0.0, until - self._clock.monotonic()))):
                await work
        except (TimeoutError, DiskError):
            pass  # the store has said so already
        except Exception as error:  # noqa: BLE001 - a defect of ours, and no reason to keep anybody out
            self._emit(Crashed("disk", error))

    async def _on_disk(self, key: Key, until: float) -> None:
        """Wait until a deny is on disk: a crash must not bring back the allow it took away."""
        if key in self.cache.dirty:
            await self._disk(self._memory.persist(), until)

    async def _remembered(self, query: Query, view: View, now: float, *, told: bool) -> Answer:
        """Answer from the cache. `told`: the backend was, or is being, asked about this question too."""
        entry = view.entry
        assert entry is not None, "only a usable entry is planned to be the answer"
        if entry.verdict is Verdict.DENY:
            await self._on_disk(query.key, query.received_at + view.rules.deadline - RENDERING)
        if told:
            self._answer_early(query)
        elif entry.verdict is Verdict.CONFIG and view.state is not Freshness.FRESH:
            self._tell_later(query)
        return remembered(entry, view.state, view.rules, now)

    def _unavailable(self, query: Query, view: View, now: float, *, asked: bool) -> Answer:
        """Answer by `on_unavailable`, the backend not having been asked, or not having answered in time."""
        if asked:
            self._answer_early(query)
        elif view.rules.on_unavailable is OnUnavailable.DEFAULT:
            self._tell_later(query)
        due = self._due_in(query, now)
        vain = Settled() if asked else None
        return unavailable(query, view.entry, view.rules, asked=vain, before=view.state, retry_after=due)

    def _answer_early(self, query: Query) -> None:
        """The question may still be under way: should it never be sent, the room must be told of later."""
        if query.key.endpoint.kind is Kind.CONFIG and self._flights.get(query.key) is not None:
            self._answered_early.add(query.key)

    def _due_in(self, query: Query, now: float) -> float:
        due = self.lanes[query.key.endpoint].breaker.open_until()
        return 1.0 if due is None else due - now
