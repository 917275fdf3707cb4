"""A backend and its callers in simulated time, to see what the concurrency limit makes of them.

run = simulate(Backend(capacity=100, seconds=0.2), arrivals=at_once(1000))
run.longest_above(120), run.last_at, run.trace()
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sidecar.core.concurrency import Limit, Sent

Seconds = Callable[[float, int], float]
"""How long a call takes that begins now, with so many being served."""


def constant(seconds: float) -> Seconds:
    return lambda now, serving: seconds


def at_once(count: int, at: float = 0.0) -> list[float]:
    return [at] * count


def evenly(per_second: float, begin: float, end: float) -> list[float]:
    return [begin + number / per_second for number in range(int((end - begin) * per_second))]


@dataclass(frozen=True)
class Backend:
    """Serves so many calls at once; the others wait in its queue. It turns calls away when its queue is full."""

    seconds: Seconds
    capacity: int = 1_000_000
    queue: int = 1_000_000


@dataclass
class Run:
    """What happened."""

    limit: Limit
    under_way: list[tuple[float, int]] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds from arrival to answer."""
    turned_away: int = 0
    given_up: int = 0
    last_at: float = 0.0

    def longest_above(self, most: int) -> float:
        """Seconds without a break for which the backend had more calls."""
        longest, since = 0.0, None
        for now, count in self.under_way:
            if count > most:
                since = now if since is None else since
                longest = max(longest, now - since)
            elif since is not None:
                longest, since = max(longest, now - since), None
        return longest

    def limit_at(self, now: float) -> int:
        return next((limit for at, limit in reversed(self.limits) if at <= now), 0)

    def under_way_at(self, now: float) -> int:
        return next((count for at, count in reversed(self.under_way) if at <= now), 0)


def simulate(backend: Backend, arrivals: Iterable[float], limit: Limit | None = None, patience: float = 1e9) -> Run:
    """`patience`: seconds after which a caller without a place gives up."""
    limit = limit or Limit(1000)
    run, numbers = Run(limit), itertools.count()
    happens: list[tuple[float, int, str, float, int]] = []
    for at in arrivals:
        heapq.heappush(happens, (at, next(numbers), "arrives", at, 0))
    waiting: deque[float] = deque()
    queue: deque[tuple[float, int, float]] = deque()
    held = serving = 0

    sent: dict[int, Sent] = {}

    def send(now: float, arrived: float) -> None:
        nonlocal held, serving
        held += 1
        number = next(numbers)
        sent[number] = limit.send(now, held)
        if serving >= backend.capacity and len(queue) >= backend.queue:
            heapq.heappush(happens, (now + 0.001, number, "turned away", arrived, number))
        elif serving < backend.capacity:
            serving += 1
            heapq.heappush(happens, (now + backend.seconds(now, serving), number, "served", arrived, number))
        else:
            queue.append((arrived, number, now))

    while happens:
        now, _, what, arrived, number = heapq.heappop(happens)
        if what == "arrives":
            waiting.append(arrived)
        else:
            call = sent.pop(number)
            if what == "served":
                serving -= 1
                if queue:
                    next_arrived, next_number, _ = queue.popleft()
                    serving += 1
                    heapq.heappush(
                        happens, (now + backend.seconds(now, serving), next_number, "served", next_arrived, next_number)
                    )
                limit.answered(now, call, "decision", now - call.at, still=held - 1, waiting=bool(waiting))
                run.waits.append(now - arrived)
                run.last_at = now
            else:
                limit.turned_away(now, call, still=held - 1, waiting=bool(waiting))
                run.turned_away += 1
            held -= 1
        while waiting and now - waiting[0] > patience:
            waiting.popleft()
            run.given_up += 1
        while waiting and held < limit.at(now):
            send(now, waiting.popleft())
        run.under_way.append((now, held))
        run.limits.append((now, limit.at(now)))
    return run
