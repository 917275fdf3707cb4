"""A measured program: a process on its own core, with its output in a file, ended by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.sample import WentWrong

READY_WITHIN = 30.0
STOPPED_WITHIN = 15.0
LISTENING = "0A"
"""The state in /proc/net/tcp."""

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
"""The measured program has one core; its clients and its backend share the other."""

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: all mapped pages, and the same with shared pages divided by their users."""

    resident: int
    proportional: int


@dataclass(frozen=True, slots=True)
class Program:
    """A running program with all its children."""

    process: asyncio.subprocess.Process
    output: Path

    def cpu_seconds(self) -> float:
        """CPU time that it has used, in user mode and in the kernel."""
        return cpu_seconds(self.process.pid)

    def memory(self) -> Memory:
        """Its memory now."""
        rollups = [_rollup(pid) for pid in _family(self.process.pid)]
        return Memory(sum(each["Rss"] for each in rollups), sum(each["Pss"] for each in rollups))

    def last_words(self) -> str:
        """The last lines of its output."""
        return self.output.read_text(errors="replace")[-1500:]

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # Ctrl-C also ends it
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOPPED_WITHIN)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def running(arguments: Sequence[str], output: Path, core: int = SERVER_CORE) -> AsyncIterator[Program]:
    """Start a program on this core; it ends with the block."""
    with output.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            "taskset", "--cpu-list", str(core), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, cwd=_ROOT,
        )  # fmt: skip
    program = Program(process, output)
    try:
        yield program
    finally:
        await program.stop()


async def until_listening(program: Program, port: int) -> None:
    """Wait until a program accepts connections on this port. Raises WentWrong if it does not, or if it is not this
    program that does."""
    try:
        async with asyncio.timeout(READY_WITHIN):
            while True:
                if program.process.returncode is not None:
                    raise WentWrong(f"it ended at once: {program.last_words()}")
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    if not _listens(program.process.pid, port):
                        raise WentWrong(f"another program has taken port {port}")
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise WentWrong(f"it does not listen on port {port}: {program.last_words()}") from None


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its children."""
    return sum(_nanoseconds(each) for each in _family(pid)) / 1e9


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process on one core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))


def _listens(pid: int, port: int) -> bool:
    """Whether a listening socket of this port belongs to this process or to one of its children."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{inode}]"
        for _, local, _, state, *_, inode in (line[:10] for line in lines)
        if state == LISTENING and int(local.rpartition(":")[2], 16) == port
    }
    return any(
        os.readlink(each) in sockets for each_pid in _family(pid) for each in Path(f"/proc/{each_pid}/fd").iterdir()
    )


def _nanoseconds(pid: int) -> int:
    """CPU time of all its threads; /proc/PID/stat has it too, but only in hundredths of a second."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) * 1024 for name, _, size in (line.partition(":") for line in lines)}
