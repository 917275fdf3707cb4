"""Facts -> lines on standard output, JSON or for the console; one line for each request."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Literal, TextIO, assert_never

from sidecar.clock import Clock, SystemClock
from sidecar.core.answers import decision_id_of
from sidecar.core.model import Answer, Endpoint
from sidecar.facts import (
    Asked,
    BreakerChanged,
    CacheControlSeen,
    Crashed,
    DiskChanged,
    EventAccepted,
    EventDelivered,
    EventParked,
    Fact,
    Intruder,
    LimitChanged,
    LinkChanged,
    LinkIgnored,
    Notice,
    OrderEnded,
    OrderTaken,
    OutboxChanged,
    Reloaded,
    Resolved,
    SharedAsked,
    SharedChanged,
    StrangersChanged,
)
from sidecar.telemetry.lines import PRIORITIES, Lines, NonBlockingOutput, is_the_journal, standard_output

TEXT_LIMIT = 300
"""The most characters of a text from outside in a line."""


class Log:
    """An observer that writes lines. If its stream fails, nothing is raised."""

    def __init__(
        self,
        level: str,
        style: Literal["json", "console"],
        stream: TextIO | NonBlockingOutput | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`level` is the lowest level that is written: debug, info, warning or error. No stream: standard output."""
        self._clock = SystemClock() if clock is None else clock
        self._second = -1
        self._date = ""
        """That second, as in a line."""
        self._stream = standard_output() if stream is None else stream
        self._marks = PRIORITIES if is_the_journal(self._stream, os.environ) else {}
        self._lines = Lines(self._stream, self._lost)
        self.configure(level, style)

    def configure(self, level: str, style: Literal["json", "console"]) -> None:
        """Change level and format, also while running."""
        self._plain = style == "json"
        self._levels = _LEVELS[_LEVELS.index(level) :]
        self._writes_info = "info" in self._levels
        self._render = _encode if self._plain else _for_a_console(self._stream)

    def observe(self, fact: Fact) -> None:  # noqa: PLR0912 - one case for each kind of fact
        """Write one fact, at its level."""
        match fact:
            case Resolved():
                self._resolved(fact)
            case Asked():
                self._asked(fact)
            case BreakerChanged():
                self._write("info" if fact.state == "closed" else "warning", "breaker", fact)
            case CacheControlSeen() | EventAccepted() | EventDelivered() | LimitChanged() | LinkIgnored():
                self._write("debug", _IN_DETAIL[type(fact)], fact)
            case EventParked():
                self._write("error", "event parked: see `prosody-sidecar outbox list`", fact)
            case OutboxChanged():
                self._write("error" if fact.full else "info", "outbox", fact)
            case OrderTaken() | OrderEnded() | Intruder():
                self._order(fact)
            case DiskChanged():
                self._write("info" if fact.usable else "error", "state on disk", fact)
            case Reloaded():
                self._reloaded(fact)
            case SharedAsked(outcome="forged"):
                self._say("error", "the shared memory has a wrong signature: is shared.key_file the same on all?")
            case SharedAsked():
                pass
            case SharedChanged():
                self._write("info" if fact.in_touch else "warning", "shared memory", fact)
            case StrangersChanged(strangers=0):
                self._say("info", "shared memory: all sidecars have the same key and the same domains")
            case StrangersChanged():
                self._say("error", f"shared memory: {fact.advice}")
            case LinkChanged():
                self._write("info" if fact.up else "warning", "link", fact)
            case Notice():
                self._say(fact.level, fact.message)
            case Crashed():
                trace = "".join(traceback.format_exception(fact.error)).rstrip()
                self._say("error", f"defect in {fact.where}: please report it with this line", exception=trace)
            case _:
                assert_never(fact)

    def _write(self, level: str, message: str, fact: Any, **changed: Any) -> None:
        if level not in self._levels:
            return
        fields = fact._asdict()
        fields.update(changed)
        said = {name: value for name, value in fields.items() if value not in (None, "")}
        capped = {name: _capped(value) if isinstance(value, str) else value for name, value in said.items()}
        self._say(level, message, **capped)

    def _say(self, level: str, message: str, **fields: Any) -> None:
        if level in self._levels:
            self._lines.now(self._rendered(level, message, fields))

    def _rendered(self, level: str, message: str, fields: dict[str, Any]) -> str:
        return self._marks.get(level, "") + self._render(self._event(level, message, fields))

    def _lost(self, number: int) -> str:
        message = "lines of this log could not be written"
        return self._rendered("warning", message, {"lost": number})

    def _event(self, level: str, message: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"event": message, "level": level, **fields, "timestamp": self._now()}

    def _now(self) -> str:
        wall = self._clock.wall()
        second = int(wall)
        if second != self._second:
            self._second, self._date = second, datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        return f"{self._date}.{int((wall - second) * 1e6):06d}Z"

    def _order(self, fact: OrderTaken | OrderEnded | Intruder) -> None:
        match fact:
            case OrderTaken():
                self._write("info", "order taken", fact)
            case OrderEnded():
                level = "info" if fact.result in ("done", "absent") else "warning"
                self._write(level, "order ended", fact, seconds=round(fact.seconds, 4))
            case Intruder():
                self._write("warning", "a request to the control listener had no valid token or signature", fact)

    def _asked(self, fact: Asked) -> None:
        level = {"misconfigured": "error", "unreadable": "error", "unavailable": "warning"}.get(fact.outcome, "debug")
        message = "backend"
        if fact.reason and fact.outcome in ("replied", "rejected"):
            level, message = "warning", "a part of this answer is not used"
        if fact.outcome == "unreadable":
            message = "the config of this room is not used, because a setting that protects it cannot be read"
        self._write(level, message, fact, seconds=round(fact.seconds, 4))

    def _resolved(self, fact: Resolved) -> None:
        if fact.answer is not None and not fact.problem and self._plain:
            if self._writes_info:
                write = self._lines.now if fact.answer.allowed is False else self._lines.soon
                write(f'{_usual_line(fact, fact.answer)}, "timestamp": "{self._now()}"}}')
            return
        level = "info" if fact.status < 500 or fact.answer is not None else "error"
        self._say(level, "request", **_request_fields(fact))

    def _reloaded(self, fact: Reloaded) -> None:
        if fact.problems:
            self._say("error", "reload refused, the old settings stay", problems=list(fact.problems))
        else:
            restart_only = {"needs_restart": list(fact.restart_only)} if fact.restart_only else {}
            self._say("info", "reloaded", **restart_only)


