"""Rows of the package on a booted Debian: systemd, credentials, the disk, dpkg."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import yaml

from tests.failures.booted import CONFIG, CREDENTIAL, SERVICE, SOCKETS, STATE, Booted, no_memory_for
from tests.failures.common import COMMON
from tests.failures.table import Rows
from tests.rig.answers import allow, reply, with_secret
from tests.rig.sidecar import merged

BOOTED = Rows()
BY_ITSELF = "systemd starts it again by itself"
DAY = 86_400

# -- the secret


@BOOTED.add(
    "The secret was changed, and the service only reloaded", "log", "has changed since the service was started",
    f"`sudo systemctl restart {SERVICE.partition('.')[0]}`", always=True,
)  # fmt: skip
async def rotated(place: Booted) -> AsyncGenerator[None]:
    place.backend.on("validate-access", with_secret("new", allow()))
    place.write_credential("new")
    await place.reload()
    yield
    await place.systemctl("restart", SERVICE)
    yield


# -- the start


def does_not_start(
    name: str,
    says: str,
    cure: str,
    spoil: str,
    repair: str = "",
    hold: Callable[[], AbstractContextManager[Any]] = nullcontext,
    **more: Any,
) -> None:
    """A start that fails until the cause is gone: `spoil` and `repair` are lines of shell."""

    async def run(place: Booted) -> AsyncGenerator[None]:
        await place.systemctl("stop", *SOCKETS, SERVICE)
        await place.sh(spoil)
        with hold():
            await place.systemctl("start", "--no-block", SERVICE)
            yield
        await place.sh(repair or "true")
        yield

    BOOTED.add(name, "start", says, cure, **more)(run)


def port_is_taken(port: int) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: socket.create_server(("127.0.0.1", port))


does_not_start(
    "Start: the file has a mistake", "sidecar.yaml:", f"correct the line that is named; {BY_ITSELF}",
    f"cp {CONFIG} /run/good; echo 'x: 1' >> {CONFIG}", f"cp /run/good {CONFIG}", always=True,
)  # fmt: skip
does_not_start(
    "Start: the service may not read the file", "cannot be read: ", f"`sudo chmod 644 {CONFIG}`; {BY_ITSELF}",
    f"chmod 600 {CONFIG}", f"chmod 644 {CONFIG}", always=True,
)  # fmt: skip
does_not_start(
    "Start: another program has port 8788", "listen: cannot listen on 127.0.0.1 port",
    f"`sudo ss -ltnp 'sport = :8788'` names it; stop it; {BY_ITSELF}", "true", hold=port_is_taken(8788), always=True,
)  # fmt: skip
does_not_start(
    "Start: another program has port 8789", "admin: cannot listen on 127.0.0.1 port",
    f"the same with 8789; {BY_ITSELF}", "true", hold=port_is_taken(8789),
)  # fmt: skip
does_not_start(
    "Start: the file with the secret is not there", "status=243/CREDENTIALS", f"write the file; {BY_ITSELF}",
    f"mv {CREDENTIAL} /run/away", f"mv /run/away {CREDENTIAL}", always=True,
)  # fmt: skip
does_not_start(
    "Start: the secret is empty", "is empty", f"write the file; {BY_ITSELF}",
    f"echo > {CREDENTIAL}", f"echo s3cret > {CREDENTIAL}",
)  # fmt: skip


@BOOTED.add(
    "Start: another sidecar uses the same `state_dir`", "start", "another sidecar",
    f"stop the process that is named; {BY_ITSELF}", always=True,
)  # fmt: skip
async def second_sidecar(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("stop", *SOCKETS, SERVICE)
    other = {"listen": {"port": 8798}, "admin": {"port": 8799}, "state_dir": STATE}
    place.machine.write("/run/second.yaml", yaml.safe_dump(merged(yaml.safe_load(place.config()), other)))
    await place.sh("systemd-run --quiet --collect --unit=second prosody-sidecar run --config /run/second.yaml")
    await place.sh("for n in $(seq 100); do prosody-sidecar status --config /run/second.yaml && exit; sleep 0.2; done; "
                   "journalctl -u second -o cat; exit 1")  # fmt: skip
    await place.systemctl("start", "--no-block", SERVICE)
    yield
    await place.systemctl("stop", "second")
    yield


@BOOTED.add(
    "Start: it fails again and again", "start", "restart counter is at 8",
    f"correct what the log names; there is no limit, {BY_ITSELF}",
)  # fmt: skip
async def again_and_again(place: Booted) -> AsyncGenerator[None]:
    good = place.config()
    place.write_config("x: 1\n")
    await place.systemctl("restart", "--no-block", SERVICE)
    yield
    place.write_config(good)
    yield


@BOOTED.add(
    "`listen.port` is not the port of the socket unit", "log", "and that counts; the config names another",
    "the same port in both: `sudo systemctl edit prosody-sidecar.socket`", noted_only=True,
)  # fmt: skip
async def other_port(place: Booted) -> AsyncGenerator[None]:
    good = place.config()
    place.write_config(good + "\nlisten: {port: 8799}\n")
    await place.systemctl("restart", SERVICE)
    yield
    place.write_config(good)
    await place.systemctl("restart", SERVICE)
    yield


# -- the process


@BOOTED.add("The service was killed", "log", "code=killed, status=9/KILL", f"none: {BY_ITSELF}", always=True)
async def killed(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("kill", "--signal=KILL", SERVICE)
    yield
    yield


@BOOTED.add(
    "The kernel killed the service, since memory was short", "log", "status=9/KILL",
    f"`journalctl -k` names it; {BY_ITSELF}; less in `cache`, or more memory", always=True,
)  # fmt: skip
async def out_of_memory(place: Booted) -> AsyncGenerator[None]:
    with no_memory_for(place.machine.pid_of(await place.sh(f"systemctl show --value -p MainPID {SERVICE}"))):
        yield
    yield


@BOOTED.add("The service hangs", "log", "Watchdog timeout", f"none: {BY_ITSELF}")
async def hangs(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("kill", "--kill-whom=main", "--signal=STOP", SERVICE)
    yield
    yield


@BOOTED.add(
    "Only the service was stopped, not its sockets", "systemctl", "prosody-sidecar.socket",
    "none: the next join starts it; [to stop it](operating.md#stop-it), stop the sockets too",
)  # fmt: skip
async def stopped_alone(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("stop", SERVICE)
    yield
    yield


@BOOTED.add(
    "The service and its sockets were stopped", "status fails", "no sidecar answers",
    "`sudo systemctl start prosody-sidecar`", always=True,
)  # fmt: skip
async def stopped(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("stop", *SOCKETS, SERVICE)
    yield
    await place.systemctl("start", SERVICE)
    yield


# -- the disk and the clock


@BOOTED.add(
    "The disk is full", "status", "disk: ", "make space; the sidecar notices by itself", disk="ext4", always=True
)
async def disk_full(place: Booted) -> AsyncGenerator[None]:
    place.backend.on("user-joined", reply({}, status=503))
    await place.sh(f"dd if=/dev/zero of={STATE}/filler bs=64k 2>/dev/null || true; dd if=/dev/zero bs=4k 2>/dev/null "
                   f">> {STATE}/filler || true")  # fmt: skip
    yield
    await place.sh(f"rm {STATE}/filler")
    place.backend.reset_answers()
    yield


@BOOTED.add(
    "The kernel has made the disk read-only, after an error", "status", "disk: ",
    "stop the sidecar, `fsck`, mount it again, start the sidecar", disk="ext4", always=True,
)  # fmt: skip
async def read_only(place: Booted) -> AsyncGenerator[None]:
    place.break_disk()
    yield
    await place.repair_disk()
    yield


@BOOTED.add(
    "Start: the disk is read-only", "status", "disk: ",
    "`sudo mount -o remount,rw` it, **restart**: the service has its own view of the mount", disk="ext4", always=True,
)  # fmt: skip
async def read_only_at_the_start(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("stop", *SOCKETS, SERVICE)
    await place.sh(f"mount -o remount,ro {STATE}")
    await place.systemctl("start", SERVICE)
    yield
    await place.sh(f"mount -o remount,rw {STATE}")
    await place.systemctl("restart", SERVICE)
    yield


@BOOTED.add(
    "A file in `state_dir` is damaged", "status", "decisions.db", "none: it was renamed; look at it, delete it",
    noted_only=True,
)  # fmt: skip
async def damaged(place: Booted) -> AsyncGenerator[None]:
    await place.systemctl("stop", SERVICE)
    await place.sh(f"yes 'not a database' | head -c 20000 > {STATE}/decisions.db")
    await place.systemctl("start", SERVICE)
    yield
    yield


@BOOTED.add(
    "The clock jumps eight days ahead while events wait, and back", "nothing", "", "nothing: ages do not depend on it",
    noted_only=True, always=True,
)  # fmt: skip
async def clock(place: Booted) -> AsyncGenerator[None]:
    place.backend.on("user-joined", reply({}, status=503))
    await place.sh("echo +0 > /run/clock")
    await place.drop_in(
        "Environment=LD_PRELOAD=/shared/libfaketimeMT.so.1 FAKETIME_TIMESTAMP_FILE=/run/clock",
        "Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
    )
    await place.systemctl("restart", SERVICE)
    assert await place.one_more_user()
    await place.sh(f"echo +{8 * DAY} > /run/clock")
    assert (await place.status())["started_at"] > 0
    yield
    await asyncio.sleep(2)  # the events are sent again in the meantime
    await place.sh("echo +0 > /run/clock")
    place.backend.reset_answers()
    yield


# -- the package

PROSODY_USES_IT = "echo 'modules_enabled = { \"muc_webhook\" }' > /etc/prosody/conf.d/row.cfg.lua"
PROSODY_DOES_NOT = "rm /etc/prosody/conf.d/row.cfg.lua"


@BOOTED.add(
    "The package is upgraded from 0.1", "dpkg", "To load this one, run:",
    "the command that is printed, for the module; the sidecar has been restarted",
)  # fmt: skip
async def upgraded(place: Booted) -> AsyncGenerator[None]:
    await place.dpkg("--install", "--force-confold", "/shared/first.deb")
    assert await place.one_more_user()
    await place.sh(PROSODY_USES_IT)
    await place.dpkg("--install", "/shared/sidecar.deb")
    yield
    await place.sh(PROSODY_DOES_NOT)
    yield


@BOOTED.add(
    "The package is downgraded to 0.1", "dpkg", "downgrading prosody-sidecar",
    "install the newer one again; config, answers and events stay",
)  # fmt: skip
async def downgraded(place: Booted) -> AsyncGenerator[None]:
    await place.dpkg("--install", "--force-confold", "/shared/first.deb")
    assert await place.one_more_user()
    yield
    await place.dpkg("--install", "/shared/sidecar.deb")
    yield


@BOOTED.add(
    "The package is removed while Prosody uses the module", "dpkg", "stays and refuses every join",
    "install it again: it is still enabled, and starts", always=True,
)  # fmt: skip
async def removed(place: Booted) -> AsyncGenerator[None]:
    await place.sh(PROSODY_USES_IT)
    await place.dpkg("--remove", "prosody-sidecar")
    yield
    await place.sh(PROSODY_DOES_NOT)
    await place.dpkg("--install", "/shared/sidecar.deb")
    yield


@BOOTED.add(
    "The package is purged while Prosody uses the module", "dpkg", "stays and refuses every join",
    "install it again, write config and secret, `systemctl enable --now`", always=True,
)  # fmt: skip
async def purged(place: Booted) -> AsyncGenerator[None]:
    config = place.config()
    await place.sh(PROSODY_USES_IT)
    await place.dpkg("--purge", "prosody-sidecar")
    yield
    await place.sh(PROSODY_DOES_NOT)
    await place.dpkg("--install", "/shared/sidecar.deb")
    place.write_config(config)
    place.write_credential("s3cret")
    await place.systemctl("enable", "--now", SERVICE)
    yield


ON_THE_PAGE = Rows([*COMMON, *BOOTED])
