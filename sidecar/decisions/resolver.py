"""One question in, one answer out, always within its deadline. Only this file carries out a plan.

look, decide, plan   cache, policy and breaker as they are now (view.py); no await from here to the act
act                  answer from the cache | ask the backend | wait for the probe | answer by policy
ask                  start a call or join one (shared_calls.py), and wait for it
answer               the backend's reply; without a reply, what the plan for an open breaker says

If an act brings no answer (the call was released, the probe has ended), the question starts again with a new look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, assert_never

from sidecar.clock import Clock
from sidecar.core.answers import remembered, replied, unavailable
from sidecar.core.breaker import Permit
from sidecar.core.decision_body import is_personal, requires_lobby, restricts, without_configuration
from sidecar.core.model import GUEST, Answer, Endpoint, Key, Kind, Query, Released, Verdict
from sidecar.core.policy import Act, Fallback, Freshness, OnUnavailable, Policy, PolicyFor, Reply, Settled
from sidecar.core.sealed import Found
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.disk import Disk, Memory
from sidecar.decisions.shared_calls import ANSWER_MARGIN, CallResult, Calls, Guard
from sidecar.decisions.shared_memory import SharedMemory
from sidecar.decisions.single_flight import Call, Pending
from sidecar.decisions.view import View, look
from sidecar.errors import DiskError
from sidecar.facts import Emit

PROBE_WAIT = 0.5
"""Seconds a question waits for the outcome of a probe that another question has sent."""

LATE_JOIN = 0.5
"""A question that joined a call older than this, in seconds, and got no reply from it, may ask once more."""


class _Tried(NamedTuple):
    """What was done for one question before it looked again."""

    probe_awaited: bool = False
    asked_again: bool = False
    """It has used its one chance to ask again after it joined a call late."""
    call_under_way: bool = False
    """A call that it waited for has not ended."""


_NOTHING_TRIED = _Tried()

_OPEN, _FRESH, _DENY = Permit.OPEN, Freshness.FRESH, Verdict.DENY
"""As in policy.py."""


class Resolver:
    """Answers questions. It is the only interpreter of a plan."""

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
        """`deliver_later` takes a `room-created` that was answered while the backend could not be asked."""
        self.cache = cache
        self.policy_for = policy_for
        self._guards = guards
        self._memory = memory
        self._deliver_later = deliver_later
        self._clock = clock
        self._shared: SharedMemory | None = None
        self._disk = Disk(cache, memory, clock, emit)
        self._calls = Calls(cache, guards, self._disk, self._config_policy, deliver_later, clock, jitter, emit)

    def at_once(self, key: Key) -> Answer | None:
        """The answer, if the cache has a fresh one and nothing is to be waited for: none that must be on disk first.
        A fresh one is the answer whatever the breaker says."""
        if not self._memory.loaded or (key.subject == GUEST and self.cache.guests_are_separate(key.room)):
            return None
        policy, now = self.policy_for(key.endpoint, key.room), self._clock.monotonic()
        view = look(self.cache, key, policy, now, _OPEN)
        entry = view.entry
        if entry is None or view.state is not _FRESH:
            return None
        if entry.verdict is _DENY or requires_lobby(entry.body):
            return None
        if key.subject == GUEST and is_personal(entry.body):
            return None
        return self._remembered(key, view, now)

    async def resolve(self, query: Query) -> Answer:
        """Answer one question; never raises for the backend, and never takes longer than the deadline."""
        endpoint, room = query.key.endpoint, query.key.room
        policy, guard = self.policy_for(endpoint, room), self._guards[endpoint]
        until = query.received_at + policy.deadline - ANSWER_MARGIN
        tried = _NOTHING_TRIED
        recalled, found = None, None
        while True:
            query = self._for_whom(query)
            if not self._memory.loaded:
                await self._disk.read(query.key, until)
                query = self._for_whom(query)
            if self._shared is not None and query.key != recalled:
                recalled, found = query.key, await self._recall(self._shared, query, policy)
                continue  # guests may be separate, as other sidecars know
            # Nothing is awaited from here until the plan is being carried out: what was seen is still true.
            now = self._clock.monotonic()
            permit = guard.permit(now, room, query.asker)
            if now >= until or (tried.probe_awaited and permit is Permit.PROBE_OUT):
                permit = Permit.OPEN
            view = look(self.cache, query.key, policy, now, permit)
            match view.plan.act:
                case Act.ANSWER:
                    if view.plan.refresh:
                        self._calls.join_or_start(query, view, now, found, in_background=True)
                    return await self._from_cache(query, view, now, asked=view.plan.refresh or tried.call_under_way)
                case Act.REFUSE:
                    return await self._by_policy(query, view, now, asked=tried.call_under_way)
                case Act.AWAIT_PROBE:
                    tried = tried._replace(probe_awaited=True)
                    await guard.breaker_changes(min(PROBE_WAIT, until - now))
                case Act.ASK:
                    answer, tried = await self._ask(query, view, now, until, tried, found)
                    if answer is not None:
                        return answer
                case _:
                    assert_never(view.plan.act)

    def share(self, shared: SharedMemory) -> None:
        """Ask other sidecars before the backend, and tell them what it says."""
        self._shared = self._calls.shared = shared

    async def _recall(self, shared: SharedMemory, query: Query, policy: Policy) -> Found | None:
        """What other sidecars know, if the cache has no fresh answer. It is not waited for at the deadline."""
        now = self._clock.monotonic()
        if now >= query.received_at + policy.deadline - ANSWER_MARGIN:
            return None
        view = look(self.cache, query.key, policy, now, Permit.CLOSED)
        return None if view.answers else await shared.recall(query.key)

    def asked_about(self, room: str) -> Iterable[Key]:
        """The keys of a room that the backend is being asked about."""
        return self._calls.keys(room)

    def _for_whom(self, query: Query) -> Query:
        """The question, for one guest if the guests of the room share no answer."""
        separate = query.key.subject == GUEST and (
            self.cache.guests_are_separate(query.key.room) or self._separates_guests(query.key)
        )
        return query.for_one_guest() if separate else query

    def _separates_guests(self, shared: Key) -> bool:
        """An older version kept what the backend said about one person as the answer for all guests of the room."""
        entry = self.cache.get(shared)
        if entry is None or not is_personal(entry.body):
            return False
        self.cache.separate_guests(shared, entry.asked_at)
        return True

    def _config_policy(self, room: str) -> Policy:
        return self.policy_for(Endpoint.ROOM_CREATED, room)

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        """Answer one more question in the time that the first one, which was asked with it, has left.

        None: there was too little time. The call to the backend goes on; a question that is asked again joins it. If
        the first one took next to no time, this one has its own deadline.
        """
        deadline = self.policy_for(first.key.endpoint, first.key.room).deadline
        left = first.received_at + deadline - ANSWER_MARGIN / 2 - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self.resolve(query)
        except TimeoutError:
            return None

    def is_outdated(self, query: Query) -> bool:
        """Whether a deny or an order has come since this question was, so that an allow that was its answer counts no
        more, and the question is to be resolved again."""
        key = query.key
        if key.subject == GUEST and self.cache.guests_are_separate(key.room):
            key = query.for_one_guest().key
        entry = self.cache.get(key)
        denied = entry is not None and entry.verdict is Verdict.DENY and entry.settled_at > query.received_at
        return denied or self.cache.changes.outdate(key, query.received_at)

    def preview(self, key: Key) -> View:
        """What a question with this key would meet now; changes nothing."""
        now = self._clock.monotonic()
        policy = self.policy_for(key.endpoint, key.room)
        return look(self.cache, key, policy, now, self._guards[key.endpoint].permit(now, key.room))

    async def purge(self, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is meant, also what is under way, here and on other sidecars; returns how many entries were
        changed here. Raises DiskError."""
        if self._shared is None:
            return await self.purge_here(selector, change)
        # The others hear of it also where the disk of this one is slow or fails.
        said = asyncio.ensure_future(self._shared.say(selector, change))
        try:
            return await self.purge_here(selector, change)
        finally:
            await said

    @property
    def everywhere(self) -> bool:
        """Whether other sidecars have been told of all that was purged here, or can hear of it."""
        return self._shared is None or self._shared.everywhere

    async def purge_here(self, selector: Selector, change: Change, at: float | None = None) -> int:
        """The same for this sidecar alone; `at`: the instant of a change that was made elsewhere. Raises DiskError."""
        self._calls.detach(selector)
        return await self._memory.purge(self._clock.monotonic() if at is None else at, selector, change)

    async def persist(self) -> None:
        """Return when all that was taken away by now is on disk; raises DiskError if it is not."""
        if not self._memory.loaded:
            raise DiskError("the decisions on disk have not been read yet")
        await self._memory.persist()

    async def drain(self, seconds: float) -> None:
        """Let the calls that are under way end; at most so long."""
        await self._calls.drain(seconds)

    async def _ask(
        self, query: Query, view: View, now: float, until: float, tried: _Tried, found: Found | None
    ) -> tuple[Answer | None, _Tried]:
        """Ask the backend, in a call of one's own or in one that is under way. No answer: look again."""
        call, started = self._calls.join_or_start(query, view, now, found)  # in the same step as the look
        late = now - call.started_at > LATE_JOIN and not tried.asked_again
        result = await self._wait(call, view, until)
        answer = None
        if not self.cache.changes.outdate(query.key, call.started_at):  # else what it would bring back was taken away
            answer = await self._answer(query, view, result, until, started=started, late=late)
        return answer, tried._replace(asked_again=tried.asked_again or late, call_under_way=not call.task.done())

    async def _wait(self, call: Call[CallResult], view: View, until: float) -> CallResult | Pending:
        """What came of a call; `Pending` when the question can wait no longer."""
        seconds = until - self._clock.monotonic()
        if view.plan.fallback is Fallback.SLOW:
            seconds = min(seconds, view.policy.answer_within)
        try:
            return await call.within(seconds)
        except Exception:  # noqa: BLE001 - the call has reported its own crash; here it is one more failure
            return Settled()

    async def _answer(
        self, query: Query, view: View, result: CallResult | Pending, until: float, *, started: bool, late: bool
    ) -> Answer | None:
        """The answer that follows from a call. `started`: for this question; `late`: it may ask once more."""
        now = self._clock.monotonic()
        match result:
            case Released():
                return None
            case Pending():
                return await self._instead_of_slow(query, view, now)
            case Settled(reply=Reply() as reply):
                if result.private and query.key.subject == GUEST and not started:
                    return None  # the reply is for another guest: ask again for this one
                return replied(reply, result, view.state, collapsed=not started)
            case Settled():
                if late and until - now > LATE_JOIN:
                    return None
                return await self._instead_of_failed(query, view, result, now)
            case _:
                assert_never(result)

    async def _instead_of_slow(self, query: Query, view: View, now: float) -> Answer | None:
        """A stale entry, if the plan lets it answer for a slow backend. None before the deadline: the next look goes on
        asking. None at the deadline: the next look takes the breaker as open."""
        if view.plan.fallback is not Fallback.SLOW:
            return None
        after = look(self.cache, query.key, view.policy, now, Permit.OPEN)
        if not after.answers or after.state is Freshness.SUSPECT:
            return None
        return await self._from_cache(query, after, now, asked=True)

    async def _instead_of_failed(self, query: Query, view: View, settled: Settled, now: float) -> Answer:
        """The entry that may answer while the backend cannot; else the answer of the policy."""
        after = look(self.cache, query.key, view.policy, now, Permit.OPEN)
        if after.answers:
            return await self._from_cache(query, after, now, asked=True)
        query, after = self._with_what_keeps_out(query, after)
        await self._save_deny(query, after)
        due = self._due_in(query, now)
        return unavailable(query, after.entry, after.policy, asked=settled, before=view.state, retry_after=due)

    async def _from_cache(self, query: Query, view: View, now: float, *, asked: bool) -> Answer:
        """Answer from the cache. `asked`: the backend was, or is being, asked this question too."""
        entry = view.entry
        assert entry is not None, "only a usable entry is planned to be the answer"
        await self._save_deny(query, view)
        if asked:
            self._calls.note_answered(query)
        elif entry.verdict is Verdict.CONFIG and view.state is not Freshness.FRESH:
            self._deliver_later(query)
        return self._remembered(query.key, view, now)

    def _remembered(self, key: Key, view: View, now: float) -> Answer:
        """The entry as an answer, without a room config that is older than what is known now."""
        entry = view.entry
        assert entry is not None, "only a usable entry is planned to be the answer"
        if b'"configuration":' in entry.body and self.cache.outdates_config(key, entry.asked_at):
            entry = entry._replace(body=without_configuration(entry.body))
        return remembered(entry, view.state, view.policy, now)

    async def _by_policy(self, query: Query, view: View, now: float, *, asked: bool) -> Answer:
        """Answer by `on_unavailable`: the backend was not asked, or did not answer in time (`asked`)."""
        if asked:
            self._calls.note_answered(query)
        elif view.policy.on_unavailable is OnUnavailable.DEFAULT:
            self._deliver_later(query)
        query, view = self._with_what_keeps_out(query, view)
        await self._save_deny(query, view)
        due = self._due_in(query, now)
        settled = Settled() if asked else None
        return unavailable(query, view.entry, view.policy, asked=settled, before=view.state, retry_after=due)

    def _with_what_keeps_out(self, query: Query, view: View) -> tuple[Query, View]:
        """For a guest who shares no answer any more, and is unknown since: the last answer to all guests of the room
        together, if it was a deny."""
        if not query.asker.guest or query.key.endpoint.kind is not Kind.DECISION:
            return query, view
        shared = query._replace(key=query.key._replace(subject=GUEST))
        denied, own = self.cache.get(shared.key), view.entry
        if denied is None or denied.verdict is not Verdict.DENY or (own and own.asked_at > denied.settled_at):
            return query, view
        return shared, view._replace(entry=denied)

    async def _save_deny(self, query: Query, view: View) -> None:
        """A deny is on disk before anybody hears of it, also one that is expired and only decides the policy; and so is
        an allow that leads to the lobby."""
        if view.entry is not None and restricts(view.entry.verdict, view.entry.body):
            await self._disk.save(query.key, query.received_at + view.policy.deadline - ANSWER_MARGIN)

    def _due_in(self, query: Query, now: float) -> float:
        """Seconds until the backend may be asked again."""
        due = self._guards[query.key.endpoint].breaker.open_until()
        return 1.0 if due is None else due - now
