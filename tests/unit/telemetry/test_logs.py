"""What is written, what is never written, and what happens when writing fails."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest

from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Asked, BreakerChanged, Crashed, EventParked, Fact, Notice, Reloaded, Resolved, broadcast
from sidecar.telemetry.lines import MOST_WAITING, NonBlockingOutput
from sidecar.telemetry.logs import Log, _request_fields

ANSWER = Answer(200, b'{"allowed":true,"reason":"of the body"}', Source.STALE, True, 3, detail="suspect")
REQUEST = Resolved("validate-access", 200, 0.0123, ANSWER, "standup", "5f3a", trace="00-" + "a" * 32 + "-" + "b" * 16)


STYLES: tuple[Literal["json", "console"], ...] = ("json", "console")


class FailingStream(io.StringIO):
    """Fails as long as the test wants it to."""

    failure: Exception | None = None

    def write(self, text: str) -> int:
        if self.failure is not None:
            raise self.failure
        return super().write(text)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def written(*facts: Fact, level: str = "debug") -> list[dict[str, Any]]:
    stream = io.StringIO()
    log = Log(level, "json", stream)
    for fact in facts:
        log.observe(fact)
    return lines(stream)


def test_a_request_is_one_line_that_says_who_what_and_why() -> None:
    (line,) = written(REQUEST)
    del line["timestamp"]
    assert line == {
        "event": "request",
        "level": "info",
        "endpoint": "validate-access",
        "status": 200,
        "ms": 12.3,
        "room": "standup",
        "user": "5f3a",
        "source": "stale",
        "allowed": True,
        "detail": "suspect",
        "trace": "a" * 32,
        "decisionId": "a" * 32,
    }


@pytest.mark.parametrize(
    "fact",
    [
        REQUEST,
        REQUEST._replace(room='a "b" é\n', subject="", trace=""),
        REQUEST._replace(room="r" * 1000, answer=ANSWER._replace(collapsed=True, forward_status=503, detail=None)),
        REQUEST._replace(status=503, answer=Answer(503, b"", Source.POLICY, detail="refused")),
        REQUEST._replace(answer=ANSWER._replace(allowed=False, source=Source.HIT)),
    ],
)
def test_the_short_way_to_a_line_says_what_the_long_one_does(fact: Resolved) -> None:
    (line,) = written(fact)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "request", "level": "info", **_request_fields(fact)}


def test_no_body_is_written() -> None:
    assert "of the body" not in json.dumps(written(REQUEST))


@pytest.mark.parametrize(
    ("fact", "level"),
    [
        (Asked(Endpoint.VALIDATE_ACCESS, "replied", 0.1), "debug"),
        (Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, "the backend answered 500"), "warning"),
        (Asked(Endpoint.VALIDATE_ACCESS, "misconfigured", 0.1, 401, "the backend answered 401"), "error"),
        (Asked(Endpoint.ROOM_CREATED, "unreadable", 0.1, 200, "password must be text", "standup"), "error"),
        (BreakerChanged(Endpoint.VALIDATE_ACCESS, "open", "slow answers"), "warning"),
        (BreakerChanged(Endpoint.VALIDATE_ACCESS, "closed"), "info"),
        (EventParked(Endpoint.USER_LEFT, "standup", 410, "gone"), "error"),
        (Reloaded(("sidecar.yaml:1:1: wrong",)), "error"),
        (Reloaded(), "info"),
        (Notice("ready"), "info"),
        (Crashed("call", LookupError("a defect")), "error"),
        (Resolved("other", 404, 0.001, problem="there is nothing here"), "info"),
        (Resolved("validate-access", 500, 0.001, problem="defect"), "error"),
    ],
)
def test_each_fact_has_the_level_it_deserves(fact: Fact, level: str) -> None:
    (line,) = written(fact)
    assert line["level"] == level
    assert (written(fact, level="error") != []) is (level == "error")


def test_a_defect_is_written_with_its_traceback() -> None:
    try:
        raise LookupError("a defect")
    except LookupError as error:
        (line,) = written(Crashed("call", error))
    assert "Traceback" in line["exception"]
    assert "a defect" in line["exception"]


@pytest.mark.parametrize(
    "fact",
    [
        Resolved("validate-access", 400, 0.1, room="r" * 1023, subject="s" * 3000, problem="p" * 3000),
        Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, "x" * 3000, room="r" * 1023),
        EventParked(Endpoint.USER_LEFT, "r" * 1023, 410, "x" * 3000),
        BreakerChanged(Endpoint.VALIDATE_ACCESS, "open", "x" * 3000),
    ],
)
def test_texts_of_strangers_are_capped(fact: Fact) -> None:
    (line,) = written(fact)
    assert max(len(str(value)) for value in line.values()) <= 301


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), BrokenPipeError(), ValueError("I/O operation on closed file")]
)
def test_a_stream_that_fails_stops_nobody_and_the_lost_lines_are_counted(failure: Exception) -> None:
    stream = FailingStream()
    log = Log("info", "json", stream)
    stream.failure = failure
    for _ in range(3):
        log.observe(Notice("lost"))
    stream.failure = None
    log.observe(Notice("back"))
    assert lines(stream)[0]["event"] == "back"
    assert lines(stream)[1]["event"] == "lines of this log could not be written"
    assert lines(stream)[1]["lost"] >= 3
    log.observe(Notice("and on"))
    assert len(lines(stream)) == 3


def test_a_reader_that_is_stuck_is_not_waited_for_and_gets_only_whole_lines() -> None:
    reading, writing = os.pipe()
    log = Log("info", "json", NonBlockingOutput(writing))
    for number in range(3000):
        log.observe(Notice(f"{number:04} " + "x" * 100))
    got = b""
    while len(got) < 200_000 and b'"lost"' not in got:  # the reader wakes up
        got += os.read(reading, 65536)
        log.observe(Notice("more"))
    lines = [json.loads(line) for line in got.split(b"\n")[:-1]]
    assert [line["event"][:4] for line in lines[:300]] == [f"{number:04}" for number in range(300)]
    assert next(line["lost"] for line in lines if "lost" in line) > 2000
    os.close(reading)
    os.close(writing)


def test_a_terminal_that_knows_only_ascii_gets_any_room_name() -> None:
    raw = io.BytesIO()
    log = Log("info", "json", io.TextIOWrapper(raw, encoding="ascii"))
    log.observe(Resolved("validate-access", 200, 0.1, ANSWER, room="会議"))
    assert b"\\u4f1a" in raw.getvalue()


def test_a_new_line_in_a_name_makes_no_new_line_in_the_log() -> None:
    for style in STYLES:
        stream = io.StringIO()
        log = Log("info", style, stream)
        log.observe(Resolved("validate-access", 200, 0.1, ANSWER, room="a\n2026-01-01 [error] forged"))
        assert stream.getvalue().count("\n") == 1


def test_level_and_form_change_while_running() -> None:
    stream = io.StringIO()
    log = Log("error", "json", stream)
    log.observe(Notice("one"))
    log.configure("info", "console")
    log.observe(Notice("two"))
    assert "one" not in stream.getvalue()
    assert "two" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


class CountingStream(io.StringIO):
    """Counts the writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


