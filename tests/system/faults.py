"""`make faults`: every way a backend fails x every age of what is remembered, through real sockets.

What is expected is not written here but looked up in the tables the product itself runs on: `CLASSES` says what an
answer means, `PLANS` what follows from it, `on_unavailable` what is said when nothing is left. For each fault a backend
and a sidecar of their own are primed, the fault begins, and questions of all kinds come at an even pace; then the
backend works again, and everybody must be served.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from statistics import median
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from sidecar.core.breaker import Permit
from sidecar.core.classify import classify
from sidecar.core.model import Kind, Outcome, Rejected, Replied
from sidecar.core.policy import PLANS, Act, Fallback, Freshness, OnUnavailable
from tests.rig.answers import settings_of
from tests.rig.backend import BY_NAME, Backend
from tests.rig.faults import LOST, RESPONSES, TRUSTED, Fault, response
from tests.rig.sidecar import Reply, Sidecar
from tests.system.bursts import all_bursts
from tests.system.bursts import as_table as table_of_bursts

QUESTIONS_PER_SECOND = 30
SECONDS = 10.0
AT_ONCE = 5
"""Pairs of backend and sidecar that run side by side."""

DEADLINE = 3.0
NEVER_LATER = 4.0
"""Seconds: the deadline that is configured, and the one no answer may miss however busy the machine is."""

ROOMS = 4
OPEN_FOR = 2.0
DEFAULT_CONFIG = {"lobbyEnabled": True, "isDefault": True}

AT_ONCE_P50 = 0.010
PROBE_WAIT = 0.5
NOISE = 0.35
"""Seconds a busy machine may add to a single answer; medians get none."""

BACK_WITHIN = OPEN_FOR * 1.2 + 2.0
CALLS_SHARE = 0.2


def _lifetimes(fresh: float, swr: float, sie: float) -> dict[str, Any]:
    one = {"fresh": fresh, "stale_while_revalidate": swr, "stale_if_error": sie}
    return {"validate-access": {"allow": one, "deny": one}, "room-created": one}


def _lenient(pattern: str) -> dict[str, Any]:
    rule = {"match": pattern, **_lifetimes(0.1, 0, 0.1)}
    rule["validate-access"] = {**rule["validate-access"], "on_unavailable": "allow"}
    rule["room-created"] = {**rule["room-created"], "on_unavailable": "default"}
    return rule


LONG, SHORT = 300.0, 0.2
SETTINGS: dict[str, Any] = {
    "backend": {"connect_timeout": 2.0},
    "breaker": {"open_for": OPEN_FOR},
    "endpoints": {"validate-access": {"deadline": DEADLINE}, "room-created": {"deadline": DEADLINE}},
    "default_room_config": DEFAULT_CONFIG,
    "rooms": [
        _lenient("*-lecture-*"),
        {"match": "fresh-*", **_lifetimes(LONG, 0, LONG)},
        {"match": "suspect-*", **_lifetimes(LONG, 0, LONG)},
        {"match": "revalidate-*", **_lifetimes(SHORT, LONG, LONG)},
        {"match": "stale-*", **_lifetimes(SHORT, 0, LONG)},
        {"match": "expired-*", **_lifetimes(0.1, 0, 0.1)},
    ],
}


class Way(Enum):
    """The ways in which an answer may come about."""

    MEMORY = "memory"
    BACKEND = "backend"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of question; `truth` is what a backend that is well says."""

    state: Freshness
    kind: Kind
    truth: bool = True
    lenient: bool = False
    """Whether on_unavailable lets in, or answers the default config."""

    @property
    def known(self) -> bool:
        return self.state not in (Freshness.EXPIRED, Freshness.MISSING)

    def room(self, number: int) -> str:
        lecture = "-lecture" if self.lenient else ""
        verdict = "" if self.kind is Kind.CONFIG else "-allow" if self.truth else "-deny"
        return f"{self.state.name.lower()}{lecture}{verdict}-{number}"

    @property
    def on_unavailable(self) -> OnUnavailable:
        if not self.lenient:
            return OnUnavailable.REFUSE
        return OnUnavailable.DEFAULT if self.kind is Kind.CONFIG else OnUnavailable.ALLOW


