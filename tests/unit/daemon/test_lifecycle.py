"""The parts are started in order and stopped in reverse, and nothing is left behind where that fails."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import pytest

from sidecar.backend.client import Backend
from sidecar.daemon.build import Parts
from sidecar.daemon.lifecycle import Daemon
from sidecar.decisions.write_behind import WriteBehind
from sidecar.errors import DiskError, StartError
from sidecar.events.backlog import Backlog
from sidecar.events.delivery import Delivery
from sidecar.events.outbox import Outbox
from sidecar.store import Store
from tests.unit.daemon.builders import URL, a_sidecar, ignore
from tests.unit.disk import until

P = ParamSpec("P")
T = TypeVar("T")

CONFIG = f"state_dir: null\nlisten: {{port: 0}}\nadmin: {{port: 0}}\nbackend: {{url: '{URL}'}}\n"


class Recorder:
    """Any part; it writes down when it is started and stopped."""

    def __init__(self, name: str, said: list[str], fails: Exception | None = None) -> None:
        self._name = name
        self._said = said
        self._fails = fails

    async def __aenter__(self) -> None:
        self._said.append(f"{self._name} starts")

    async def __aexit__(self, *_: object) -> None:
        self._said.append(f"{self._name} ends")

    async def run(self) -> None:
        self._said.append(f"{self._name} starts")
        if self._fails is not None:
            raise self._fails
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self._said.append(f"{self._name} ends")
        raise DiskError("the disk is full")

    async def flush(self) -> None:
        self._said.append(f"{self._name} is flushed")

    async def counted(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def denies_read(self, within: float) -> None:
        await asyncio.sleep(0)
        self._said.append(f"{self._name} has read the denies")


def recorded(parts: Parts, said: list[str], fails: Exception | None = None) -> Parts:
    def part(name: str, fails: Exception | None = None) -> Any:
        return Recorder(name, said, fails)

    return replace(
        parts,
        store=cast("Store", part("store")),
        backend=cast("Backend", part("backend")),
        memory=cast("WriteBehind", part("memory", fails)),
        delivery=cast("Delivery", part("delivery")),
        outbox=cast("Outbox", part("outbox")),
        backlog=cast("Backlog", part("backlog")),
    )


async def test_what_was_started_is_stopped_in_reverse_though_the_disk_fails() -> None:
    said: list[str] = []
    parts = recorded(a_sidecar(CONFIG, notify=said.append), said)
    daemon = Daemon(parts, {}, {}, said.append)
    serving = asyncio.create_task(daemon.serve())
    await until(lambda: "READY=1" in said)
    assert parts.health.serving
    daemon.stop()
    await serving
    assert [each for each in said if not each.startswith("STATUS=")] == [
        "store starts",
        "backend starts",
        "memory starts",
        "delivery starts",
        "memory has read the denies",
        "READY=1",
        "STOPPING=1\nSTATUS=Stopping: answering what is under way",
        "delivery ends",
        "outbox is flushed",
        "memory ends",
        "backend ends",
        "store ends",
    ]
    assert not parts.health.serving


async def test_an_engine_that_fails_ends_the_daemon_and_says_so() -> None:
    output = io.StringIO()
    parts = recorded(a_sidecar(CONFIG, output=output), [], fails=ZeroDivisionError())
    await Daemon(parts, {}, {}, ignore).serve()
    events = [json.loads(line)["event"] for line in output.getvalue().splitlines()]
    assert "defect in engine: please report it with this line" in events
    assert events[-1] == "stopped"


async def test_where_a_port_is_taken_everything_that_was_started_ends() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = CONFIG.replace("listen: {port: 0}", f"listen: {{port: {taken.getsockname()[1]}}}")
        parts = recorded(a_sidecar(config), said)
        with pytest.raises(StartError, match="is another sidecar running, or the port taken"):
            await Daemon(parts, {}, {}, said.append).serve()
    assert said[-2:] == ["backend ends", "store ends"]
    assert "READY=1" not in said


async def test_systemd_is_told_of_a_reload_only_where_there_is_a_file_to_read() -> None:
    said: list[str] = []
    Daemon(a_sidecar(CONFIG), {}, {}, said.append).reload()
    assert said == []


async def test_a_reload_before_the_listeners_are_open_waits_for_them(tmp_path: Path) -> None:
    said: list[str] = []
    source = tmp_path / "f.yaml"
    source.write_text(CONFIG)
    daemon = Daemon(recorded(a_sidecar(CONFIG, source=source), said), {}, {}, said.append)
    daemon.reload()
    assert said == []
    serving = asyncio.create_task(daemon.serve())
    await until(lambda: said.count("READY=1") == 2)
    ready = said.index("READY=1")
    assert said[ready - 1] == "memory has read the denies"
    assert [each.partition("\n")[0] for each in said[ready : ready + 3]] == ["READY=1", "RELOADING=1", "READY=1"]
    daemon.stop()
    daemon.reload()
    await serving
    assert sum(each.startswith("RELOADING=1") for each in said) == 1


async def test_a_reload_that_is_asked_for_during_another_one_comes_after_it(tmp_path: Path) -> None:
    said: list[str] = []
    source = tmp_path / "f.yaml"
    source.write_text(CONFIG)

    async def asked_for_again(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if said.count("READY=1") == 1:
            daemon.reload()
            daemon.reload()
            await asyncio.sleep(0)
        return function(*args, **kwargs)

    parts = recorded(a_sidecar(CONFIG, source=source), [])
    daemon = Daemon(parts, {}, {}, said.append, in_thread=asked_for_again)
    daemon.reload()
    serving = asyncio.create_task(daemon.serve())
    await until(lambda: said.count("READY=1") == 3)
    daemon.stop()
    await serving
    words = [each.partition("\n")[0].partition("=")[0] for each in said]
    assert [word for word in words if word in ("READY", "RELOADING")] == ["READY", *2 * ["RELOADING", "READY"]]
