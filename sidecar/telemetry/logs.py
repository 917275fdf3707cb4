"""Facts -> lines on standard output, JSON or for the console; one line for each request."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Literal, TextIO, assert_never

import structlog

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
)

TEXT_LIMIT = 300
"""The most characters of a text from outside in a line."""


class NonBlockingOutput:
    """A file, or the writing end of a pipe or socket. A write never waits for the reader: a log collector that hangs
    must not stop the sidecar. Lines that do not fit are lost; never a part of a line."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def write(self, line: str) -> None:
        """Write a line, or raise OSError."""
        if self._rest:
            self._write(b"")
        if self._rest:
            raise BlockingIOError
        self._write(line.encode())

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, self._rest + data)
        self._rest = (self._rest + data)[written:]  # the rest of a partly written line comes before the next line

    def flush(self) -> None:
        """Only the rest of a partly written line is kept."""

    def isatty(self) -> bool:
        """It is not a terminal."""
        return False


def _standard_output() -> TextIO | NonBlockingOutput:
    try:
        descriptor = sys.stdout.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return sys.stdout
    direct = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)
    return NonBlockingOutput(descriptor) if direct else sys.stdout


class _Lines:
    """A stream that may fail: lost lines are counted, and reported when writing works again."""

    def __init__(self, stream: TextIO | NonBlockingOutput) -> None:
        self._stream = stream
        self.lost = 0

    def msg(self, line: str) -> None:
        try:
            try:
                self._stream.write(f"{line}\n")
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "utf-8"
                self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a reader that has ended, a closed stream
            self.lost += 1

    debug = info = warning = error = msg


class Log:
    """An observer that writes lines. If its stream fails, nothing is raised."""

    def __init__(
        self, level: str, style: Literal["json", "console"], stream: TextIO | NonBlockingOutput | None = None
    ) -> None:
        """`level` is the lowest level that is written: debug, info, warning or error. No stream: standard output."""
        self._stream = _standard_output() if stream is None else stream
        self._lines = _Lines(self._stream)
        self.configure(level, style)

    def configure(self, level: str, style: Literal["json", "console"]) -> None:
        """Change level and format, also while running."""
        self._plain = style == "json"
        self._writes_info = level in ("debug", "info")
        renderer: Any = _as_json
        if style == "console":
            colours = self._stream.isatty() and not os.environ.get("NO_COLOR")
            renderer = structlog.dev.ConsoleRenderer(colors=colours, sort_keys=False)
        self._log = structlog.wrap_logger(
            self._lines,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        ).bind()  # once, not for every line

    def observe(self, fact: Fact) -> None:
        """Write one fact, at its level."""
        lines = self._lines
        lost = lines.lost
        self._write_fact(fact)
        if lost and lines.lost == lost:
            lines.lost = 0
            self._log.warning("lines of this log could not be written", lost=lost)
            lines.lost = lost if lines.lost else 0

    def _write_fact(self, fact: Fact) -> None:  # noqa: PLR0912 - one case for each kind of fact
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
                self._log.error("the shared memory has a wrong signature: is shared.key_file the same on all?")
            case SharedAsked():
                pass
            case SharedChanged():
                self._write("info" if fact.in_touch else "warning", "shared memory", fact)
            case LinkChanged():
                self._write("info" if fact.up else "warning", "link", fact)
            case Notice():
                getattr(self._log, fact.level)(fact.message)
            case Crashed():
                self._log.error(f"defect in {fact.where}: please report it with this line", exc_info=fact.error)
            case _:
                assert_never(fact)

    def _write(self, level: str, message: str, fact: Any, **changed: Any) -> None:
        fields = {name: getattr(fact, name) for name in fact.__slots__}
        fields.update(changed)
        said = {name: value for name, value in fields.items() if value not in (None, "")}
        capped = {name: _capped(value) if isinstance(value, str) else value for name, value in said.items()}
        getattr(self._log, level)(message, **capped)

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
                self._lines.msg(_usual_line(fact, fact.answer))
            return
        level = "info" if fact.status < 500 or fact.answer is not None else "error"
        getattr(self._log, level)("request", **_request_fields(fact))

    def _reloaded(self, fact: Reloaded) -> None:
        if fact.problems:
            self._log.error("reload refused, the old settings stay", problems=list(fact.problems))
        else:
            restart_only = {"needs_restart": list(fact.restart_only)} if fact.restart_only else {}
            self._log.info("reloaded", **restart_only)


_IN_DETAIL: dict[type[Fact], str] = {
    CacheControlSeen: "answer with Cache-Control",
    EventAccepted: "event accepted",
    EventDelivered: "event delivered",
    LimitChanged: "limit of calls to the backend",
    LinkIgnored: "message on a link ignored",
}

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def _as_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """The last processor. The one of structlog makes a new encoder for every line."""
    return _encode(event)


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
    """The same line for nearly all requests. With structlog, it takes as long as all the rest of a decision from the
    cache."""
    sort = answer.source, answer.allowed, answer.detail, answer.forward_status, answer.collapsed
    line = f'{_begun(fact.endpoint, fact.status, *sort)}, "ms": {fact.seconds * 1e3:.2f}'
    if fact.room:
        line += f', "room": {encode_basestring(_capped(fact.room))}'
    if fact.subject:
        line += f', "user": {encode_basestring(_capped(fact.subject))}'
    if fact.trace:
        line += f', "trace": "{fact.trace[3:35]}"'
        if fact.endpoint == Endpoint.VALIDATE_ACCESS:
            line += f', "decisionId": "{decision_id_of(fact.trace)}"'
    return f'{line}, "timestamp": "{datetime.now(UTC).isoformat()[:-6]}Z"}}'


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