def questions() -> Iterator[Question]:
    """All of them; those about known keys three times, as most users have been there before."""
    for state in Freshness:
        known = Question(state, Kind.DECISION).known
        for _ in range(3 if known else 1):
            yield Question(state, Kind.DECISION, truth=True)
            if state is not Freshness.SUSPECT:  # only an allow can be suspect
                yield Question(state, Kind.DECISION, truth=False)
                yield Question(state, Kind.CONFIG)
    yield Question(Freshness.MISSING, Kind.DECISION, lenient=True)
    yield Question(Freshness.MISSING, Kind.CONFIG, lenient=True)
    yield Question(Freshness.EXPIRED, Kind.DECISION, truth=False, lenient=True)


def outcome_of(fault: Fault, kind: Kind) -> Outcome | None:
    """What the backend's failing means by the published table; None: it answers, if slowly."""
    if fault in LOST:
        return LOST[fault]
    if fault in RESPONSES:
        status, body, _ = response(fault, kind)
        return classify(kind, status, body)
    return None


def acceptable(question: Question, fault: Fault) -> set[Way]:
    """The ways the tables allow, whatever the breaker's state may be at that moment."""
    outcome = outcome_of(fault, question.kind)
    decided = outcome is None or isinstance(outcome, Replied | Rejected)
    left = Way.MEMORY if PLANS[question.state, Permit.OPEN].act is Act.ANSWER else Way.POLICY
    ways: set[Way] = set()
    for permit in Permit:
        plan = PLANS[question.state, permit]
        match plan.act:
            case Act.ANSWER:
                ways.add(Way.MEMORY)
            case Act.REFUSE:
                ways.add(Way.POLICY)
            case Act.AWAIT_PROBE:
                ways.add(left)
            case Act.ASK if decided:
                # An answer that came makes the next question of the key a hit.
                ways |= {Way.BACKEND, Way.MEMORY}
            case Act.ASK:
                assert plan.fallback is Fallback.NEVER or left is Way.MEMORY
                ways.add(left)
    return ways


def way_of(reply: Reply) -> Way:
    """How this answer came about, by its own words."""
    said = reply.cache_status
    if any(f"detail={word}" in said for word in ("refused", "default", "allowed-by-policy")):
        return Way.POLICY
    return Way.MEMORY if "; hit" in said else Way.BACKEND


def is_right(question: Question, fault: Fault, room: str, reply: Reply) -> bool:
    """Whether this is what the tables say."""
    way = way_of(reply)
    if way not in acceptable(question, fault):
        return False
    if way is Way.POLICY:
        return _is_policy(question, reply)
    if question.kind is Kind.CONFIG:
        return (reply.status, reply.body) == (200, settings_of(room))
    reason = None if question.truth else f"{room} is cancelled"
    return reply.allowed is question.truth and reply.document["reason"] == reason


def _is_policy(question: Question, reply: Reply) -> bool:
    match question.on_unavailable:
        case OnUnavailable.DEFAULT:
            return reply.status == 200 and reply.document == DEFAULT_CONFIG
        case OnUnavailable.ALLOW:
            # Who was denied last, however long ago, is not waved through.
            return reply.allowed is (question.truth or question.state is Freshness.MISSING)
        case OnUnavailable.REFUSE if question.kind is Kind.DECISION:
            return reply.allowed is False and isinstance(reply.document["reason"], str)
        case OnUnavailable.REFUSE:
            problem = reply.headers.get("Content-Type", "").startswith("application/problem+json")
            return reply.status == 503 and problem and int(reply.headers["Retry-After"]) >= 1