async def test_the_lines_of_one_turn_of_the_loop_are_one_write() -> None:
    stream = CountingStream()
    log = Log("info", "json", stream)
    for number in range(5):
        log.observe(REQUEST._replace(room=f"room-{number}"))
    assert stream.writes == 0
    await asyncio.sleep(0)
    assert stream.writes == 1
    assert [line["room"] for line in lines(stream)] == [f"room-{number}" for number in range(5)]


@pytest.mark.parametrize(
    "fact",
    [
        REQUEST._replace(answer=ANSWER._replace(allowed=False)),
        REQUEST._replace(status=500, answer=None, problem="defect"),
        Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, "the backend answered 500"),
        Notice("stopped"),
    ],
)
async def test_denies_and_errors_are_written_at_once_after_what_waits(fact: Fact) -> None:
    stream = CountingStream()
    log = Log("info", "json", stream)
    log.observe(REQUEST)
    log.observe(fact)
    assert len(lines(stream)) == 2
    assert lines(stream)[0]["room"] == "standup"


async def test_only_so_many_lines_wait() -> None:
    stream = CountingStream()
    log = Log("info", "json", stream)
    for _ in range(MOST_WAITING + 1):
        log.observe(REQUEST)
    assert len(lines(stream)) == MOST_WAITING + 1


async def test_lines_that_wait_for_a_stream_that_fails_are_each_counted() -> None:
    stream = FailingStream()
    log = Log("info", "json", stream)
    stream.failure = OSError(28, "No space left on device")
    for _ in range(3):
        log.observe(REQUEST)
    await asyncio.sleep(0)
    stream.failure = None
    log.observe(REQUEST)
    await asyncio.sleep(0)
    assert [line.get("lost") for line in lines(stream)] == [None, 3]


def test_an_observer_that_fails_keeps_no_fact_from_the_others() -> None:
    seen: list[Fact] = []

    def fails(fact: Fact) -> None:
        raise RuntimeError

    broadcast(seen.append, fails, seen.append)(Notice("x"))
    assert seen == [Notice("x"), Notice("x")]


@pytest.mark.parametrize("style", STYLES)
def test_the_journal_gets_the_priority_of_each_line(
    style: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log = Log("debug", style, stream)
        for level in ("debug", "info", "warning", "error"):
            log.observe(Notice("a line", level))
        stream.seek(0)
        assert [line[:3] if line.startswith("<") else "" for line in stream] == ["<7>", "", "<4>", "<3>"]


def test_what_is_not_the_journal_gets_no_priority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service's own programs inherit the variable; their output may be a file."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    with (tmp_path / "file").open("w+") as stream:
        Log("info", "json", stream).observe(Notice("a line", "warning"))
        stream.seek(0)
        assert stream.read(1) == "{"
