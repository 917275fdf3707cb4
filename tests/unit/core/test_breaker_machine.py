"""Every history of a breaker, against a model that remembers everything and counts again each time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.breaker import HOLD_BACK, Breaker, BreakerRules, Permit, Ticket

ROOMS = st.sampled_from(["lobby", "standup", "retro", "all-hands"])
TICK = 0.25
"""All times are multiples of it, so that sums of them are exact."""

SETTINGS = settings(max_examples=80, stateful_step_count=50)


@dataclass(eq=False)
class Call:
    """One call that was let through, and what became of it."""

    ticket: Ticket
    room: str
    sent_at: float
    probe: bool
    generation: int
    reported: bool = False


@dataclass
class Model:
    """All that happened since the breaker last opened, closed, or an operator fixed something."""

    generation: int = 0
    verdicts: list[tuple[float, str, bool]] = field(default_factory=list)
    """When, which room, whether it failed."""

    def begin_again(self) -> None:
        self.generation += 1
        self.verdicts.clear()

    def should_open(self, now: float, rules: BreakerRules, calls: list[Call]) -> bool:
        window = [verdict for verdict in self.verdicts if verdict[0] >= now - rules.window]
        bad = [room for _, room, failed in window if failed]
        run: list[str] = []
        for _, room, failed in self.verdicts:
            run = [*run, room] if failed else []
        by_ratio = len(window) >= rules.minimum_calls and len(bad) >= rules.failure_ratio * len(window)
        by_run = len(run) >= rules.minimum_calls
        asked = {room for _, room, _ in window} | {
            call.room
            for call in calls
            if call.generation == self.generation and not call.reported and call.sent_at >= now - rules.window
        }
        enough = min(rules.minimum_rooms, len(asked))
        worst = sorted(set(bad), key=lambda room: (bad.count(room), sum(room == name for _, name, _ in window)))
        kept = [
            failed for _, room, failed in window if room not in worst[max(0, len(worst) + 1 - rules.minimum_rooms) :]
        ]
        by_ratio = by_ratio and kept.count(True) >= rules.failure_ratio * len(kept)
        return (by_ratio and len(set(bad)) >= enough) or (by_run and len(set(run)) >= enough)


class BreakerMachine(RuleBasedStateMachine):
    """Questions come, are answered, fail, are cancelled or vanish; time passes; an operator fixes something."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.model = Model()
        self.sent: list[Call] = []
        self.calls: list[Call] = []
        """Those that may still be reported, once or more often."""
        self.open_until: float | None = None
        self.wait_until = 0.0
        self.held_back: str | None = None
        self.probe: Call | None = None

    @initialize(
        ratio=st.sampled_from([0.25, 0.5, 1.0]), calls=st.integers(1, 6), rooms=st.integers(1, 3), cap=st.integers(4, 8)
    )
    def start(self, ratio: float, calls: int, rooms: int, cap: int) -> None:
        self.limits = BreakerRules(
            failure_ratio=ratio,
            minimum_calls=calls,
            minimum_rooms=rooms,
            window=4.0,
            slow_after=2.0,
            open_for=5.0,
            retry_after_cap=float(cap),
        )
        self.breaker = Breaker(self.limits, ["lobby", "standup", "retro", "all-hands"])

    # ---- what happens

    @rule(ticks=st.integers(1, 12))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks * TICK

    @rule(room=ROOMS)
    def somebody_asks(self, room: str) -> None:
        permit = self.expected_permit(room)
        assert self.breaker.permit(self.now, room) is permit
        if permit in (Permit.CLOSED, Permit.PROBE_FREE):
            ticket = self.breaker.admit(self.now, room)
            call = Call(ticket, room, self.now, permit is Permit.PROBE_FREE, self.model.generation)
            self.sent.append(call)
            self.calls.append(call)
            if call.probe:
                self.probe = call

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_succeeds(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        counts = self.counts(call)
        closed = self.breaker.succeed(self.now, call.ticket)
        assert closed is (counts and call.probe)
        if counts:
            self.wait_until = 0.0
            self.model.verdicts.append((self.now, call.room, False))
        if closed:
            self.model.begin_again()
            self.open_until = self.held_back = self.probe = None

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), jitter=st.sampled_from([0.0, 0.5, 1.0]), retry_after=st.none() | st.integers(0, 20))
    def a_call_fails(self, data: st.DataObject, jitter: float, retry_after: int | None) -> None:
        call = data.draw(st.sampled_from(self.calls))
        counts = self.counts(call)
        opened = self.breaker.fail(self.now, call.ticket, jitter, retry_after)
        if counts:
            self.model.verdicts.append((self.now, call.room, True))
            if retry_after is not None:
                self.wait_until = max(self.wait_until, self.now + min(retry_after, self.limits.retry_after_cap))
        expected = counts and (call.probe or self.model.should_open(self.now, self.limits, self.sent))
        assert opened is expected
        if opened:
            if call.probe:
                self.held_back = call.room
            self.model.begin_again()
            self.probe = None
            self.open_until = max(self.now + self.limits.open_for * (0.9 + 0.3 * jitter), self.wait_until)
            assert self.breaker.open_until() == self.open_until

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_is_cancelled(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.counts(call)
        self.breaker.abandon(call.ticket)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_vanishes(self, data: st.DataObject) -> None:
        """Nobody will ever report it."""
        self.calls.remove(data.draw(st.sampled_from(self.calls)))

    @rule()
    def something_was_fixed(self) -> None:
        self.breaker.try_now(self.now)
        self.model.begin_again()
        self.wait_until, self.probe = 0.0, None
        if self.open_until is not None:
            self.open_until, self.held_back = min(self.open_until, self.now), None

    # ---- what must be true

    def counts(self, call: Call) -> bool:
        """Whether a report of this call is news; from now on it is not."""
        news = call.generation == self.model.generation and not call.reported
        call.reported = True
        if call is self.probe:
            self.probe = None
        return news

    def expected_permit(self, room: str) -> Permit:
        if self.open_until is None:
            return Permit.CLOSED
        if self.now < self.open_until:
            return Permit.OPEN
        if self.probe is not None and self.now < self.probe.sent_at + self.limits.slow_after:
            return Permit.PROBE_OUT
        if room == self.held_back and self.now < self.open_until + HOLD_BACK:
            return Permit.PROBE_OUT
        return Permit.PROBE_FREE

    @invariant()
    def it_never_stays_open_longer_than_its_rules_allow(self) -> None:
        until = self.breaker.open_until()
        if until is not None:
            longest = max(1.2 * self.limits.open_for, self.limits.retry_after_cap)
            assert until <= self.now + longest

    @invariant()
    def it_is_never_wedged(self) -> None:
        """Whatever happened: if all goes well from now on, the room that asks first after the last wait closes it."""
        for room in ("lobby", "all-hands"):
            breaker = copy.deepcopy(self.breaker)
            until = breaker.open_until()
            if until is None:
                continue
            later = max(self.now, until) + max(HOLD_BACK, self.limits.slow_after)
            assert breaker.permit(later, room) is Permit.PROBE_FREE
            assert breaker.succeed(later, breaker.admit(later, room))
            assert breaker.permit(later, room) is Permit.CLOSED


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = SETTINGS