def is_definite(question: Question, reply: Reply) -> bool:
    """A yes or a no; settings or a 503 that says when to come back."""
    if question.kind is Kind.DECISION:
        return reply.allowed is not None
    return reply.status == 200 or (reply.status == 503 and "Retry-After" in reply.headers)


@dataclass
class Part:
    """What one group of questions got."""

    asked: int = 0
    good: int = 0
    traces: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """By the sidecar's own clock: the machine may be busy with other things than answering."""
    wrong: list[str] = field(default_factory=list)

    def note(self, good: bool, trace: str, text: str) -> None:
        self.asked += 1
        self.good += good
        self.traces.append(trace)
        if not good:
            self.wrong.append(text)

    @property
    def share(self) -> float:
        return self.good / self.asked if self.asked else 0.0

    def quantile(self, part: float) -> float:
        ordered = sorted(self.seconds) or [0.0]
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


@dataclass
class Row:
    """What users got while the backend failed in one way."""

    fault: Fault
    known: Part = field(default_factory=Part)
    unknown: Part = field(default_factory=Part)
    at_once: Part = field(default_factory=Part)
    """Unknown users' answers for which nobody was asked: the breaker was open, or a probe was out."""
    while_open: list[float] = field(default_factory=list)
    """Those of them, in seconds, during which the breaker was certainly open."""
    calls: int = 0
    slowest: float = 0.0
    """Seconds of the slowest answer, by the sidecar's own clock."""
    back_after: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def questions(self) -> int:
        return self.known.asked + self.unknown.asked

    @property
    def total(self) -> bool:
        """Whether nothing could be had of the backend. One that answers in JSON that it does not accept us works."""
        return self.fault not in (Fault.NONE, Fault.UNAUTHORIZED)

    def judge(self) -> list[str]:
        """The bars that were missed."""
        missed = list(self.problems)
        for name, part in (("known", self.known), ("unknown", self.unknown)):
            if part.good != part.asked or not part.asked:
                missed.append(f"{name}: {part.good} of {part.asked}; first: {(part.wrong or ['-'])[0]}")
        if self.slowest >= NEVER_LATER:
            missed.append(f"an answer took {self.slowest:.2f} s")
        if self.total:
            if self.calls > CALLS_SHARE * self.questions:
                missed.append(f"{self.calls} calls for {self.questions} questions")
            at_once = self.at_once
            if not at_once.asked:
                missed.append("the breaker never opened")
            elif not self.while_open or median(self.while_open) > AT_ONCE_P50:
                missed.append(f"while open, half of the refusals took over {_ms(median(self.while_open or [9.9]))}")
            elif sorted(self.while_open)[int(len(self.while_open) * 0.9)] > NOISE:
                missed.append("while open, one refusal in ten was slow")
            elif at_once.quantile(0.9) > PROBE_WAIT + NOISE:
                missed.append(f"once open, one refusal in ten took {_ms(at_once.quantile(0.9))} or more")
        if self.back_after > BACK_WITHIN:
            missed.append(f"served again only {self.back_after:.1f} s after the backend was")
        return missed


