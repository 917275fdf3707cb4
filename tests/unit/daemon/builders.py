"""A whole sidecar at rest, built from the text of a config."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from sidecar.backend.client import Target
from sidecar.backend.guard import Guard
from sidecar.clock import Clock, SystemClock
from sidecar.config.loader import parse
from sidecar.daemon.build import Parts, build
from sidecar.daemon.current import Secrets

URL = "http://127.0.0.1:1/x"
CONFIG = f"backend: {{url: '{URL}'}}\n"

P = ParamSpec("P")
T = TypeVar("T")


async def in_this_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """In place of `asyncio.to_thread`: nothing happens beside."""
    return function(*args, **kwargs)


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


def ignore(_: str) -> None:
    """A systemd that does not listen."""


def a_sidecar(
    text: str = CONFIG,
    secrets: Secrets | None = None,
    source: Path | None = None,
    *,
    clock: Clock | None = None,
    output: TextIO | None = None,
    notify: Callable[[str], None] = ignore,
) -> Parts:
    """`output` gets its log; without it nobody does."""
    return build(
        parse(text, "f.yaml"),
        secrets or Secrets(Target(URL)),
        source,
        clock=clock or SystemClock(),
        boot="boot-1",
        notify=notify,
        output=io.StringIO() if output is None else output,
    )


def open_the_breaker(guard: Guard, now: float) -> None:
    """As many rooms fail as it takes."""
    for number in range(guard.breaker.rules.minimum_calls):
        guard.breaker.fail(now, guard.breaker.admit(now, f"room-{number}"), 0.0, None)
