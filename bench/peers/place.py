"""Where a peer runs and how long it may cache: the same for all peers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.program import SERVER_CORE, Program, running, until_listening


@dataclass(frozen=True, slots=True)
class Place:
    """A folder and two ports."""

    folder: Path
    port: int
    backend_port: int
    core: int = SERVER_CORE
    fresh: int = 3600
    """Seconds for which an answer is fresh."""
    stale: int = 3600
    """Seconds for which a stale answer is used while the backend is down."""
    latency: float = 0.0
    """Seconds that the backend takes for an answer."""
    capacity: int = 0
    """How many requests the backend works on at the same time; the others wait there. 0: any number."""


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that accepts requests, with all the programs that it needs."""

    port: int
    programs: tuple[Program, ...]

    def cpu_seconds(self) -> float:
        """CPU time of all its programs."""
        return sum(each.cpu_seconds() for each in self.programs)

    def resident(self) -> int:
        """Bytes."""
        return sum(each.memory().resident for each in self.programs)

    def proportional(self) -> int:
        """Bytes, each shared page divided by its users."""
        return sum(each.memory().proportional for each in self.programs)


@asynccontextmanager
async def serving(place: Place, name: str, *arguments: str) -> AsyncIterator[Server]:
    """A peer that is one program."""
    async with running(arguments, place.folder / f"{name}.log", place.core) as program:
        await until_listening(program, place.port)
        yield Server(place.port, (program,))


def filled(template: Path, **values: object) -> str:
    """The text of a file, with each @name@ replaced."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
