"""The whole sidecar can be built anywhere: nothing is opened, read or started by that."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest
from aiohttp import web

from sidecar.backend.client import Target
from sidecar.core.model import Endpoint
from sidecar.daemon.current import Secrets
from tests.unit.builders import a_query
from tests.unit.daemon.builders import a_sidecar, open_the_breaker

TOUCHING = {"fcntl", "glob", "open", "os", "pathlib", "shutil", "socket", "sqlite3", "ssl", "subprocess"}
"""What the interpreter calls the things that reach out of the process, up to the first dot."""

HARMLESS = {("open", "/proc/stat")}
"""The library that measures the process asks the kernel how long it has been up."""


class Untouchable(Mapping[str, str]):
    """An environment that nobody may read."""

    def __getitem__(self, name: str) -> NoReturn:
        raise AssertionError(f"${name} was read")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the environment was read")

    def __len__(self) -> int:
        raise AssertionError("the environment was read")


class Watcher:
    """Notes what reaches out of the process. It cannot be removed, only switched off."""

    def __init__(self) -> None:
        self.looks = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.looks and event.partition(".")[0] in TOUCHING and (event, *arguments[:1]) not in HARMLESS:
            self.seen.append(f"{event} {arguments}")

    def __enter__(self) -> Watcher:
        self.looks = True
        return self

    def __exit__(self, *_: object) -> None:
        self.looks = False


def test_building_reads_no_file_opens_no_socket_and_needs_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", Untouchable())
        with watcher:
            a_sidecar()
    assert watcher.seen == []


def test_the_watcher_would_see_it() -> None:
    with Watcher() as watcher, open(os.devnull):
        pass
    assert any(os.devnull in each for each in watcher.seen)


def test_files_that_the_config_names_need_not_be_there() -> None:
    named = ("secret_file", "signing_key_file", "ca_file", "client_certificate", "client_key")
    backend = ", ".join(["url: 'https://127.0.0.1:1/x'", *(f"{each}: /nowhere/{each}" for each in named)])
    tokens = "listen: {token_file: /nowhere/listen}\nadmin: {token_file: /nowhere/admin}"
    parts = a_sidecar(f"state_dir: /nowhere\nbackend: {{{backend}}}\n{tokens}\n")
    assert parts.store.troubles == ()


async def test_a_breaker_that_closes_lets_waiting_events_try(
    aiohttp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def allow(_: web.Request) -> web.Response:
        return web.json_response({"allowed": True})

    app = web.Application()
    app.router.add_post("/x/validate-access", allow)
    server = await aiohttp_server(app)
    parts = a_sidecar(secrets=Secrets(Target(str(server.make_url("/x")))))
    nudges: list[str] = []
    monkeypatch.setattr(parts.delivery, "nudge", lambda: nudges.append("nudged"))
    guard, now = parts.guards[Endpoint.VALIDATE_ACCESS], parts.clock.monotonic()
    open_the_breaker(guard, now)
    guard.try_now()
    async with parts.backend:
        await guard.carry(a_query(), now + 5, guard.take_probe(parts.clock.monotonic(), "standup"))
    assert nudges == ["nudged"]
