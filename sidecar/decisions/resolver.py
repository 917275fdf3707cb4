"""Carries out the plans: one question in, one answer out, always within its deadline.

cache.get -> freshness -> decide -> admit      one step, no await in between
single flight per key -> guard.carry -> settle -> cache.put
whoever still waits gets the reply; without one, the column of the open breaker decides
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol, assert_never

from sidecar.clock import Clock
from sidecar.core.answers import remembered, replied, unavailable
from sidecar.core.breaker import Breaker, Permit, Ticket
from sidecar.core.model import (
    GUEST,
    Answer,
    Carried,
    Endpoint,
    Entry,
    Key,
    Kind,
    Query,
    Rejected,
    Released,
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
    Policy,
    PolicyFor,
    Reply,
    Settled,
    decide,
    freshness,
    settle,
)
from sidecar.decisions.cache import Cache, Selector
from sidecar.decisions.single_flight import Call, Pending, SingleFlight
from sidecar.errors import DiskError
from sidecar.facts import Crashed, Emit

PROBE_PATIENCE = 0.5
"""Seconds a question waits for the outcome of somebody else's probe."""

DISK_PATIENCE = 0.25
"""Seconds a definite deny waits to be on disk before it is answered all the same."""

RENDERING = 0.15
"""Seconds of a deadline that are kept for writing the answer, and those of hundreds that are due at that instant."""

LATE_FOLLOWER = 0.5
"""Whoever joined a call that was this old already, and got nothing from it, may ask once more."""


class Guard(Protocol):
    """One endpoint's way to the backend, as far as the resolver needs it."""

    @property
    def breaker(self) -> Breaker:
        """When to ask again is read off it."""
        ...

    def permit(self, now: float, room: str) -> Permit:
        """What a question of this room may do now."""
        ...

    def take_probe(self, now: float, room: str) -> Ticket:
        """Become the probe; in the same step as the permit was seen."""
        ...

    async def breaker_changes(self, seconds: float) -> None:
        """Wait until the breaker opens, closes or frees its probe; at most so long."""
        ...

    async def carry(
        self, query: Query, until: float, probe: Ticket | None, *, behind: bool = False
    ) -> Carried | Released:
        """Get one question answered by the instant `until`."""
        ...


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

    policy: Policy
    entry: Entry | None
    state: Freshness
    permit: Permit
    plan: Plan


CallResult = Settled | Released


