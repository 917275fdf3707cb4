"""Every history of questions, answers, crashes and purges, on the pure core and the cache, with a clock of its own.

The resolver's part is played here as simply as can be, and more wildly than the real one: a key may have any number of
questions under way, they land in any order, and every permit of the breaker may be met at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.breaker import Permit
from sidecar.core.classify import classify
from sidecar.core.model import Entry, Key, Lifetimes, Rejected, Replied, Verdict
from sidecar.core.policy import Act, Fallback, Freshness, Plan, decide, freshness, settle
from sidecar.core.selection import Selector
from sidecar.decisions.cache import Cache, Limits
from tests.unit.builders import ALLOW, CONFIG, DENY, a_config_key, a_key, a_policy, a_query, an_entry

SETTINGS = settings(max_examples=100, stateful_step_count=60)

ROOMS = ("standup", "retro")
SUBJECTS = ("jid ann@example.org", 'id "bob"')
KEYS = [a_key(room, subject) for room in ROOMS for subject in SUBJECTS]

LIFETIMES = [Lifetimes(4, 4, 12), Lifetimes(4, 0, 12), Lifetimes(8, 2, 0), Lifetimes(2, 8, 4)]
DENY_LIFETIMES = Lifetimes(3, 0, 8)
EVERY = DENY_LIFETIMES.fresh

WORDS = [(200, ALLOW), (200, ALLOW), (200, DENY), (403, DENY), (404, DENY)]
GARBAGE = [
    (200, b"<html>"),
    (200, b'{"allowed":1}'),
    (200, b'{"allowed":"true"}'),
    (200, b'{"allowed":false,"allowed":true}'),
    (200, b"null"),
    (200, b'[{"allowed":true}]'),
    (200, b'{"allowed":true'),
    (302, ALLOW),
    (401, b""),
    (403, ALLOW),
    (404, b"<html>"),
    (429, b""),
    (503, ALLOW),
    (500, DENY),
]
HEADERS = ["", "", "", "no-store", "max-age=1", "must-revalidate", "stale-while-revalidate=1, stale-if-error=2"]


@dataclass(eq=False)
class Call:
    """One question under way."""

    key: Key
    asked_at: float
    fallback: Fallback


@dataclass(frozen=True)
class Word:
    """What the backend said about a key, and for how long that may be used."""

    verdict: Verdict
    asked_at: float
    usable_for: float


def usable_for(lifetimes: Lifetimes, header: str) -> float:
    """Fresh and the larger stale limit, less what the header takes away; written down by hand."""
    fresh, while_revalidate, if_error = (
        lifetimes.fresh,
        lifetimes.stale_while_revalidate,
        lifetimes.stale_if_error,
    )
    match header:
        case "":
            pass
        case "no-store":
            fresh = while_revalidate = if_error = 0
        case "max-age=1":
            fresh = min(fresh, 1)
        case "must-revalidate":
            while_revalidate = if_error = 0
        case _:
            while_revalidate, if_error = min(while_revalidate, 1), min(if_error, 2)
    return fresh + max(while_revalidate, if_error)


class DecisionMachine(RuleBasedStateMachine):
    """What may happen, and after each step what must be true."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.limits = Limits(allows=4, denies=5, configs=2)
        self.cache = Cache(self.limits)
        self.disk: dict[Key, Entry] = {}
        self.policy = a_policy(LIFETIMES[0], DENY_LIFETIMES)
        self.calls: list[Call] = []
        self.words: dict[Key, list[Word]] = {key: [] for key in KEYS}
        self.denied_at: dict[Key, float] = {}
        self.denies: dict[str, list[float]] = {room: [] for room in ROOMS}
        self.suspect_since: dict[str, set[float]] = {room: set() for room in ROOMS}
        self.ever_denied: set[str] = set()
        self.purges: list[tuple[float, Selector]] = []
        self.denied_users = 0
        self.allowed_in: set[str] = set()
        for room in ROOMS:
            self.cache.put(a_config_key(room), an_entry(Verdict.CONFIG, asked_at=self.now))

    # ---- looking and answering

    def look(self, key: Key, permit: Permit) -> tuple[Entry | None, Freshness, Plan]:
        entry = self.cache.get(key)
        suspect_before = self.cache.suspect_before(key.room, self.now, EVERY)
        self.suspect_since[key.room].add(suspect_before)
        limits = self.policy.lifetimes(entry.verdict) if entry else None
        state = freshness(entry, limits, self.now, suspect_before)
        return entry, state, decide(state, permit)

    def answer_from_memory(self, key: Key, entry: Entry | None) -> None:
        assert entry is not None
        if entry.verdict is not Verdict.ALLOW:
            return
        today = self.policy.allow.fresh + max(
            self.policy.allow.stale_while_revalidate, self.policy.allow.stale_if_error
        )
        assert any(
            self.now - word.asked_at < min(word.usable_for, today)
            for word in self.words[key]
            if word.verdict is Verdict.ALLOW
        ), "let in although the backend allowed it too long ago"
        self.let_in(key)

    def let_in(self, key: Key) -> None:
        if key in self.denied_at:
            assert any(
                word.verdict is Verdict.ALLOW and word.asked_at >= self.denied_at[key] for word in self.words[key]
            ), "let in although the backend said no, and nothing else since"

    def answer_without_the_backend(self, key: Key) -> None:
        """The column of the open breaker; who is unknown there is refused."""
        entry, _, plan = self.look(key, Permit.OPEN)
        assert plan.act in (Act.ANSWER, Act.REFUSE)
        if plan.act is Act.ANSWER:
            self.answer_from_memory(key, entry)

    # ---- what happens

    @rule(seconds=st.sampled_from([0.5, 1, 1, 2, 3, 8]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(KEYS), permit=st.sampled_from([*Permit, Permit.CLOSED, Permit.CLOSED, Permit.CLOSED]))
    def somebody_wants_in(self, key: Key, permit: Permit) -> None:
        entry, _, plan = self.look(key, permit)
        asks = plan.act is Act.ASK or plan.refresh
        if permit in (Permit.PROBE_OUT, Permit.OPEN):
            assert not asks, "asked although the breaker does not permit it"
        if asks:
            self.calls.append(Call(key, self.now, plan.fallback))
        if plan.act is Act.ANSWER:
            self.answer_from_memory(key, entry)
        if permit is Permit.CLOSED and entry and entry.verdict is Verdict.ALLOW:
            masked = plan.act is Act.ANSWER or plan.fallback is Fallback.SLOW
            overdue = [at for at in self.denies[key.room] if entry.asked_at < at and self.now >= at + EVERY]
            assert not (masked and overdue), "a deny of the room was lost"

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), said=st.sampled_from(WORDS), header=st.sampled_from(HEADERS), spread=st.floats(0, 1))
    def the_backend_answers(self, data: st.DataObject, said: tuple[int, bytes], header: str, spread: float) -> None:
        call = self.end_one(data)
        outcome = classify(call.key.endpoint.kind, *said, cache_control=header)
        assert isinstance(outcome, Replied | Rejected)
        assert outcome.verdict is not None
        current = self.cache.get(call.key)
        result = settle(self.now, a_query(call.key), call.asked_at, current, outcome, self.policy, spread)
        word = Word(outcome.verdict, call.asked_at, usable_for(self.policy.lifetimes(outcome.verdict), header))
        self.words[call.key].append(word)
        if result.drop:
            self.cache.drop(call.key)
        stored = result.store
        if stored and self.cache.put(call.key, stored) and stored.verdict is Verdict.ALLOW:
            self.allowed_in.add(call.key.room)
        assert result.reply is not None
        assert result.denied is (outcome.verdict is Verdict.DENY)
        if result.denied:
            self.a_definite_deny(call.key)
            assert result.reply.verdict is Verdict.DENY
        if result.reply.verdict is Verdict.ALLOW:
            self.let_in(call.key)

    def a_definite_deny(self, key: Key) -> None:
        self.cache.suspect(key.room, self.now, EVERY)
        self.write(key)
        self.denied_at[key] = self.now
        after, _, _ = self.look(key, Permit.OPEN)
        assert after is not None
        assert after.verdict is Verdict.DENY, "an allow outlived a deny"
        if key.room not in self.ever_denied:
            for other in KEYS:
                entry, state, _ = self.look(other, Permit.CLOSED)
                if other.room == key.room and entry and entry.verdict is Verdict.ALLOW and entry.asked_at < self.now:
                    assert state in (Freshness.SUSPECT, Freshness.EXPIRED), "the room's first deny changed nothing"
        self.ever_denied.add(key.room)
        self.denies[key.room].append(self.now)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), said=st.sampled_from(GARBAGE), header=st.sampled_from(HEADERS))
    def the_backend_answers_garbage(self, data: st.DataObject, said: tuple[int, bytes], header: str) -> None:
        call = self.end_one(data)
        outcome = classify(call.key.endpoint.kind, *said, cache_control=header)
        current = self.cache.get(call.key)
        result = settle(self.now, a_query(call.key), call.asked_at, current, outcome, self.policy)
        assert (result.reply, result.store, result.drop, result.denied) == (None, None, False, False)
        self.answer_without_the_backend(call.key)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def the_backend_is_slow(self, data: st.DataObject) -> None:
        """`answer_within` is over; the question stays under way."""
        call = data.draw(st.sampled_from(self.calls))
        if call.fallback is Fallback.SLOW:
            entry, state, plan = self.look(call.key, Permit.OPEN)
            if plan.act is Act.ANSWER and state is not Freshness.SUSPECT:
                self.answer_from_memory(call.key, entry)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_question_is_lost(self, data: st.DataObject) -> None:
        self.answer_without_the_backend(self.end_one(data).key)

    @precondition(lambda self: not self.calls)
    @rule(count=st.integers(1, 12))
    def invented_rooms_are_asked_about(self, count: int) -> None:
        """They are denied at rooms that do not exist. Only denies of rooms in which nobody was allowed, and what they
        began, may give way."""
        before = self.what_strangers_cannot_evict()
        for _ in range(count):
            self.denied_users += 1
            key = a_key(f"invented {self.denied_users}", f"jid {self.denied_users}@example.org")
            self.cache.put(key, an_entry(Verdict.DENY, asked_at=self.now, lifetimes=DENY_LIFETIMES))
            self.cache.suspect(key.room, self.now, EVERY)
        assert self.what_strangers_cannot_evict() == before, "denied users evicted an entry of another user"
        self.forget_suspect_rooms(set(ROOMS) - self.allowed_in)

    def what_strangers_cannot_evict(self) -> dict[Key, Entry]:
        return {
            key: entry
            for key, entry in self.cache.items()
            if entry.verdict is not Verdict.DENY or key.room in self.allowed_in
        }

    @rule(room=st.none() | st.sampled_from(ROOMS), name=st.sampled_from([None, None, "ann@example.org", "bob"]))
    def an_operator_purges(self, room: str | None, name: str | None) -> None:
        selector = Selector(room, name)
        meant = [key for key, _ in self.cache.items() if selector.fits(key)]
        assert self.cache.purge(self.now, selector) == len(meant)
        assert not [key for key, _ in self.cache.items() if selector.fits(key)]
        self.everything_is_written()
        self.purges.append((self.now, selector))
        for key in KEYS:
            if selector.fits(key):
                self.denied_at.pop(key, None)

    @rule(lifetimes=st.sampled_from(LIFETIMES))
    def an_operator_changes_the_policy(self, lifetimes: Lifetimes) -> None:
        self.policy = a_policy(lifetimes, DENY_LIFETIMES)

    @rule()
    def everything_is_written(self) -> None:
        for key in [*self.cache.dirty]:
            self.write(key)

    @rule(backwards=st.booleans())
    def it_crashes_and_starts_again(self, backwards: bool) -> None:
        """Only what was written is left, and no question is under way any more."""
        self.cache = Cache(self.limits)
        rows = sorted(self.disk.items(), key=lambda row: row[1].settled_at, reverse=backwards)
        for key, entry in rows:
            self.cache.restore(key, entry)
        self.allowed_in = {key.room for key, entry in rows if entry.verdict is Verdict.ALLOW}
        for key in [*self.cache.dirty]:
            self.write(key)
        self.calls.clear()
        self.purges.clear()
        self.forget_suspect_rooms()
        written = [(key.room, entry.settled_at) for key, entry in rows if entry.verdict is Verdict.DENY]
        if len({room for room, _ in written}) <= self.limits.denies:
            for room, denied_at in sorted(written, key=lambda denial: denial[1]):
                if room in ROOMS:
                    self.denies[room].append(denied_at)

    def write(self, key: Key) -> None:
        if key not in self.cache.dirty:
            return
        entry = self.cache.dirty.pop(key)
        if entry is None:
            self.disk.pop(key, None)
        else:
            self.disk[key] = entry

    def end_one(self, data: st.DataObject) -> Call:
        call: Call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        return call

    def forget_suspect_rooms(self, rooms: Iterable[str] = ROOMS) -> None:
        for room in rooms:
            self.denies[room].clear()
            self.suspect_since[room].clear()

    # ---- what must be true

    def held(self) -> Iterator[tuple[Key, Entry]]:
        for key, entry in self.cache.items():
            if not key.room.startswith("invented"):
                yield key, entry

    @invariant()
    def the_cache_is_bounded(self) -> None:
        assert self.cache.count(Verdict.ALLOW) <= self.limits.allows
        assert self.cache.count(Verdict.DENY) <= self.limits.denies
        assert self.cache.count(Verdict.CONFIG) <= self.limits.configs

    @invariant()
    def no_key_is_held_twice(self) -> None:
        keys = [key for key, _ in self.cache.items()]
        assert len(keys) == len(set(keys))

    @invariant()
    def nothing_is_held_but_what_the_backend_said(self) -> None:
        for key, entry in self.held():
            if entry.verdict is Verdict.CONFIG:
                assert entry.body == CONFIG
            else:
                assert any((word.verdict, word.asked_at) == (entry.verdict, entry.asked_at) for word in self.words[key])
                assert entry.body in (
                    ALLOW if entry.verdict is Verdict.ALLOW else DENY,
                    b'{"allowed":false,"reason":null}',
                )

    @invariant()
    def nothing_usable_is_held_from_before_a_purge(self) -> None:
        for purged_at, selector in self.purges:
            for key, entry in self.held():
                if selector.fits(key) and entry.asked_at <= purged_at:
                    assert entry.lifetimes.total == 0
                    assert entry.verdict is Verdict.DENY

    @invariant()
    def a_room_is_suspect_at_most_once_per_time(self) -> None:
        for room, denies in self.denies.items():
            if denies:
                instants = [before for before in self.suspect_since[room] if before >= denies[0]]
                assert len(instants) <= (self.now - denies[0]) // EVERY + 1


TestDecisions = DecisionMachine.TestCase
TestDecisions.settings = SETTINGS
