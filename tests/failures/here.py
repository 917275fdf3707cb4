"""A sidecar on this machine, run as a process, and the rows of starts, kills and the disk that need no systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.failures.table import QUICK, WITHIN, Failure, Result, Rows, produce
from tests.rig.answers import reply
from tests.rig.backend import Backend
from tests.rig.faults import TRUSTED
from tests.rig.ports import free_port, is_listening
from tests.rig.sidecar import Sidecar, merged, run_to_the_end
from tests.rig.smalldisk import MEBIBYTE, SmallDisk, small_disk

HERE = Rows()


@dataclass(slots=True)
class Here:
    """A place, see tests/failures/table.py."""

    backend: Backend
    sidecar: Sidecar
    folder: Path
    disk: SmallDisk | None = None
    start_said: str = ""
    """What a start said that failed."""
    _users: int = 0

    @property
    def secret(self) -> Path:
        return self.folder / "secret"

    def config(self) -> str:
        return self.sidecar.file.read_text()

    def write_config(self, text: str) -> None:
        self.sidecar.file.write_text(text)

    def write_secret(self, text: str) -> None:
        self.secret.write_text(text)

    async def pass_secret(self, text: str) -> None:
        (self.folder / "webhook-secret").write_text(text)
        self.sidecar.environ["CREDENTIALS_DIRECTORY"] = str(self.folder)
        await self.sidecar.end()
        await self.sidecar.run()

    async def reload(self) -> None:
        self.sidecar.signal(signal.SIGHUP)
        await asyncio.sleep(0.2)

    async def command(self, *arguments: str) -> tuple[int, str]:
        return await self.sidecar.command(*arguments)

    async def start(self) -> None:
        """As systemd does; it may fail."""
        ended = await run_to_the_end("run", "--config", str(self.sidecar.file), environ=self.sidecar.environ)
        self.start_said = ended.out + ended.err

    async def one_more_user(self) -> bool:
        self._users += 1
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self.sidecar.event("user-joined", "standup", f"key-{self._users}", filler="x" * 20_000)
            return (await self.sidecar.decides("standup", f"user{self._users}@example.org")).allowed is True
        return False

    async def status(self) -> dict[str, Any]:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            document: dict[str, Any] = (await self.sidecar.get("/status")).document
            return document
        return {}

    async def shows(self, where: str) -> str:
        match where:
            case "start":
                return self.start_said
            case "log":
                return self.sidecar.output()
            case "status":
                return in_status(await self.status())
            case "status fails":
                return (await self.command("status"))[1]
            case _:
                return (await self.command(*where.split()))[1]


def in_status(status: dict[str, Any]) -> str:
    """The lines of `status` that say what is wrong."""
    return "\n".join([*status.get("reasons", ()), *status.get("notes", ()), *status.get("files_set_aside", ())])


async def run(it: Failure) -> Result:
    """Produce one row here."""
    async with place_for(it) as place:
        return await produce(it, place)


@asynccontextmanager
async def place_for(it: Failure) -> AsyncIterator[Here]:
    """A sidecar that runs, as this failure needs it."""
    with tempfile.TemporaryDirectory(prefix="failures-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        disk = stack.enter_context(small_disk(folder / "disk", 60 * MEBIBYTE, it.disk)) if it.disk else None
        (folder / "secret").write_text("s3cret")
        text = json.dumps(it.settings).replace("SECRET", str(folder / "secret")).replace('"CA"', f'"{TRUSTED}"')
        settings = merged(QUICK, json.loads(text))
        if disk is not None:
            settings["state_dir"] = str(disk.folder / "state")
        async with (
            Backend(tls=it.tls) as backend,
            Sidecar.prepared(backend.url, settings) as sidecar,
        ):
            await sidecar.run()
            yield Here(backend, sidecar, folder, disk)
            await sidecar.end()


def does_not_start(name: str, says: str, cure: str, spoil: Callable[[Here], contextlib.ExitStack], **more: Any) -> None:
    """A start that fails; `spoil` gives what is held until the cure."""

    async def run(here: Here) -> AsyncGenerator[None]:
        await here.sidecar.end()
        good = here.config()
        with spoil(here):
            await here.start()
            yield
        here.write_config(good)
        here.write_secret("s3cret")
        await here.sidecar.run()
        yield

    HERE.add(name, "start", says, cure, **more)(run)


def _text(add: str) -> Callable[[Here], contextlib.ExitStack]:
    def spoil(here: Here) -> contextlib.ExitStack:
        here.write_config(here.config() + add)
        return contextlib.ExitStack()

    return spoil


def _taken(section: str) -> Callable[[Here], contextlib.ExitStack]:
    def spoil(here: Here) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(socket.create_server(("127.0.0.1", here.sidecar.config[section]["port"])))
        return stack

    return spoil


def _secret(content: str | None) -> Callable[[Here], contextlib.ExitStack]:
    def spoil(here: Here) -> contextlib.ExitStack:
        here.secret.unlink()
        if content is not None:
            here.write_secret(content)
        return contextlib.ExitStack()

    return spoil


BY_ITSELF = "systemd starts it again by itself"
WITH_SECRET: dict[str, Any] = {"settings": {"backend": {"secret_file": "SECRET"}}}
does_not_start(
    "Start: the file has a mistake", "sidecar.yaml:", f"correct the line that is named; {BY_ITSELF}", _text("\nx: 1\n")
)
does_not_start(
    "Start: another program has port 8788", "listen: cannot listen on 127.0.0.1 port",
    f"`sudo ss -ltnp 'sport = :8788'` names it; stop it; {BY_ITSELF}", _taken("listen"),
)  # fmt: skip
does_not_start(
    "Start: another program has port 8789", "admin: cannot listen on 127.0.0.1 port",
    f"the same with 8789; {BY_ITSELF}", _taken("admin"),
)  # fmt: skip
does_not_start(
    "Start: the secret is not there", "cannot be read", f"write the file; {BY_ITSELF}", _secret(None), **WITH_SECRET
)
does_not_start("Start: the secret is empty", "is empty", f"write the file; {BY_ITSELF}", _secret("\n"), **WITH_SECRET)


@HERE.add("The sidecar was killed", "status fails", "no sidecar answers", "none: systemd starts it again", disk="tmpfs")
async def killed(here: Here) -> AsyncGenerator[None]:
    await here.sidecar.kill()
    yield
    await here.sidecar.run()
    yield


# -- the disk


@HERE.add("The disk is full", "status", "disk: ", "make space; the sidecar notices by itself", disk="tmpfs")
async def disk_full(here: Here) -> AsyncGenerator[None]:
    assert here.disk is not None
    here.backend.on("user-joined", reply({}, status=503))
    here.disk.fill()
    yield
    here.disk.empty()
    here.backend.reset_answers()
    yield


def _second(here: Here) -> contextlib.ExitStack:
    """A sidecar that somebody has started by hand holds the folder."""
    file = here.folder / "second.yaml"
    config = {**here.sidecar.config, "listen": {"port": free_port()}, "admin": {"port": free_port()}}
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "sidecar", "run", "--config", str(file)]
    stack = contextlib.ExitStack()
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    stack.callback(process.terminate)
    give_up_at = time.monotonic() + WITHIN
    while not is_listening(config["admin"]["port"]):
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    return stack


does_not_start(
    "Start: another sidecar uses the same `state_dir`",
    "another sidecar",
    f"stop the process that is named; {BY_ITSELF}",
    _second,
    disk="tmpfs",
)


@HERE.add(
    "A file in `state_dir` is damaged", "status", "decisions.db", "none: it was renamed; look at it, delete it",
    disk="tmpfs", noted_only=True,
)  # fmt: skip
async def damaged(here: Here) -> AsyncGenerator[None]:
    assert here.disk is not None
    await here.sidecar.end()
    (here.disk.folder / "state" / "decisions.db").write_bytes(b"not a database" * 1000)
    await here.sidecar.run()
    yield
    yield
