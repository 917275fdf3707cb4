"""Calls to the backend: one per key at a time, and what becomes of their outcomes.

join_or_start -> guard.carry -> settle -> cache, disk    the result goes to all who wait for the call

A call has a task and a time of its own. It goes on when those who wait for it have left, and its outcome is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.breaker import Breaker, Permit, Ticket
from sidecar.core.decision_body import configuration_in, restricts, without_configuration
from sidecar.core.model import (
    GUEST,
    NOBODY,
    Asker,
    Carried,
    Endpoint,
    Key,
    Kind,
    Query,
    Rejected,
    Released,
    Replied,
    Verdict,
)
from sidecar.core.policy import NEVER, OnUnavailable, Policy, Settled, settle, useless_in_an_outage
from sidecar.core.sealed import Found
from sidecar.core.selection import Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.disk import Disk
from sidecar.decisions.shared_memory import SharedMemory
from sidecar.decisions.single_flight import Call, SingleFlight
from sidecar.decisions.view import View, look, outdated_before
from sidecar.facts import CacheControlSeen, Crashed, Emit

ANSWER_MARGIN = 0.15
"""Seconds of a deadline that are kept for writing the answer; hundreds of answers may be due at the same instant."""

MOST_NOT_KEPT = 10_000
"""Answers that are not in the cache of which is known when they were asked for. It matters while an older question with
the same key is under way, so the latest ones are enough."""

CallResult = Settled | Released


class Guard(Protocol):
    """The guard of one endpoint, as far as decisions need it."""

    @property
    def breaker(self) -> Breaker:
        """Says when the backend may be asked again."""
        ...

    def permit(self, now: float, room: str, asker: Asker = NOBODY) -> Permit:
        """What a question about this room may do now, if this one asks."""
        ...

    def take_probe(self, now: float, room: str, asker: Asker = NOBODY) -> Ticket:
        """Become the probe. Nothing may be awaited between seeing the permit and this."""
        ...

    async def breaker_changes(self, seconds: float) -> None:
        """Wait until the breaker opens, closes or frees its probe; at most so long."""
        ...

    async def carry(
        self, query: Query, until: float, probe: Ticket | None, *, in_background: bool = False
    ) -> Carried | Released:
        """Get one question answered by the instant `until`."""
        ...


class Calls:
    """The calls under way, by key."""

    def __init__(
        self,
        cache: Cache,
        guards: Mapping[Endpoint, Guard],
        disk: Disk,
        config_policy: Callable[[str], Policy],
        deliver_later: Callable[[Query], None],
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
    ) -> None:
        """`config_policy` gives the policy for a room's config. `deliver_later` takes a `room-created` that the backend
        has not received, though Prosody has an answer."""
        self._cache = cache
        self._guards = guards
        self._disk = disk
        self._config_policy = config_policy
        self._deliver_later = deliver_later
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._under_way: SingleFlight[Key, CallResult] = SingleFlight(lambda error: emit(Crashed("call", error)))
        self.shared: SharedMemory | None = None
        self._answered_meanwhile: set[Key] = set()
        """Keys of `room-created` that were answered while their call was still under way."""
        self._not_kept: dict[Key, float] = {}
        """When the questions were asked whose answers are not in the cache: what was asked earlier is out of date."""

    def join_or_start(
        self, query: Query, view: View, now: float, found: Found | None, *, in_background: bool = False
    ) -> tuple[Call[CallResult], bool]:
        """The call to wait for, and whether it was started for this question. `found`: what the memory that is shared
        with other sidecars said about it; None: it was not asked."""
        key = query.key
        if view.permit is Permit.PROBE_FREE:
            # A call from before the outage may hang until its deadline: the probe does not join it.
            probe = self._guards[key.endpoint].take_probe(now, key.room, query.asker)
        else:
            probe = None
            call = self._under_way.get(key)
            # A call that is older than the last deny in the room may bring an answer that is out of date.
            if call is not None and call.started_at >= outdated_before(self._cache, key, view.policy, now):
                return call, False
        work = self._ask(query, view.policy, now, probe, found, in_background=in_background)
        return self._under_way.start(key, now, work), True

    def note_answered(self, query: Query) -> None:
        """The question has an answer while its call is under way. If it is never sent, the backend must still receive
        the `room-created` later."""
        if query.key.endpoint.kind is Kind.CONFIG and self._under_way.get(query.key) is not None:
            self._answered_meanwhile.add(query.key)

    def keys(self, room: str) -> list[Key]:
        """The keys of a room that the backend is being asked about."""
        return [key for key in self._under_way.under_way() if key.room == room]

    def detach(self, selector: Selector) -> None:
        """No question joins these calls any more; those that wait already go on waiting."""
        self._under_way.detach(selector.fits)

    async def drain(self, seconds: float) -> None:
        """Let the calls that are under way end; at most so long."""
        await self._under_way.drain(seconds)

    async def _ask(
        self,
        query: Query,
        policy: Policy,
        now: float,
        probe: Ticket | None,
        found: Found | None,
        *,
        in_background: bool,
    ) -> CallResult:
        """One call, from asking to what follows from the outcome."""
        # Not the deadline of the question that started the call: one that joins it later may have more time left.
        until = now + policy.deadline - ANSWER_MARGIN
        try:
            if in_background and self.shared is not None:
                found = await self.shared.recall(query.key)
            carried = await self._guards[query.key.endpoint].carry(query, until, probe, in_background=in_background)
            if isinstance(carried, Released):
                if in_background or query.key in self._answered_meanwhile:
                    self._deliver_if_answered(query, policy, now)
                return carried
            return await self._settle(query, policy, carried, until, found)
        except BaseException:
            self._deliver_if_answered(query, policy, now)
            raise
        finally:
            self._answered_meanwhile.discard(query.key)

    async def _settle(
        self, query: Query, policy: Policy, carried: Carried, until: float, found: Found | None
    ) -> CallResult:
        outcome, shared = carried.outcome, None
        restricted = isinstance(outcome, Replied | Rejected) and restricts(outcome.verdict, outcome.body)
        if query.key.subject == GUEST and isinstance(outcome, Replied | Rejected) and outcome.cache_control.private:
            if self.shared is not None:
                self.shared.separate_guests(query.key, carried.asked_at)
            if self._cache.get(query.key) is not None:
                shared = query.key
            found, query = None, self._for_one_guest(query, carried.asked_at)
        elif query.key.subject == GUEST and not restricted and self._cache.guests_are_separate(query.key.room):
            return Released()  # each guest has an answer of its own since, perhaps another one than this
        if not restricted and self._not_kept.get(query.key, NEVER) > carried.asked_at:
            return Released()
        if isinstance(outcome, Replied) and outcome.verdict in (Verdict.ALLOW, Verdict.CONFIG):
            forbids = useless_in_an_outage(policy, outcome.cache_control)
            self._emit(CacheControlSeen(query.key.endpoint, forbids))
        if isinstance(outcome, Replied) and outcome.verdict is Verdict.ALLOW:
            outcome = self._with_configuration(query.key, outcome, carried.asked_at)
        now = self._clock.monotonic()
        current = self._cache.get(query.key)
        settled = settle(now, query, carried.asked_at, current, outcome, policy, self._jitter())
        if settled.reply is not None and settled.store is None:
            self._note_not_kept(query.key, carried.asked_at)
        if settled.store is not None and query.key.subject == GUEST and self._cache.guests_are_separate(query.key.room):
            self._cache.put(query.for_one_guest().key, settled.store)  # a deny for all; this one may have an own allow
        await self._remember(query, policy, settled, now, until, found)
        if shared is not None:
            await self._disk.save(shared, until)
        return settled

    def _for_one_guest(self, query: Query, asked_at: float) -> Query:
        """From now on the guests of this room share no answer. A later answer for all of them counts for this one too,
        and so does a deny that came after this question was asked."""
        shared, query = query.key, query.for_one_guest()
        entry = self._cache.get(shared)
        self._cache.separate_guests(shared, asked_at)
        if entry is None:
            return query
        if entry.asked_at > asked_at or (entry.verdict is Verdict.DENY and entry.settled_at > asked_at):
            self._cache.put(query.key, entry)
        return query

    def _with_configuration(self, decision: Key, outcome: Replied, asked_at: float) -> Replied:
        """The room config that came along with a decision is kept like one that was asked for. One that is out of date
        is left out of the decision."""
        configuration = configuration_in(outcome.body)
        if configuration is None:
            return outcome
        query = Query(decision.of_config, b"", asked_at)
        if self._cache.outdates_config(decision, asked_at):
            return replace(outcome, body=without_configuration(outcome.body))
        config = Replied(200, configuration, Verdict.CONFIG, outcome.cache_control)
        now, current = self._clock.monotonic(), self._cache.get(query.key)
        policy = self._config_policy(decision.room)
        settled = settle(now, query, asked_at, current, config, policy, self._jitter())
        if settled.drop:
            self._cache.drop(query.key)
            self._note_not_kept(query.key, asked_at)
        if settled.store is not None:
            self._cache.put(query.key, settled.store)
            if self.shared is not None:
                self.shared.learned(query.key, settled.store, None)
        return outcome

    def _note_not_kept(self, key: Key, asked_at: float) -> None:
        self._not_kept[key] = max(asked_at, self._not_kept.pop(key, NEVER))
        if len(self._not_kept) > MOST_NOT_KEPT:
            del self._not_kept[next(iter(self._not_kept))]

    async def _remember(
        self, query: Query, policy: Policy, settled: Settled, now: float, until: float, found: Found | None
    ) -> None:
        key = query.key
        if settled.drop:
            self._cache.drop(key)
            if self.shared is not None:
                self.shared.withdraw(key)
        if settled.store is not None and self._cache.put(key, settled.store) and self.shared is not None:
            self.shared.learned(key, settled.store, found)
        if settled.denied:
            self._cache.suspect(key.room, now, policy.deny.fresh)
        if settled.lessens or (settled.reply is not None and restricts(settled.reply.verdict, settled.reply.body)):
            await self._disk.save(key, until)  # also a deny that came from another call, and is the newer answer
        if settled.reply is None:
            self._deliver_if_answered(query, policy, now)

    def _deliver_if_answered(self, query: Query, policy: Policy, now: float) -> None:
        """The backend has not received this `room-created`. If Prosody has a config all the same, from the cache or the
        default one, the room exists, and the backend must hear of it later."""
        if query.key.endpoint.kind is Kind.CONFIG:
            without_backend = look(self._cache, query.key, policy, now, Permit.OPEN)
            if without_backend.answers or policy.on_unavailable is OnUnavailable.DEFAULT:
                self._deliver_later(query)
