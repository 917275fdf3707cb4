"""How many calls to the backend may be under way: a limit that follows the backend.

A backend that can do C calls at once answers each in its shortest time, the *floor*, while there are at most C; with
more, they wait in its queue and take longer. So the latency shows whether there are too many.

    block     the last calls, all sent after the last change; their medians are judged together
    raise     calls wait for a place, and the latency is near its floor: a higher limit is tried for a moment
    proven    answers to calls beyond the limit come near the floor: the limit is what is proven
    partly    answers to them come later: kept is as many as the backend did in the time of the floor
    cut       the latency is above its floor, or calls are turned away (429, 503, no answer): fewer
    take back a cut that makes the latency no shorter was wrong, as the backend is slow by itself: this is its floor now

A step is so large that the backend has worked off the excess within 0.9 s if it was wrong; after a step that was wrong
the next one is a tenth, then twice as large each time. The floor is the least median; while it has not been seen for a
while, and calls wait, the limit is a quarter lower for one block, which shows the floor again. The limit is never a few
places only.

There is no clock here: `now` is an argument. So is the latency of a call: it is the time of the backend, and not that
from taking the place to reading the answer, which is also this process's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median, pstdev
from typing import NamedTuple

START = 100
"""Calls at the same time before anything is known of the backend."""

LEAST = 16
"""The limit is never lower, unless the ceiling is."""

BLOCK = (9, 100)
"""Calls that are judged together: at least and at most; between them, half of the limit."""

OUTLIER = 4.0
"""A latency counts as no more than so many medians of its block: one call that hangs must not be the whole mean."""

ENOUGH = 0.8
"""Share of the calls of a block that must have ended to judge it."""

NEAR, FAR = 1.1, 1.2
"""Latency, as a multiple of its floor: up to the first the limit may rise, from the second on it is cut."""

EXCESS = 0.9
"""Seconds in which the backend works off what a step was too large."""

FIRST_STEP = 0.1
"""The first step after one that was wrong, as a share of the limit."""

SAFE = 0.9
"""Share that is kept of what a trial has shown that was too much."""

TURNED_AWAY = 0.1
"""Share of calls turned away from which on the limit is cut."""

SHORTEST = 0.003
"""Seconds that are added to each floor: below that, differences say nothing about the backend."""

FLOOR_LASTS = 30.0
"""Seconds after which a floor that was not seen again is measured again."""


class Cause(StrEnum):
    """Why the limit changed; the label of the metric."""

    NEAR_FLOOR = "near floor"
    ABOVE_FLOOR = "above floor"
    TURNED_AWAY = "turned away"
    CUT_WAS_WRONG = "cut was wrong"
    LOOKS_FOR_FLOOR = "looks for floor"
    PARTLY_PROVEN = "partly proven"


class Change(NamedTuple):
    """The limit changed."""

    limit: int
    cause: Cause


class Sent(NamedTuple):
    """One call that was sent."""

    number: int
    at: float
    under_way: int
    """Calls at that moment, with this one."""


class _Answered(NamedTuple):
    kind: str
    seconds: float
    under_way: int


TurnedAway = int
"""A call that was turned away: how many were under way when it was sent."""


@dataclass(slots=True)
class _Trial:
    """A cut, until it shows whether it helps."""

    before: float
    """The limit before the cut."""
    latency: float
    """In floors. 0: the cut is only to see the floor."""
    under_way: float
    """Calls, when there was that latency."""

    def was_wrong(self, latency: float, under_way: float) -> bool:
        """Whether the latency fell by less than half of what the calls did."""
        fewer = 1 - under_way / self.under_way
        return fewer > 0 and latency > self.latency * (1 - fewer / 2)


class Limit:
    """One limit for all calls to the backend. No method waits."""

    def __init__(self, ceiling: int) -> None:
        """Nothing is known of the backend."""
        self._ceiling = ceiling
        self._proven = float(min(START, ceiling))
        self._tried = 0.0
        """The higher limit, while it is being tried."""
        self._try_until = -math.inf
        self._step = math.inf
        self._trial: _Trial | None = None
        self._spread: float | None = None
        """Between the quarters of the latencies, in floors."""
        self._number = 0
        self._highest = 0
        """The most calls under way since the last change."""
        self._block = range(0)
        """The numbers of the calls that are judged next."""
        self._ended: dict[int, _Answered | TurnedAway | None] = {}
        """What came of the calls from there on. None: nothing that says anything."""
        self._floors: dict[str, float] = {}
        self._floors_seen_at = -math.inf
        self._begin()

    @property
    def ceiling(self) -> int:
        """The limit is never higher."""
        return self._ceiling

    def at(self, now: float) -> int:
        """Calls that may be under way now."""
        return int(max(self._proven, self._tried) if now < self._try_until else self._proven)

    def send(self, now: float, under_way: int) -> Sent:
        """A call is sent; so many are under way with it. It must be reported with one of the next three."""
        self._number += 1
        self._highest = max(self._highest, under_way)
        return Sent(self._number, now, under_way)

    def configure(self, ceiling: int) -> None:
        """Another ceiling from now on."""
        self._ceiling = ceiling
        self._proven = min(max(self._proven, self._least), ceiling)
        self._tried = min(self._tried, ceiling)

    def answered(
        self, now: float, sent: Sent, kind: str, seconds: float, *, still: int, waiting: bool
    ) -> Change | None:
        """A call of this kind was answered; the backend took so many seconds.

        `still`: calls that are still under way; `waiting`: whether others wait for a place.
        """
        self._floors.setdefault(kind, seconds)
        return self._ended_with(now, sent, _Answered(kind, seconds, sent.under_way), still, waiting)

    def turned_away(self, now: float, sent: Sent, *, still: int, waiting: bool) -> Change | None:
        """The backend had no time for a call: 429, 503, a broken or refused connection, no answer."""
        ended = sent.under_way if sent.under_way > self._least else None  # with so few calls, it is not their number
        return self._ended_with(now, sent, ended, still, waiting)

    def says_nothing(self, now: float, sent: Sent, *, still: int, waiting: bool) -> Change | None:
        """A call ended in a way that says nothing about how many there may be."""
        return self._ended_with(now, sent, None, still, waiting)

    @property
    def _least(self) -> int:
        return min(LEAST, self._ceiling)

    def _ended_with(
        self, now: float, sent: Sent, ended: _Answered | TurnedAway | None, still: int, waiting: bool
    ) -> Change | None:
        if sent.number < self._block.start:
            return None
        self._ended[sent.number] = ended
        cause = None
        # The calls are judged in the order in which they were sent: those that end first are the fast ones.
        while cause is None and self._is_block_full():
            block = [self._ended.pop(number, None) for number in self._block]
            self._next_block(self._block.stop)
            cause = self._judge_block(now, block, still, waiting)
        return Change(self.at(now), cause) if cause else None

    def _is_block_full(self) -> bool:
        """Whether enough of its calls have ended. One that hangs must not stop everything."""
        if len(self._ended) < ENOUGH * len(self._block):
            return False
        return sum(number in self._ended for number in self._block) >= ENOUGH * len(self._block)

    def _next_block(self, start: int) -> None:
        least, most = BLOCK
        self._block = range(start, start + int(max(least, min(most, self._proven / 2))))

    def _judge_block(
        self, now: float, block: list[_Answered | TurnedAway | None], still: int, waiting: bool
    ) -> Cause | None:
        turned_away = [each for each in block if isinstance(each, int)]
        answered = [each for each in block if isinstance(each, _Answered)]
        if len(turned_away) > TURNED_AWAY * len(block):
            taken = len(answered) / (len(answered) + len(turned_away))
            return self._cut(median(turned_away) * taken, Cause.TURNED_AWAY)
        return self._judge(now, answered, still, waiting) if len(answered) > len(block) / 2 else None

    def _judge(self, now: float, block: list[_Answered], still: int, waiting: bool) -> Cause | None:
        """Change the limit by what a block shows; returns the cause, or None."""
        under_way = median(each.under_way for each in block)
        seen = _mean([self._latency(each) for each in block])
        error = self._error(block, seen)
        trial, self._trial = self._trial, None
        if trial is not None and trial.was_wrong(seen, under_way):
            return self._take_back(now, trial, block)
        self._lower_floors(now, block, seen, error)
        near = NEAR + 3 * error
        if seen > near and under_way > self._proven:
            return self._tried_too_many(block, under_way)
        if seen > FAR + 4 * error:
            return self._too_many(now, under_way, seen)
        if now - self._floors_seen_at > FLOOR_LASTS and seen > 1.05 + error:
            return self._look_for_floor(now, block, under_way, waiting)
        if seen <= near:
            shown = max(each.under_way for each in block if self._latency(each) <= near)
            return self._near_floor(now, shown, still, waiting)
        return None

    def _latency(self, call: _Answered) -> float:
        """In floors."""
        return call.seconds / (self._floors[call.kind] + SHORTEST)

    def _error(self, block: list[_Answered], seen: float) -> float:
        """By how much the mean of a block may differ by chance, in floors: latencies differ also without load."""
        if self._spread is None:
            self._spread = pstdev(self._latency(each) for each in block[: BLOCK[0]])  # later ones may have waited
        elif seen <= NEAR:
            self._spread = 0.8 * self._spread + 0.2 * pstdev(self._latency(each) for each in block)
        return self._spread / math.sqrt(len(block))

    def _tried_too_many(self, block: list[_Answered], under_way: float) -> Cause | None:
        """What was tried is too much; what was proven is not. Calls that were sent when the most were under way had all
        others before them: their latency shows how many the backend does in the time of the floor."""
        self._step, self._tried = FIRST_STEP, 0.0
        floors = fmean(each.seconds / max(self._floors[each.kind], 0.001) for each in block)
        shown = SAFE * under_way / max(floors, 1.0)
        if shown <= self._proven or min(each.under_way for each in block) < 0.9 * self._highest:
            return None
        self._proven = min(shown, self._ceiling)
        self._begin()
        return Cause.PARTLY_PROVEN

    def _too_many(self, now: float, under_way: float, latency: float) -> Cause | None:
        if under_way <= self._proven / 2:
            return None  # with so few calls, it is not their number
        trial = _Trial(self._proven, latency, under_way)
        cause = self._cut(1.05 * under_way / latency, Cause.ABOVE_FLOOR)
        self._trial = trial
        return cause

    def _cut(self, target: float, cause: Cause) -> Cause:
        """At most by half at a time."""
        self._step, self._trial = FIRST_STEP, None
        self._proven = max(self._least, self._proven / 2, min(self._proven, target))
        self._begin()
        return cause

    def _take_back(self, now: float, trial: _Trial, block: list[_Answered]) -> Cause | None:
        self._proven = min(trial.before, self._ceiling)
        for kind in {each.kind for each in block}:
            self._floors[kind] = fmean(each.seconds for each in block if each.kind == kind)
        self._floors_seen_at = now
        self._begin()
        return Cause.CUT_WAS_WRONG

    def _lower_floors(self, now: float, block: list[_Answered], seen: float, error: float) -> None:
        for kind in {each.kind for each in block}:
            seconds = [each.seconds for each in block if each.kind == kind]
            if len(seconds) >= BLOCK[0] // 2:
                self._floors[kind] = min(self._floors[kind], fmean(seconds))
        if seen <= 1.05 + error or self._floors_seen_at == -math.inf:
            self._floors_seen_at = now

    def _look_for_floor(self, now: float, block: list[_Answered], under_way: float, waiting: bool) -> Cause | None:
        """The floor was not seen for a while. If nobody waits, the latency is not due to the number of calls."""
        trial = _Trial(self._proven, 0.0, under_way)
        if not waiting:
            self._take_back(now, trial, block)
            return None
        self._proven = max(self._least, 0.75 * self._proven)
        self._begin()
        self._trial = trial
        return Cause.LOOKS_FOR_FLOOR

    def _near_floor(self, now: float, under_way: int, still: int, waiting: bool) -> Cause | None:
        cause = None
        if under_way > self._proven:
            self._proven = min(under_way, self._ceiling)
            self._step = 2 * self._step if under_way >= 0.9 * self._tried else FIRST_STEP
            cause = Cause.NEAR_FLOOR
        # The calls that are under way must be proven before there are more.
        if waiting and under_way >= 0.75 * self._highest and still <= self._proven + 1 and self._proven < self._ceiling:
            self._try_more(now, under_way)
            cause = Cause.NEAR_FLOOR
        return cause

    def _try_more(self, now: float, under_way: float) -> None:
        floor = max(self._floors.values())
        step = min(self._step, EXCESS / max(floor, 0.001))
        base = self._proven if under_way >= 0.8 * self._proven else under_way
        self._tried = min(self._ceiling, max(base * (1 + step), base + 1, self._proven))
        self._try_until = now + max(0.05, floor / 2)
        self._begin()

    def _begin(self) -> None:
        """Judge only calls that are sent from now on."""
        self._highest = 0
        self._ended.clear()
        self._next_block(self._number + 1)


def _mean(latencies: list[float]) -> float:
    """A mean, as callers come in waves: where a tenth has to wait, the median shows nothing of it."""
    most = OUTLIER * median(latencies)
    return fmean(min(most, each) for each in latencies)