async def measure(fault: Fault, seconds: float = SECONDS) -> Row:
    """One fault, on a backend and a sidecar of its own."""
    tls = fault in (Fault.TLS_UNTRUSTED, Fault.TLS_GARBLED)
    environ = {"SSL_CERT_FILE": str(TRUSTED)} if tls else {}
    row = Row(fault)
    async with Backend(BY_NAME, tls=tls) as backend, Sidecar.start(backend.url, SETTINGS, environ) as sidecar:
        await _prime(sidecar, row)
        await asyncio.sleep(SHORT * 1.5)
        backend.forget()
        await backend.goes(fault)
        await _ask_evenly(sidecar, row, seconds)
        # The backend hears later, by an event, of a room that memory answered for: that is no question.
        row.calls = sum(each.key is None for each in backend.requests)
        if fault in (Fault.REFUSED, Fault.TLS_UNTRUSTED, Fault.TLS_GARBLED):
            row.calls = int(
                sum(
                    [
                        await sidecar.metric("backend_requests_total", outcome=x)
                        for x in ("unavailable", "misconfigured")
                    ]
                )
            )
        await backend.goes(Fault.NONE)
        row.back_after = await _until_served(sidecar)
        took = {line["trace"]: line["ms"] / 1000 for line in await sidecar.logged("request") if "trace" in line}
        row.slowest = max(took.values())
        for part in (row.known, row.unknown, row.at_once):
            part.seconds = [took[trace] for trace in part.traces if trace in took]
        _sort_by_breaker(row, sidecar.log())
        if defects := await sidecar.metric("defects_total"):
            row.problems.append(f"{defects:.0f} defects: see {sidecar.folder}")
    return row


def _sort_by_breaker(row: Row, log: list[dict[str, Any]]) -> None:
    """Find the answers during which the breaker was open for certain: no probe can be out yet."""
    opened: list[tuple[str, float]] = []
    for line in log:
        at = datetime.fromisoformat(line["timestamp"]).timestamp()
        if line["event"] == "breaker" and line["state"] == "open":
            opened.append((line["endpoint"], at))
        if line["event"] == "request" and line.get("trace") in row.at_once.traces:
            seconds = line["ms"] / 1000
            since = [at - seconds - at_open for endpoint, at_open in opened if endpoint == line["endpoint"]]
            if since and since[-1] >= 0 and since[-1] + seconds < 0.9 * OPEN_FOR:
                row.while_open.append(seconds)


async def _prime(sidecar: Sidecar, row: Row) -> None:
    """Let the sidecar learn what it is to know."""

    places = asyncio.Semaphore(8)

    async def learn(question: Question, number: int) -> None:
        if question.state is Freshness.MISSING:
            return
        room = question.room(number)
        async with places:
            reply = await _ask(sidecar, question, room, _known_in(number))
            if "stored" not in reply.cache_status or reply.allowed is not _truth(question):
                row.problems.append(f"while all was well: {room}: {reply}")
            if question.state is Freshness.SUSPECT:
                await sidecar.decides(room, "deny-this-one@example.com")

    await asyncio.gather(*(learn(question, number) for question in set(questions()) for number in range(ROOMS)))


def _known_in(number: int) -> str:
    """Who is known in the rooms of this number: several users, as one who fails alone opens no breaker for others."""
    return f"known-{number}@example.com"


def _truth(question: Question) -> bool | None:
    return None if question.kind is Kind.CONFIG else question.truth


async def _ask(sidecar: Sidecar, question: Question, room: str, who: str) -> Reply:
    if question.kind is Kind.CONFIG:
        return await sidecar.configures(room)
    return await sidecar.decides(room, who)


