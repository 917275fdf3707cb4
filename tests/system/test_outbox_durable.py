"""kill -9 does not test a sync: the kernel's cache survives it. What does is the order of system calls, as strace sees
them: before the 202 of an event leaves, what the event was written to has been synced, and after it was written."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from tests.rig.answers import allow_if, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
RESUMED = re.compile(r"^(?:\[pid +\d+\] |(?P<pid>\d+) +)<\.\.\. (?P<name>\w+) resumed>.*= (?P<result>-?\d+)")
UNFINISHED = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; `began` and `ended` are lines of the trace."""

    name: str
    arguments: str
    began: int
    ended: int


def calls(trace: str) -> list[Call]:
    """What the process did, with calls that overlap put together again."""
    open_calls: dict[str, tuple[str, str, int]] = {}
    seen = []
    for number, line in enumerate(trace.splitlines()):
        if unfinished := UNFINISHED.match(line):
            open_calls[unfinished["pid"]] = (unfinished["name"], unfinished["arguments"], number)
        elif resumed := RESUMED.match(line):
            name, arguments, began = open_calls.pop(resumed["pid"])
            seen.append(Call(name, arguments, began, number))
        elif call := CALL.match(line):
            seen.append(Call(call["name"], call["arguments"], number, number))
    return seen


def strace(trace: Path) -> list[str]:
    """A command that runs another and writes its system calls down, with the names of files."""
    return ["strace", "-f", "-qq", "-y", "-s", "300", "-o", str(trace), "-e", "trace=pwrite64,fdatasync,fsync,sendto"]


def is_synced_before(answer: Call, seen: list[Call], log: str, since: int = 0) -> bool:
    """Whether the last write to that file before the answer was followed by a sync of it, before the answer too."""
    written = [call for call in seen if call.name == "pwrite64" and log in call.arguments]
    written = [call for call in written if since < call.began and call.ended < answer.began]
    assert written, f"nothing was written to {log} before the answer"
    syncs = [call for call in seen if call.name in ("fsync", "fdatasync") and log in call.arguments]
    return any(written[-1].ended < sync.began and sync.ended < answer.began for sync in syncs)


async def test_an_event_is_synced_before_its_202_leaves(backend: Backend, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    backend.on("user-joined", reply({}, status=503))
    async with Sidecar.prepared(backend.url, on_disk=True) as sidecar:
        await sidecar.run(under=strace(trace))
        for number in range(5):
            assert (await sidecar.event("user-joined", "r", n=number)).status == 202
        await sidecar.stop()
    seen = calls(trace.read_text(errors="replace"))
    answers = [call for call in seen if call.name == "sendto" and "HTTP/1.1 202" in call.arguments]
    assert len(answers) == 5
    since = 0
    for answer in answers:
        assert is_synced_before(answer, seen, "outbox.db-wal", since)
        since = answer.ended


async def test_a_deny_is_synced_before_it_is_answered(backend: Backend, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    backend.on("validate-access", allow_if(lambda body: body["roomName"] == "open"))
    async with Sidecar.prepared(backend.url, on_disk=True) as sidecar:
        await sidecar.run(under=strace(trace))
        assert (await sidecar.decides("open", "ann@example.com")).allowed is True
        await asyncio.sleep(0.5)  # the allow is on disk
        assert (await sidecar.decides("cancelled", "ann@example.com")).allowed is False
        await sidecar.stop()
    seen = calls(trace.read_text(errors="replace"))
    (deny,) = [
        call for call in seen if "prosody-sidecar; fwd=miss" in call.arguments and "cancelled" not in call.arguments
    ][1:]
    assert is_synced_before(deny, seen, "decisions.db-wal")
