"""One row: break, wait until it is said, cure, wait until users are let in; and the table in docs/failures.md."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.rig.backend import Backend

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
QUICK: Mapping[str, Any] = {"outbox": {"backoff_cap": 0.5}, "breaker": {"open_for": 1}}
"""Settings, so that no row has to wait for long."""

WITHIN = 60.0
"""Seconds for a failure to be said, and for a cure to work, on a busy machine."""


class Place(Protocol):
    """One sidecar and its backend, somewhere; users come all the time."""

    backend: Backend

    def config(self) -> str:
        """The text of the config file."""
        ...

    def write_config(self, text: str) -> None:
        """Replace the config file."""
        ...

    def write_secret(self, text: str) -> None:
        """Replace the file that SECRET stands for in the settings of a row."""
        ...

    async def pass_secret(self, text: str) -> None:
        """Start the sidecar again, with this secret as a credential of systemd."""
        ...

    async def reload(self) -> None:
        """As `systemctl reload` does; it may be refused."""
        ...

    async def command(self, *arguments: str) -> tuple[int, str]:
        """A command of the sidecar: its exit code, and what it prints."""
        ...

    async def one_more_user(self) -> bool:
        """Whether a user who has not been here before is let in."""
        ...

    async def status(self) -> dict[str, Any]:
        """What `status` shows; nothing while there is no daemon."""
        ...

    async def shows(self, where: str) -> str:
        """What an operator reads there: one of the keys of WORDS."""
        ...


WORDS = {
    "status": "`status`",
    "status fails": "`status`",
    "start": "start",
    "log": "the log",
    "check": "`check`",
    "doctor": "`doctor`",
    "outbox list": "`outbox list`",
    "systemctl": "`systemctl`",
    "dpkg": "`dpkg`",
    "nothing": "–",
}
"""Where something is said, and how the page names it."""

Run = Callable[[Any], AsyncGenerator[None]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, and the run that produces it, waits (`yield`), and cures it."""

    name: str
    where: str
    """What says it first: a key of WORDS."""
    says: str
    """A part of what is said."""
    cure: str
    """What the operator does, in Markdown."""
    run: Run
    settings: dict[str, Any] = field(default_factory=dict)
    """SECRET and CA in it stand for the files with the secret and with the backend's certificate."""
    disk: str = ""
    """The kind of file system that `state_dir` is on, if it is one of its own."""
    tls: bool = False
    noted_only: bool = False
    """It does not keep users out."""
    always: bool = False
    """It is also run where only a part of the rows is, for time."""


class Rows(list[Failure]):
    """The rows of one file, in their order."""

    def add(self, name: str, where: str, says: str, cure: str, **more: Any) -> Callable[[Run], Run]:
        """Registers a run."""

        def register(run: Run) -> Run:
            self.append(Failure(name, where, says, cure, run, **more))
            return run

        return register


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds until it was said, and until users were let in again."""

    said_after: float
    cured_after: float


async def produce(it: Failure, place: Place) -> Result:
    """Run one row. Raises AssertionError where it is not said, or where the cure does not work."""
    assert await place.one_more_user()
    steps = it.run(place)
    begun = time.monotonic()
    await anext(steps)
    said_after = await _until(begun, place, lambda: _is_said(it, place), f"{it.where} does not say {it.says!r}", it)
    begun = time.monotonic()
    await anext(steps)
    cured_after = await _until(begun, place, lambda: _is_well(it, place), "the cure does not work", it)
    await steps.aclose()
    return Result(said_after, cured_after)


async def _until(begun: float, place: Place, look: Callable[[], Any], complaint: str, it: Failure) -> float:
    while not await look():
        if time.monotonic() - begun > WITHIN:
            status = await place.status()
            said = {name: status.get(name) for name in ("reasons", "notes", "outbox")}
            raise AssertionError(f"{complaint}: {said}\n{(await place.shows(it.where))[-2000:]}")
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def _is_said(it: Failure, place: Place) -> bool:
    if it.where == "nothing":
        return await place.one_more_user()
    if it.where in ("status", "log", "outbox list", "doctor"):
        await place.one_more_user()
    return it.says in await place.shows(it.where)


async def _is_well(it: Failure, place: Place) -> bool:
    if not await place.one_more_user():
        return False
    status = await place.status()
    if not status:
        return False
    drained = status["outbox"]["parked"] == 0 and status["outbox"]["pending"] <= 2
    return status["reasons"] == [] and (not it.noted_only or drained)


TABLE = re.compile(r"(?<=\|---\|---\|---\|---\|---\|---\|\n)(?:\|.*\n)*")
"""The rows of the first table of the page; the rest of it is written by hand."""


def row(it: Failure, results: Sequence[Result]) -> str:
    """One line of the page: a failure and its results, one for each Debian."""
    said_after = ", ".join(f"{each.said_after:.1f} s" for each in results)
    cured_after = ", ".join(f"{each.cured_after:.1f} s" for each in results)
    says = f"`{it.says}`" if it.says else "–"
    return f"| {it.name} | {WORDS[it.where]} | {says} | {said_after} | {it.cure} | {cured_after} |"


def write(rows: Sequence[str]) -> None:
    """Replace the rows of the page."""
    table = "".join(f"{each}\n" for each in rows)
    PAGE.write_text(TABLE.sub(lambda _: table, PAGE.read_text(), count=1))


def on_the_page() -> list[str]:
    """The rows of the page."""
    table = TABLE.search(PAGE.read_text())
    assert table is not None
    return table[0].splitlines()