_IN_DETAIL: dict[type[Fact], str] = {
    CacheControlSeen: "answer with Cache-Control",
    EventAccepted: "event accepted",
    EventDelivered: "event delivered",
    LimitChanged: "limit of calls to the backend",
    LinkIgnored: "message on a link ignored",
}

_LEVELS = ("debug", "info", "warning", "error")

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def _for_a_console(stream: TextIO | NonBlockingOutput) -> Callable[[dict[str, Any]], str]:
    """Makes lines for people. The library is loaded only here: with what it loads, it takes 4 MB."""
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415

    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    render = ConsoleRenderer(colors=colours, sort_keys=False)
    return lambda event: str(render(None, "", event))


def _request_fields(fact: Resolved) -> dict[str, Any]:
    """The fields in the line of a request."""
    said: dict[str, Any] = {"endpoint": fact.endpoint, "status": fact.status}
    if fact.answer is not None:
        said |= _way(fact.answer)
    said |= {"ms": round(fact.seconds * 1e3, 2), "room": _capped(fact.room), "user": _capped(fact.subject)}
    said |= {"problem": _capped(fact.problem), "trace": fact.trace[3:35]}
    if fact.endpoint == Endpoint.VALIDATE_ACCESS:
        said["decisionId"] = decision_id_of(fact.trace)
    return {name: value for name, value in said.items() if value not in (None, "")}


def _way(answer: Answer) -> dict[str, Any]:
    way = {"source": str(answer.source), "allowed": answer.allowed, "detail": answer.detail}
    return way | {"backend_status": answer.forward_status, "collapsed": answer.collapsed or None}


def _usual_line(fact: Resolved, answer: Answer) -> str:
    """The line for nearly all requests, without its end. With a dictionary of its fields, it takes as long as all the
    rest of a decision from the cache."""
    endpoint, status, seconds, _, room, subject, _, trace = fact
    _, _, source, allowed, _, _, forward_status, _, collapsed, detail, _ = answer
    begun = _begun(endpoint, status, source, allowed, detail, forward_status, collapsed)
    who = f', "room": {encode_basestring(_capped(room))}' if room else ""
    if subject:
        who += f', "user": {encode_basestring(_capped(subject))}'
    if trace:
        name = decision_id_of(trace)
        who += f', "trace": "{name}", "decisionId": "{name}"' if endpoint == _DECISION else f', "trace": "{name}"'
    return f'{begun}, "ms": {seconds * 1e3:.2f}{who}'


_DECISION = Endpoint.VALIDATE_ACCESS


@lru_cache(maxsize=1000)
def _begun(endpoint: str, status: int, *sort: Any) -> str:
    """The beginning of the line, the same for all requests with this result."""
    source, allowed, detail, forward_status, collapsed = sort
    answer = Answer(status, b"", source, allowed, forward_status=forward_status, collapsed=collapsed, detail=detail)
    fields = _request_fields(Resolved(endpoint, status, 0.0, answer))
    del fields["ms"]
    return _encode({"event": "request", "level": "info", **fields})[:-1]


def _capped(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"
