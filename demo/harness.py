"""The programs of the demo: how they are configured and started, and a check that all have ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo.parts import Program, WentOtherwise, answers, is_running, start
from tests.rig.ports import free_ports, is_listening
from tests.rig.prosody import Prosody
from tests.rig.xmpp import Client

SECRET = "only-the-sidecar-and-the-backend-know"
MODULE_TOKEN = "only-prosody-and-the-sidecar-know"
ORDER_KEY = "who-has-this-gives-the-orders"
FRESH = 0.3
DEADLINE = 4.0

SIDECAR_CONFIG = """\
listen: {{host: 127.0.0.1, port: {listen}, token_file: {folder}/module-token}}
admin: {{host: 127.0.0.1, port: {admin}}}
control: {{host: 127.0.0.1, port: {control}, token_file: {folder}/order-key}}
state_dir: {folder}/state
backend:
  url: http://127.0.0.1:{backend}/webhooks/jitsi
  secret_file: {folder}/webhook-secret
endpoints:
  room-created: {{deadline: {deadline}, fresh: {fresh}, stale_while_revalidate: 0}}
  validate-access:
    deadline: {deadline}
    allow: {{fresh: {fresh}, stale_while_revalidate: 0}}
    deny: {{fresh: {fresh}, stale_while_revalidate: 0}}
"""

Announce = Callable[[str, int, float], None]
"""Called for each part that has started: its name, its port, the seconds it took."""


@dataclass(slots=True)
class Harness:
    """Everything that runs. Made by `set_up`."""

    folder: Path
    session: aiohttp.ClientSession
    announce: Announce
    listen: int
    admin: int
    control: int
    backend_port: int
    backend: Program | None = None
    pids: list[int] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    @property
    def webhooks(self) -> str:
        return f"http://127.0.0.1:{self.listen}/webhooks/jitsi"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.admin}/metrics"

    async def start_backend(self) -> None:
        begun = time.monotonic()
        url = f"http://127.0.0.1:{self.backend_port}/"
        arguments = ("demo-backend", "--port", str(self.backend_port), "--secret", SECRET)
        ready = answers(self.session, url)
        self.backend = await start("demo backend", *arguments, folder=self.folder, ready=ready)
        self.pids.append(self.backend.pid)
        self.announce("demo backend", self.backend_port, time.monotonic() - begun)

    async def kill_backend(self) -> int:
        """Kills it with -9, checks that it has ended, and returns its pid."""
        assert self.backend is not None
        await self.backend.kill()
        if is_listening(self.backend_port):
            raise WentOtherwise(f"the backend was killed, but something still listens on port {self.backend_port}")
        return self.backend.pid

    async def set_up_room(self, room: str, **change: object) -> None:
        """Configures this room in the demo backend."""
        url = f"http://127.0.0.1:{self.backend_port}/demo/rooms/{room}"
        async with self.session.post(url, json=change) as response:
            response.raise_for_status()

    async def order(self, call: str, **fields: object) -> int:
        """Gives an order of the meeting service; returns the status of the answer."""
        url = f"http://127.0.0.1:{self.control}/control/v1/{call}"
        async with self.session.post(url, json=fields, headers={"Authorization": f"Bearer {ORDER_KEY}"}) as response:
            return response.status

    async def start_sidecar(self) -> Program:
        begun = time.monotonic()
        for name, text in {"webhook-secret": SECRET, "module-token": MODULE_TOKEN, "order-key": ORDER_KEY}.items():
            (self.folder / name).touch(mode=0o600)
            (self.folder / name).write_text(text)
        config = self.folder / "sidecar.yaml"
        config.write_text(
            SIDECAR_CONFIG.format(
                listen=self.listen,
                admin=self.admin,
                control=self.control,
                backend=self.backend_port,
                folder=self.folder,
                fresh=FRESH,
                deadline=DEADLINE,
            )
        )
        ready = answers(self.session, f"http://127.0.0.1:{self.admin}/readyz")
        sidecar = await start("sidecar", "run", "--config", str(config), folder=self.folder, ready=ready)
        self.pids.append(sidecar.pid)
        self.announce("sidecar", self.listen, time.monotonic() - begun)
        return sidecar

    async def stop_backend(self) -> None:
        if self.backend is not None and self.backend.process.returncode is None:
            await self.backend.stop()

    def find_leftovers(self) -> None:
        """Raises WentOtherwise if anything of the demo still runs or listens."""
        pids = [pid for pid in self.pids if is_running(pid)]
        if pids:
            raise WentOtherwise(f"everything should have ended, but these processes still run: {pids}")
        ports = [port for port in self.ports if is_listening(port)]
        if ports:
            raise WentOtherwise(f"everything should have ended, but these ports are still open: {ports}")


def stopper(program: Program) -> Callable[..., Awaitable[bool]]:
    """For an exit stack: stops the program, and expects exit code 0 unless there was another error."""

    async def stop(kind: object, _error: object, _traceback: object) -> bool:
        try:
            code = await program.stop()
            if code != 0:
                message = f"{program.name} should end with exit code 0, not {code}"
                raise WentOtherwise(message, program.last_lines())
        except WentOtherwise:
            if kind is None:
                raise
        return False

    return stop


@dataclass(frozen=True, slots=True)
class Person:
    """A user with an account and a connection to Prosody."""

    name: str
    client: Client


@asynccontextmanager
async def running_prosody(harness: Harness, **options: Any) -> AsyncIterator[Prosody]:
    """Prosody with the module and these options. If the demonstration fails, its log is kept in its folder."""
    begun = time.monotonic()
    try:
        options["options"] = {"muc_webhook_secret": MODULE_TOKEN, **options.get("options", {})}
        async with Prosody.start(webhook_url=harness.webhooks, log_level="info", **options) as prosody:
            harness.pids.append(prosody.process.pid)
            harness.ports += [prosody.c2s_port, prosody.http_port]
            version = await prosody.lua("return prosody.version")
            harness.announce(f"Prosody {version}", prosody.c2s_port, time.monotonic() - begun)
            try:
                yield prosody
            except (WentOtherwise, AssertionError):
                (harness.folder / "prosody.log").write_text(prosody.log())
                raise
    except RuntimeError as error:
        raise WentOtherwise("Prosody did not start", str(error)) from error


@asynccontextmanager
async def set_up(folder: Path, announce: Announce, **options: Any) -> AsyncIterator[tuple[Harness, Prosody]]:
    """Backend, sidecar and Prosody, started in this order and ended in the reverse order."""
    listen, admin, control, backend_port = free_ports(4)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=5), connector=aiohttp.TCPConnector(force_close=True)
            )
        )
        harness = Harness(folder, session, announce, listen, admin, control, backend_port)
        harness.ports += [listen, admin, control, backend_port]
        stack.push_async_callback(harness.stop_backend)
        await harness.start_backend()
        stack.push_async_exit(stopper(await harness.start_sidecar()))
        yield harness, await stack.enter_async_context(running_prosody(harness, **options))
    harness.find_leftovers()


@asynccontextmanager
async def set_up_with_people(folder: Path, announce: Announce) -> AsyncIterator[tuple[Harness, Prosody, list[Person]]]:
    """The same, with three users."""
    async with set_up(folder, announce) as (harness, prosody), AsyncExitStack() as stack:
        people = [
            Person(name, await stack.enter_async_context(Client.connect(prosody, user=name)))
            for name in ("alice", "bob", "carol")
        ]
        yield harness, prosody, people