class Resolver:
    """The sole interpreter of a plan."""

    def __init__(
        self,
        cache: Cache,
        guards: Mapping[Endpoint, Guard],
        policy_for: PolicyFor,
        memory: Memory,
        deliver_later: Callable[[Query], None],
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
    ) -> None:
        """`deliver_later` takes a `room-created` that was answered while the backend was away."""
        self.cache = cache
        self._guards = guards
        self.policy_for = policy_for
        self._memory = memory
        self._deliver_later = deliver_later
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._calls: SingleFlight[Key, CallResult] = SingleFlight(lambda error: emit(Crashed("call", error)))
        self._answered_early: set[Key] = set()
        """Rooms whose `room-created` memory has answered while the question is still under way."""

    async def resolve(self, query: Query) -> Answer:
        """Answer one question; never raises for the backend, and never takes longer than the deadline."""
        endpoint, room = query.key.endpoint, query.key.room
        policy, guard = self.policy_for(endpoint, room), self._guards[endpoint]
        until = query.received_at + policy.deadline - RENDERING
        probe_awaited = second_chance_taken = under_way = False
        while True:
            if query.key.subject == GUEST and self.cache.guests_are_alone(room):
                query = query.alone()
            if not self._memory.loaded and self.cache.get(query.key) is None:
                await self._disk(self._memory.recall(query.key), until)
            # From here until the plan is under way nothing is awaited: what was seen is still so.
            now = self._clock.monotonic()
            permit = guard.permit(now, room)
            if now >= until or (probe_awaited and permit is Permit.PROBE_OUT):
                permit = Permit.OPEN
            view = self._view(query.key, policy, now, permit)
            match view.plan.act:
                case Act.ANSWER:
                    if view.plan.refresh:
                        self._call(query, view, now, behind=True)
                    return await self._remembered(query, view, now, asked=view.plan.refresh or under_way)
                case Act.REFUSE:
                    return self._unavailable(query, view, now, asked=under_way)
                case Act.AWAIT_PROBE:
                    probe_awaited = True
                    await guard.breaker_changes(min(PROBE_PATIENCE, until - now))
                case Act.ASK:
                    call, led = self._call(query, view, now)
                    late = now - call.started_at > LATE_FOLLOWER and not second_chance_taken
                    second_chance_taken = second_chance_taken or late
                    answer = await self._await_call(query, view, call, led=led, late=late, until=until)
                    if answer is not None:
                        return answer
                    under_way = not call.task.done()
                case _:
                    assert_never(view.plan.act)

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        """Answer one more question in the time that the first one, which was asked with it, has left.

        None: there was too little. The backend is being asked all the same; whoever asks again joins in. If the first
        one took next to nothing, this one has its own time and its own end.
        """
        deadline = self.policy_for(first.key.endpoint, first.key.room).deadline
        left = first.received_at + deadline - RENDERING / 2 - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self.resolve(query)
        except TimeoutError:
            return None

    async def _await_call(
        self, query: Query, view: View, call: Call[CallResult], *, led: bool, late: bool, until: float
    ) -> Answer | None:
        """The answer of a call, or what stands in for it; None: look and decide again."""
        patience = until - self._clock.monotonic()
        impatient = view.plan.fallback is Fallback.SLOW
        if impatient:
            patience = min(patience, view.policy.answer_within)
        try:
            result = await call.within(patience)
        except Exception:  # noqa: BLE001 - the call has reported its own crash; here it is one more failure
            result = Settled()
        now = self._clock.monotonic()
        match result:
            case Released():
                return None
            case Pending():
                after = self._view(query.key, view.policy, now, Permit.OPEN)
                if impatient and after.state is not Freshness.SUSPECT and after.plan.act is Act.ANSWER:
                    return await self._remembered(query, after, now, asked=True)
                return None  # past the deadline the next look takes the open column; before it, it asks on
            case Settled(reply=Reply() as reply):
                if result.private and query.key.subject == GUEST and not led:
                    return None  # the answer was for one guest only; this one asks alone
                return replied(reply, result, view.state, collapsed=not led)
            case Settled():
                if late and until - now > LATE_FOLLOWER:
                    return None
                after = self._view(query.key, view.policy, now, Permit.OPEN)
                if after.plan.act is Act.ANSWER:
                    return await self._remembered(query, after, now, asked=True)
                due = self._due_in(query, now)
                return unavailable(query, after.entry, after.policy, asked=result, before=view.state, retry_after=due)
            case _:
                assert_never(result)

    def preview(self, key: Key) -> View:
        """What a question with this key would meet now; changes nothing."""
        now = self._clock.monotonic()
        policy = self.policy_for(key.endpoint, key.room)
        return self._view(key, policy, now, self._guards[key.endpoint].permit(now, key.room))

    async def purge(self, selector: Selector) -> int:
        """Forget what is meant, also what is under way; returns how many entries went. Raises DiskError."""
        self._calls.detach(selector.fits)
        return await self._memory.purge(self._clock.monotonic(), selector)

    async def drain(self, seconds: float) -> None:
        """Let the calls that are under way end; at most so long."""
        await self._calls.drain(seconds)

    def _view(self, key: Key, policy: Policy, now: float, permit: Permit) -> View:
        entry = self.cache.get(key)
        limits = policy.lifetimes(entry.verdict) if entry is not None else None
        allowed = entry is not None and entry.verdict is Verdict.ALLOW
        suspect_before = self._suspect_before(key, policy, now) if allowed else NEVER
        state = freshness(entry, limits, now, suspect_before)
        return View(policy, entry, state, permit, decide(state, permit))

    def _suspect_before(self, key: Key, policy: Policy, now: float) -> float:
        if key.endpoint.kind is Kind.CONFIG:
            return NEVER
        return self.cache.suspect_before(key.room, now, policy.deny.fresh)

    def _call(self, query: Query, view: View, now: float, *, behind: bool = False) -> tuple[Call[CallResult], bool]:
        """The call to wait for, and whether it was begun for this question."""
        probe = None
        if view.permit is Permit.PROBE_FREE:
            # A call from before the outage may hang until its deadline; the probe does not join it.
            probe = self._guards[query.key.endpoint].take_probe(now, query.key.room)
        else:
            call = self._calls.get(query.key)
            # Nobody takes the answer to a question that is older than the last deny in the room.
            if call is not None and call.started_at >= self._suspect_before(query.key, view.policy, now):
                return call, False
        return self._calls.start(query.key, now, self._ask(query, view.policy, now, probe, behind=behind)), True

    async def _ask(self, query: Query, policy: Policy, now: float, probe: Ticket | None, *, behind: bool) -> CallResult:
        # Its own time, not the caller's: whoever joins it later may have far more left.
        until = now + policy.deadline - RENDERING
        try:
            carried = await self._guards[query.key.endpoint].carry(query, until, probe, behind=behind)
            if isinstance(carried, Released):
                if behind or query.key in self._answered_early:
                    self._deliver_if_answered(query, policy, now)
                return carried
            outcome = carried.outcome
            if query.key.subject == GUEST and isinstance(outcome, Replied | Rejected) and outcome.cache_control.private:
                self.cache.keep_guests_alone(query.key)
                query = query.alone()
            ended_at = self._clock.monotonic()
            current = self.cache.get(query.key)
            settled = settle(ended_at, query, carried.asked_at, current, outcome, policy, self._jitter())
            await self._remember(query, policy, settled, ended_at, until)
        except BaseException:
            self._deliver_if_answered(query, policy, now)
            raise
        finally:
            self._answered_early.discard(query.key)
        return settled

    async def _remember(self, query: Query, policy: Policy, settled: Settled, now: float, until: float) -> None:
        key = query.key
        if settled.drop:
            self.cache.drop(key)
        if settled.store is not None:
            self.cache.put(key, settled.store)
        if settled.denied:
            self.cache.suspect(key.room, now, policy.deny.fresh)
            await self._on_disk(key, until)
        if settled.reply is None:
            self._deliver_if_answered(query, policy, now)

    def _deliver_if_answered(self, query: Query, policy: Policy, now: float) -> None:
        """The backend has not heard of this room, and those who waited were answered from memory or with the default
        config: it hears of it later."""
        if query.key.endpoint.kind is Kind.CONFIG:
            view = self._view(query.key, policy, now, Permit.OPEN)
            if view.plan.act is Act.ANSWER or policy.on_unavailable is OnUnavailable.DEFAULT:
                self._deliver_later(query)

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

    async def _remembered(self, query: Query, view: View, now: float, *, asked: bool) -> Answer:
        """Answer from the cache. `asked`: the backend was, or is being, asked this question too."""
        entry = view.entry
        assert entry is not None, "only a usable entry is planned to be the answer"
        if entry.verdict is Verdict.DENY:
            await self._on_disk(query.key, query.received_at + view.policy.deadline - RENDERING)
        if asked:
            self._answer_early(query)
        elif entry.verdict is Verdict.CONFIG and view.state is not Freshness.FRESH:
            self._deliver_later(query)
        return remembered(entry, view.state, view.policy, now)

    def _unavailable(self, query: Query, view: View, now: float, *, asked: bool) -> Answer:
        """Answer by `on_unavailable`, the backend not having been asked, or not having answered in time."""
        if asked:
            self._answer_early(query)
        elif view.policy.on_unavailable is OnUnavailable.DEFAULT:
            self._deliver_later(query)
        due = self._due_in(query, now)
        settled = Settled() if asked else None
        return unavailable(query, view.entry, view.policy, asked=settled, before=view.state, retry_after=due)

    def _answer_early(self, query: Query) -> None:
        """The question may still be under way: should it never be sent, the backend must hear of the room later."""
        if query.key.endpoint.kind is Kind.CONFIG and self._calls.get(query.key) is not None:
            self._answered_early.add(query.key)

    def _due_in(self, query: Query, now: float) -> float:
        due = self._guards[query.key.endpoint].breaker.open_until()
        return 1.0 if due is None else due - now
