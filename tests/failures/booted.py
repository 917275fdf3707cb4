"""The package on a booted Debian, with a backend and users in its network. A place, see tests/failures/table.py.

The thread that runs a row is in the network of the machine, so that the backend and the users of tests/rig are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.booted.build import build_first
from tests.booted.machine import Debian, Machine
from tests.failures.here import in_status
from tests.failures.table import QUICK, Failure, Result, produce
from tests.rig.backend import Backend
from tests.rig.faults import TRUSTED
from tests.rig.sidecar import merged
from tests.rig.smalldisk import MEBIBYTE

SERVICE = "prosody-sidecar.service"
SOCKETS = ("prosody-sidecar.socket", "prosody-sidecar-admin.socket", "prosody-sidecar-control.socket")
ETC = "/etc/prosody-sidecar"
CONFIG, CREDENTIAL, SECRET, CA = (f"{ETC}/{name}" for name in ("sidecar.yaml", "webhook-secret", "secret", "ca.pem"))
STATE = "/var/lib/private/prosody-sidecar"
DROP_INS = f"/run/systemd/system/{SERVICE}.d"
LIKE_THE_MODULE = 5.0
"""Seconds that a user waits, as with `muc_webhook_timeout`."""

_CLONE_NEWNET = 0x40000000


class Booted:
    """The service of a booted machine, freshly started."""

    def __init__(self, machine: Machine, backend: Backend, session: aiohttp.ClientSession) -> None:
        self.machine = machine
        self.backend = backend
        self.device = ""
        """The disk that `state_dir` is on, if it is one of its own."""
        self._session = session
        self._users = 0
        self._dpkg_said = ""
        self._systemctl_said = ""
        self._cursor = ""

    # -- what a row may do

    def config(self) -> str:
        return self.machine.run("cat", CONFIG).stdout

    def write_config(self, text: str) -> None:
        self.machine.write(CONFIG, text)

    def write_secret(self, text: str) -> None:
        self.machine.write(SECRET, text)

    def write_credential(self, text: str) -> None:
        self.machine.write(CREDENTIAL, text, mode="600")

    async def pass_secret(self, text: str) -> None:
        self.write_credential(text)
        await self.systemctl("restart", SERVICE)

    async def reload(self) -> None:
        await self.systemctl("reload", SERVICE)

    async def systemctl(self, *arguments: str) -> bool:
        """Whether it succeeds."""
        done = await self._run("systemctl", *arguments)
        self._systemctl_said = done.stdout + done.stderr
        return done.returncode == 0

    async def dpkg(self, *arguments: str) -> None:
        done = await self._run("dpkg", *arguments)
        self._dpkg_said = done.stdout + done.stderr
        assert done.returncode == 0, self._dpkg_said

    async def sh(self, line: str) -> str:
        """What a line of shell prints inside; it has to succeed."""
        done = await self._run("sh", "-c", line)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    async def drop_in(self, *lines: str) -> None:
        """Other settings for the unit, at the next start."""
        self.machine.write(f"{DROP_INS}/row.conf", "\n".join(["[Service]", *lines, ""]))
        await self.systemctl("daemon-reload")

    async def mount(self) -> None:
        """The disk, as the folder of the service."""
        number = self.device.removeprefix("/dev/loop")
        await self.sh(f"rm -f {self.device}; mknod -m 600 {self.device} b 7 {number}; mkdir -p -m 700 {STATE}; "
                      f"mount -o errors=remount-ro {self.device} {STATE}")  # fmt: skip

    def break_disk(self) -> None:
        """What the kernel does when it finds an error in the file system: it makes it read-only."""
        Path(f"/sys/fs/ext4/{Path(self.device).name}/trigger_fs_error").write_text("made by a test")

    async def repair_disk(self) -> None:
        """As an operator does: without the service."""
        await self.systemctl("stop", *SOCKETS, SERVICE)
        await self.sh(f"umount {STATE}")
        subprocess.run(["e2fsck", "-fy", self.device], check=False, capture_output=True)
        await self.mount()
        await self.systemctl("start", SERVICE)

    async def command(self, *arguments: str) -> tuple[int, str]:
        done = await self._run("prosody-sidecar", *arguments)
        return done.returncode, done.stdout + done.stderr

    async def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.machine.run, *command, check=False)

    # -- what users and operators see

    async def one_more_user(self) -> bool:
        self._users += 1
        event = {"roomName": "standup", "timestamp": 1, "filler": "x" * 20_000}
        join = {"roomName": "standup", "userJid": f"user{self._users}@example.org/r", "timestamp": 1}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self._post("user-joined", event, {"Idempotency-Key": f"key-{self._users}"})
            return (await self._post("validate-access", join)).get("allowed") is True
        return False

    async def _post(self, endpoint: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        url = f"http://127.0.0.1:8788/webhooks/jitsi/{endpoint}"
        async with self._session.post(url, json=body, headers=headers) as response:
            document = await response.json(content_type=None)
            return document if isinstance(document, dict) else {}

    async def status(self) -> dict[str, Any]:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get("http://127.0.0.1:8789/status") as response:
                document: dict[str, Any] = await response.json()
                return document
        return {}

    async def shows(self, where: str) -> str:
        match where:
            case "status":
                return in_status(await self.status())
            case "start" | "log":
                options = ("-u", SERVICE, "--no-pager", "-o", "cat", f"--after-cursor={self._cursor}")
                return (await self._run("journalctl", *options)).stdout
            case "systemctl":
                return self._systemctl_said + (await self._run("systemctl", "status", "--no-pager", SERVICE)).stdout
            case "dpkg":
                return self._dpkg_said
            case "status fails":
                return (await self.command("status"))[1]
            case _:
                return (await self.command(*where.split()))[1]

    # -- between two rows

    async def begin(self, it: Failure) -> None:
        """A service that has just been installed, configured and started, as this row needs it."""
        await self.sh(f"rm -rf {DROP_INS} {ETC} {STATE} /etc/prosody/conf.d/row.cfg.lua; systemctl daemon-reload")
        version = "dpkg-query --show --showformat='${Version}${db:Status-Abbrev}' prosody-sidecar || true"
        if await self.sh(version) != await self.sh("dpkg-deb --field /shared/sidecar.deb Version | tr -d '\n'") + "ii ":
            await self.dpkg("--install", "/shared/sidecar.deb")
        text = json.dumps(it.settings).replace("SECRET", SECRET).replace('"CA"', f'"{CA}"')
        settings = merged({"backend": {"url": self.backend.url}, **QUICK}, json.loads(text))
        self.write_config(yaml.safe_dump(settings))
        self.write_secret("s3cret")
        self.write_credential("s3cret")
        self.machine.write(CA, TRUSTED.read_text())
        if SECRET in text:
            await self.drop_in("LoadCredential=")
        if self.device:
            await self.mount()
        assert await self.systemctl("enable", "--now", SERVICE), self._systemctl_said
        shown = await self.sh("journalctl -n 0 --show-cursor")
        self._cursor = shown.partition("cursor: ")[2].strip()


@contextmanager
def boot(debian: Debian, package: Path, shared: Path) -> Iterator[Machine]:
    """A machine for this package and the first one. `shared`: a folder that is made for it."""
    shared.mkdir()
    shutil.copy(package, shared / "sidecar.deb")
    shutil.copy(build_first(debian, shared), shared / "first.deb")
    shutil.rmtree(shared / "checkout")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    shutil.copy(library, shared)
    for folder in (shared.parent, shared):
        folder.chmod(0o755)
    with Machine(shared, debian) as machine:
        yield machine


@asynccontextmanager
async def place_for(it: Failure, machine: Machine) -> AsyncIterator[Booted]:
    timeout, connector = aiohttp.ClientTimeout(total=LIKE_THE_MODULE), aiohttp.TCPConnector(force_close=True)
    async with (
        Backend(tls=it.tls) as backend,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
    ):
        place = Booted(machine, backend, session)
        with loop_device() if it.disk else nullcontext("") as place.device:
            try:
                await place.begin(it)
                yield place
            finally:
                await place.systemctl("stop", *SOCKETS, SERVICE)
                if place.device:
                    await place.sh(f"umount {STATE}")


@contextmanager
def loop_device() -> Iterator[str]:
    """An empty ext4 of 60 MiB, in a file of this machine."""
    with tempfile.NamedTemporaryFile(prefix="failures-", suffix=".ext4") as image:
        image.truncate(60 * MEBIBYTE)
        made = ["losetup", "--find", "--show", image.name]
        device = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
        try:
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", device], check=True, capture_output=True)
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def no_memory_for(pid: int) -> Iterator[None]:
    """Whoever needs one more page is killed by the kernel: this process, until the end of the block."""
    group = (
        next(each for each in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if each.is_dir()) / "no-memory"
    )
    limit = group / ("memory.limit_in_bytes" if group.parent.name == "memory" else "memory.max")
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        limit.write_text("0")
        yield
    finally:
        group.rmdir()


def run(it: Failure, machine: Machine) -> Result:
    """Produce one row on this machine."""

    async def row() -> Result:
        async with place_for(it, machine) as place:
            return await produce(it, place)

    def inside() -> Result:
        _enter_network(machine.leader)
        return asyncio.run(row())

    with ThreadPoolExecutor(1) as thread:  # its threads are in that network too
        return thread.submit(inside).result()


def _enter_network(pid: int) -> None:
    """This thread sees the network of that process from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    opened = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(opened, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(opened)
