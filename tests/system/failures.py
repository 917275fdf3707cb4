"""Failures that an operator meets, each really produced: what says it first, after how long, and that the cure works.

    python -m tests.system.failures             runs all, and writes docs/failures.md
    python -m tests.system.failures wrong       only those with this in their name, and prints them

test_failures.py runs each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.rig.answers import allow, reply, with_secret
from tests.rig.backend import Backend
from tests.rig.faults import TRUSTED, Fault
from tests.rig.ports import free_port, is_listening
from tests.rig.sidecar import ROOT, Sidecar, run_to_the_end
from tests.rig.smalldisk import MEBIBYTE, SmallDisk, small_disk

PAGE = ROOT / "docs" / "failures.md"
WITHIN = 40.0
"""Seconds for a failure to be said, and for a cure to work, on a busy machine."""


@dataclass(slots=True)
class Bench:
    """One sidecar and its backend; users come all the time."""

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

    async def reload(self) -> None:
        """As `systemctl reload` does."""
        self.sidecar.signal(signal.SIGHUP)
        await asyncio.sleep(0.2)

    async def start(self) -> None:
        """As systemd does; it may fail."""
        ended = await run_to_the_end("run", "--config", str(self.sidecar.file), environ=self.sidecar.environ)
        self.start_said = ended.out + ended.err

    async def one_more_user(self) -> bool:
        """Whether a user who has not been here before is let in."""
        self._users += 1
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self.sidecar.event("user-joined", "standup", f"key-{self._users}", filler="x" * 20_000)
            return (await self.sidecar.decides("standup", f"user{self._users}@example.org")).allowed is True
        return False

    async def status(self) -> dict[str, Any]:
        """What `status` shows; nothing while there is no daemon."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            document: dict[str, Any] = (await self.sidecar.get("/status")).document
            return document
        return {}