async def _ask_evenly(sidecar: Sidecar, row: Row, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    kinds = list(questions())
    # Kinds that are neighbours in the list should not always come one after the other.
    order = itertools.cycle(kinds[0::3] + kinds[1::3] + kinds[2::3])

    async def one(question: Question, number: int) -> None:
        stranger = question.state is Freshness.MISSING
        room = question.room(number if stranger and question.kind is Kind.CONFIG else number % ROOMS)
        who = f"stranger-{number}@example.com" if stranger else _known_in(number % ROOMS)
        part = row.known if question.known else row.unknown
        try:
            reply = await _ask(sidecar, question, room, who)
        except (aiohttp.ClientError, TimeoutError) as error:
            part.note(False, "", f"{room}: {error!r}")
            return
        right = is_right(question, row.fault, room, reply) and is_definite(question, reply)
        part.note(right, reply.trace, f"{room}: {reply.status} {reply.cache_status} {reply.body[:120]!r}")
        if not question.known and not reply.asked and way_of(reply) is Way.POLICY:
            row.at_once.note(True, reply.trace, "")

    begun = loop.time()
    tasks: list[asyncio.Task[None]] = []
    while len(tasks) < seconds * QUESTIONS_PER_SECOND:
        tasks.append(asyncio.create_task(one(next(order), next(numbers))))
        # On a machine that is busy it takes longer; what was missed is not made up for in a burst.
        await asyncio.sleep(max(0.01, begun + len(tasks) / QUESTIONS_PER_SECOND - loop.time()))
    await asyncio.gather(*tasks)


async def _until_served(sidecar: Sidecar) -> float:
    """Seconds until strangers get the backend's word again, on both endpoints."""
    begun = time.monotonic()
    for number in itertools.count():
        decision, config = await asyncio.gather(
            sidecar.decides(f"after-deny-{number}", "new@example.com"), sidecar.configures(f"after-{number}")
        )
        passed = time.monotonic() - begun
        served = decision.asked and decision.document["reason"] == f"after-deny-{number} is cancelled"
        if (served and config.status == 200 and config.asked) or passed > 3 * BACK_WITHIN:
            return passed
        await asyncio.sleep(0.05)
    raise AssertionError


async def matrix(faults: Sequence[Fault], seconds: float = SECONDS, say: Any = None) -> list[Row]:
    """All these faults, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(fault: Fault) -> Row:
        async with places:
            row = await measure(fault, seconds)
            if say is not None:
                say(row)
            return row

    return list(await asyncio.gather(*(one(fault) for fault in faults)))


def as_table(rows: Sequence[Row]) -> Table:
    """One line per fault."""
    table = Table(title="What users get while the backend fails", title_justify="left", pad_edge=False)
    for name in (
        "backend",
        "known: right",
        "p50",
        "p99",
        "unknown: definite",
        "p50",
        "p99",
        "open: p50",
        "probe out: max",
    ):
        table.add_column(name, justify="left" if name == "backend" else "right")
    table.add_column("calls/questions", justify="right")
    table.add_column("back after", justify="right")
    for row in rows:
        cells = [row.fault.value]
        for part in (row.known, row.unknown):
            cells += [f"{part.share:.0%} of {part.asked}", _ms(part.quantile(0.5)), _ms(part.quantile(0.99))]
        at_once = row.at_once
        cells += [_ms(median(row.while_open)) if row.while_open else "-"]
        cells += [_ms(at_once.quantile(1.0)) if at_once.asked else "-"]
        cells += [f"{row.calls}/{row.questions}", f"{row.back_after:.1f} s"]
        table.add_row(*cells, style="red" if row.judge() else None)
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def main() -> int:
    """Print the table; 1 if a bar was missed."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.split("\n")[0])
    parser.add_argument("faults", nargs="*", help="only these; by default all of them")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of questions for each (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON too")
    arguments = parser.parse_args()
    wanted = [fault for fault in Fault if not arguments.faults or fault.name.lower() in arguments.faults]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of connections at both ends
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    begun = time.monotonic()
    rows = asyncio.run(
        matrix(wanted, arguments.seconds, lambda row: console.print(f"{row.fault.value}: {row.judge() or 'held'}"))
    )
    console.print(as_table(rows))
    bursts = [] if arguments.faults else asyncio.run(all_bursts())
    if bursts:
        console.print(table_of_bursts(bursts))
    missed = [(row.fault.value, miss) for row in rows for miss in row.judge()]
    missed += [(burst.name, miss) for burst in bursts for miss in burst.judge()]
    for name, miss in missed:
        console.print(f"[red]{name}: {miss}[/red]")
    if arguments.json:
        print(json.dumps({row.fault.value: {"known": row.known.share, "unknown": row.unknown.share} for row in rows}))
    console.print(
        f"{len(rows)} faults and {len(bursts)} bursts in {time.monotonic() - begun:.0f} s, {len(missed)} bars missed"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