Run = Callable[[Bench], AsyncGenerator[None]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, and the run that produces it, waits (`yield`), and cures it."""

    name: str
    where: str
    """What says it first: status, log, start (the log of a start that failed), outbox list."""
    says: str
    """A part of what is said."""
    cure: str
    """What the operator does, in Markdown."""
    run: Run
    settings: dict[str, Any] = field(default_factory=dict)
    disk: str = ""
    """The kind of file system that `state_dir` is on; none: nothing is on disk."""
    tls: bool = False
    noted_only: bool = False
    """It does not keep users out."""


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds until it was said, and until users were let in again."""

    said_after: float
    cured_after: float


FAILURES: list[Failure] = []


def failure(name: str, where: str, says: str, cure: str, **more: Any) -> Callable[[Run], Run]:
    """Registers a run."""

    def register(run: Run) -> Run:
        FAILURES.append(Failure(name, where, says, cure, run, **more))
        return run

    return register


# -- the meeting service

ITSELF = "repair the meeting service; the sidecar notices by itself"


def goes_wrong(name: str, fault: Fault, says: str, cure: str = ITSELF, **more: Any) -> None:
    """A failure of the meeting service that ends when it is repaired."""

    async def run(bench: Bench) -> AsyncGenerator[None]:
        await bench.backend.goes(fault)
        yield
        await bench.backend.goes(Fault.NONE)
        yield

    failure(name, "status", says, cure, **more)(run)


goes_wrong("The meeting service does not run", Fault.REFUSED, "no connection")
goes_wrong("The meeting service hangs", Fault.HANG, "no complete answer within")
goes_wrong("The meeting service answers 500", Fault.ERROR_500, "500")
goes_wrong("A proxy answers 503 with a page", Fault.ERROR_503, "503")
goes_wrong("The meeting service is overloaded (429)", Fault.TOO_MANY, "429")
goes_wrong("The path in `backend.url` is wrong (404)", Fault.HTML_404, "404", "correct `backend.url`, reload")
goes_wrong(
    "The meeting service redirects (302)", Fault.REDIRECT, "302", "write the new address in `backend.url`, reload"
)
goes_wrong("The connection breaks in the middle", Fault.RESET, "connection")
goes_wrong("The answer is cut off", Fault.HALF_BODY, "cut off")
goes_wrong("The answer is a page of a proxy or of a login", Fault.HTML_200, "HTML")
goes_wrong("The answer is no JSON", Fault.GARBLED, "JSON")
goes_wrong("`allowed` is not true or false", Fault.WRONG_TYPE, "allowed")
goes_wrong("The answer is too long", Fault.HUGE, "over 1048576 bytes")
goes_wrong("The port of the meeting service does not speak TLS", Fault.TLS_GARBLED, "no TLS", "write `http://` in "
           "`backend.url`, or the right port; reload", tls=True)  # fmt: skip
goes_wrong(
    "The certificate is not trusted", Fault.TLS_UNTRUSTED, "certificate is not trusted",
    "`check --online` says why; renew it, or set `backend.ca_file` and reload", tls=True,
)  # fmt: skip


@failure(
    "The secret in `backend.secret_file` is wrong", "status", "secret, then reload", "correct the file, reload",
    settings={"backend": {"secret_file": "SECRET"}},
)  # fmt: skip
async def wrong_secret(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.on("validate-access", with_secret("right", allow()))
    yield
    bench.secret.write_text("right")
    await bench.reload()
    yield


@failure("The secret that systemd passes is wrong", "status", "systemctl restart", "correct the file, **restart**")
async def wrong_credential(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.on("validate-access", with_secret("right", allow()))
    (bench.folder / "webhook-secret").write_text("wrong")
    bench.sidecar.environ["CREDENTIALS_DIRECTORY"] = str(bench.folder)
    await bench.sidecar.end()
    await bench.sidecar.run()
    yield
    (bench.folder / "webhook-secret").write_text("right")
    await bench.sidecar.end()
    await bench.sidecar.run()
    yield


@failure("The name in `backend.url` has no address", "status", "no connection", "correct `backend.url`, reload")
async def no_address(bench: Bench) -> AsyncGenerator[None]:
    good = bench.sidecar.file.read_text()
    bench.sidecar.file.write_text(good.replace("127.0.0.1:" + str(bench.backend.port), "backend.invalid:1"))
    await bench.reload()
    yield
    bench.sidecar.file.write_text(good)
    await bench.reload()
    yield


@failure(
    "`Cache-Control` forbids keeping the answers", "status", "must not be kept",
    "`backend.cache_control: ignore`, reload", noted_only=True,
)  # fmt: skip
async def no_store(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.headers["Cache-Control"] = "no-store"
    yield
    bench.sidecar.write({"backend": {"cache_control": "ignore"}})
    await bench.reload()
    yield


# -- the config and the start


def reload_refused(name: str, says: str, add: str) -> None:
    """A mistake in the file that a reload finds."""

    async def run(bench: Bench) -> AsyncGenerator[None]:
        good = bench.sidecar.file.read_text()
        bench.sidecar.file.write_text(good + add)
        await bench.reload()
        yield
        bench.sidecar.file.write_text(good)
        await bench.reload()
        yield

    failure(name, "status", says, "correct the line that is named, reload", noted_only=True)(run)


reload_refused("Reload: the file is not YAML", "the last reload was refused", '\nrooms: ["\n')
reload_refused("Reload: a setting has a wrong name", "there is no such setting", "\nbakend: 1\n")
reload_refused("Reload: a value is wrong", "expected", "\nlog: {level: loud}\n")
reload_refused("Reload: a file that is named is not there", "cannot be read", "\nlisten2: 1\n".replace(
    "listen2: 1", "control: {token_file: /nowhere/token}"))  # fmt: skip


def does_not_start(
    name: str, says: str, cure: str, spoil: Callable[[Bench], contextlib.ExitStack], **more: Any
) -> None:
    """A start that fails; `spoil` gives what is held until the cure."""

    async def run(bench: Bench) -> AsyncGenerator[None]:
        await bench.sidecar.end()
        good = bench.sidecar.file.read_text()
        with spoil(bench):
            await bench.start()
            yield
        bench.sidecar.file.write_text(good)
        bench.secret.write_text("s3cret")
        await bench.sidecar.run()
        yield

    failure(name, "start", says, cure, **more)(run)


def _text(add: str) -> Callable[[Bench], contextlib.ExitStack]:
    def spoil(bench: Bench) -> contextlib.ExitStack:
        bench.sidecar.file.write_text(bench.sidecar.file.read_text() + add)
        return contextlib.ExitStack()

    return spoil


def _taken(section: str) -> Callable[[Bench], contextlib.ExitStack]:
    def spoil(bench: Bench) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(socket.create_server(("127.0.0.1", bench.sidecar.config[section]["port"])))
        return stack

    return spoil


def _secret(content: str | None) -> Callable[[Bench], contextlib.ExitStack]:
    def spoil(bench: Bench) -> contextlib.ExitStack:
        bench.secret.unlink()
        if content is not None:
            bench.secret.write_text(content)
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


@failure("The sidecar was killed", "status", "no sidecar answers", "none: systemd starts it again", disk="tmpfs")
async def killed(bench: Bench) -> AsyncGenerator[None]:
    await bench.sidecar.kill()
    yield
    await bench.sidecar.run()
    yield


# -- the disk


@failure("The disk is full", "status", "disk: ", "make space; the sidecar notices by itself", disk="tmpfs")
async def disk_full(bench: Bench) -> AsyncGenerator[None]:
    assert bench.disk is not None
    bench.backend.on("user-joined", reply({}, status=503))
    bench.disk.fill()
    yield
    bench.disk.empty()
    bench.backend.reset_answers()
    yield


def _second(bench: Bench) -> contextlib.ExitStack:
    """A sidecar that somebody has started by hand holds the folder."""
    file = bench.folder / "second.yaml"
    config = {**bench.sidecar.config, "listen": {"port": free_port()}, "admin": {"port": free_port()}}
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


@failure(
    "A file in `state_dir` is damaged", "status", "decisions.db", "none: it was renamed; look at it, delete it",
    disk="tmpfs", noted_only=True,
)  # fmt: skip
async def damaged(bench: Bench) -> AsyncGenerator[None]:
    assert bench.disk is not None
    await bench.sidecar.end()
    (bench.disk.folder / "state" / "decisions.db").write_bytes(b"not a database" * 1000)
    await bench.sidecar.run()
    yield
    yield


# -- events


@failure(
    "The meeting service refuses an event (400)", "outbox list", "400", "repair it, `outbox retry --all`",
    noted_only=True,
)  # fmt: skip
async def event_refused(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.on("user-joined", reply({"error": "no"}, status=400))
    yield
    bench.backend.reset_answers()
    code, said = await bench.sidecar.command("outbox", "retry", "--all")
    assert code == 0, said
    yield


@failure("The meeting service takes no events (503)", "log", "the backend answered 503", ITSELF, noted_only=True)
async def events_wait(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.on("user-joined", reply({}, status=503))
    yield
    bench.backend.reset_answers()
    yield


@failure(
    "The outbox is full", "status", "outbox: ", "repair the meeting service, or `outbox drop --all --waiting`",
    settings={"outbox": {"max_events": 3}}, noted_only=True,
)  # fmt: skip
async def outbox_full(bench: Bench) -> AsyncGenerator[None]:
    bench.backend.on("user-joined", reply({}, status=503))
    yield
    code, said = await bench.sidecar.command("outbox", "drop", "--all", "--waiting")
    assert code == 0, said
    bench.backend.reset_answers()
    yield


# -- how a failure is run


@asynccontextmanager
async def bench_for(it: Failure) -> AsyncIterator[Bench]:
    """A sidecar that runs, as this failure needs it."""
    with tempfile.TemporaryDirectory(prefix="failures-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        disk = stack.enter_context(small_disk(folder / "disk", 60 * MEBIBYTE, it.disk)) if it.disk else None
        (folder / "secret").write_text("s3cret")
        text = json.dumps(it.settings).replace("SECRET", str(folder / "secret"))
        settings = {"outbox": {"backoff_cap": 0.5}, "breaker": {"open_for": 1}, **json.loads(text)}
        settings["outbox"] = {"backoff_cap": 0.5, **settings["outbox"]}
        if disk is not None:
            settings["state_dir"] = str(disk.folder / "state")
        environ = {"SSL_CERT_FILE": str(TRUSTED)} if it.tls else {}
        async with (
            Backend(tls=it.tls) as backend,
            Sidecar.prepared(backend.url, settings, environ) as sidecar,
        ):
            await sidecar.run()
            yield Bench(backend, sidecar, folder, disk)
            await sidecar.end()


async def run(it: Failure) -> Result:
    """Break, wait until it is said, cure, wait until users are let in. Raises AssertionError where that takes long."""
    async with bench_for(it) as bench:
        assert await bench.one_more_user()
        steps = it.run(bench)
        await anext(steps)
        said_after = await _until(bench, lambda: _is_said(it, bench), f"{it.where} does not say {it.says!r}")
        await anext(steps)
        cured_after = await _until(bench, lambda: _is_well(it, bench), "the cure does not work")
        await steps.aclose()
    return Result(said_after, cured_after)


async def _until(bench: Bench, look: Callable[[], Any], complaint: str) -> float:
    begun = time.monotonic()
    while not await look():
        assert time.monotonic() - begun < WITHIN, f"{complaint}: {await bench.status()} {bench.start_said}"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def _is_said(it: Failure, bench: Bench) -> bool:
    if it.where == "start":
        return it.says in bench.start_said
    if it.says == "no sidecar answers":
        return it.says in (await bench.sidecar.command("status"))[1]
    await bench.one_more_user()
    if it.where == "log":
        return it.says in bench.sidecar.output()
    if it.where == "outbox list":
        _, said = await bench.sidecar.command("outbox", "list")
        return it.says in said
    status = await bench.status()
    lines = [*status.get("reasons", ()), *status.get("notes", ()), *status.get("files_set_aside", ())]
    return any(it.says in line for line in lines)


async def _is_well(it: Failure, bench: Bench) -> bool:
    if not await bench.one_more_user():
        return False
    status = await bench.status()
    drained = status["outbox"]["parked"] == 0 and status["outbox"]["pending"] <= 2
    return status["reasons"] == [] and (not it.noted_only or drained)


# -- the page

TABLE = re.compile(r"(?<=\|---\|---\|---\|---\|---\|---\|\n)(?:\|.*\n)*")
"""The rows of the first table of the page; the rest of it is written by hand."""

WORDS = {"start": "start", "log": "the log", "status": "`status`", "outbox list": "`outbox list`"}


def row(it: Failure, result: Result) -> str:
    """One line of the page."""
    seconds = (f"{each:.1f} s" for each in (result.said_after, result.cured_after))
    said_after, cured_after = seconds
    return f"| {it.name} | {WORDS[it.where]} | `{it.says}` | {said_after} | {it.cure} | {cured_after} |"


async def main(part: str) -> int:
    """Run those with this in their name; all: also write the page."""
    rows = []
    for it in FAILURES:
        if part in it.name:
            rows.append(row(it, await run(it)))
            sys.stdout.write(f"{rows[-1]}\n")
    if not part:
        table = "".join(f"{each}\n" for each in rows)
        PAGE.write_text(TABLE.sub(lambda _: table, PAGE.read_text(), count=1))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(" ".join(sys.argv[1:]))))
