"""The alerts, with a real Prometheus that scrapes a real daemon in real failures. A minute is a second here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.rig.answers import allow, reply, with_secret
from tests.rig.backend import Backend
from tests.rig.faults import Fault
from tests.rig.link import Link
from tests.rig.module import Module
from tests.rig.prometheus import Watched, prometheus
from tests.rig.sidecar import ROOT, Sidecar
from tests.rig.smalldisk import MEBIBYTE, small_disk

Watch = Callable[[Sidecar], AbstractAsyncContextManager[Watched]]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    @asynccontextmanager
    async def watched(sidecar: Sidecar) -> AsyncIterator[Watched]:
        async with prometheus(sidecar.config["admin"]["port"], tmp_path) as it:
            yield it

    return watched


async def test_no_alert_fires_while_all_is_well(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        for n in range(20):
            await sidecar.decides("standup", f"user{n}@example.org")
            await sidecar.event("user-joined", "standup", f"key-{n}")
            assert await watched.firing() == set()
            await asyncio.sleep(0.5)


async def test_one_user_who_is_refused_by_policy_is_an_alert(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        await backend.goes(Fault.ERROR_500)
        await sidecar.decides("standup", "ann@example.org")
        await watched.until({"SidecarTurnsPeopleAway"})
        await watched.stays({"SidecarTurnsPeopleAway"}, 1)
        await backend.goes(Fault.NONE)
        await sidecar.decides("standup", "ann@example.org")
        await watched.until(set())


async def test_a_backend_that_is_away_is_an_alert_also_if_all_users_have_cached_answers(watch: Watch) -> None:
    settings = {
        "breaker": {"open_for": 1},
        "endpoints": {"validate-access": {"allow": {"fresh": 0}}},
    }
    async with Backend() as backend, Sidecar.start(backend.url, settings) as sidecar, watch(sidecar) as watched:
        await sidecar.decides("standup", "ann@example.org")
        await backend.stop()
        for _ in range(20):
            assert (await sidecar.decides("standup", "ann@example.org")).allowed
        await watched.until({"SidecarDegraded"})
        assert "SidecarTurnsPeopleAway" not in await watched.firing()
        await backend.listen()
        await asyncio.sleep(1)
        await sidecar.decides("standup", "ann@example.org")
        await watched.until(set())


async def test_a_daemon_that_was_killed_is_an_alert(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url) as sidecar:
        await sidecar.run()
        async with watch(sidecar) as watched:
            await sidecar.kill()
            await watched.until({"SidecarAway"})
            await sidecar.run()
            await watched.until(set())
            await sidecar.end()


async def test_metrics_that_are_served_while_the_webhook_port_is_not_are_an_alert(watch: Watch) -> None:
    """systemd holds the socket of the admin listener, and starts the service again and again."""
    async with Backend() as backend, Sidecar.prepared(backend.url) as sidecar:
        sidecar.write()
        with (
            socket.create_server(("127.0.0.1", sidecar.config["admin"]["port"])) as admin,
            socket.create_server(("127.0.0.1", sidecar.config["listen"]["port"])),
        ):
            stopped = asyncio.Event()
            restarts = asyncio.ensure_future(_started_again_and_again(sidecar, admin, stopped))
            try:
                async with watch(sidecar) as watched:
                    await watched.until({"SidecarAway"})
            finally:
                stopped.set()
                await restarts


async def _started_again_and_again(sidecar: Sidecar, admin: socket.socket, stopped: asyncio.Event) -> None:
    serve = f"exec {sys.executable} -m sidecar run --config {sidecar.file}"
    run = f"exec 3<&{admin.fileno()} && LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=admin {serve}"
    while not stopped.is_set():
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", run, cwd=ROOT, pass_fds=[admin.fileno()], env=os.environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 1


async def test_a_wrong_secret_is_an_alert_until_it_is_right(watch: Watch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    settings = {"backend": {"secret_file": str(secret)}}
    async with Backend() as backend, Sidecar.start(backend.url, settings) as sidecar, watch(sidecar) as watched:
        backend.on("validate-access", with_secret("right", allow()))
        await sidecar.decides("standup", "ann@example.org")
        await watched.until({"SidecarBackendDistrusts"})
        await asyncio.sleep(6)
        assert "SidecarBackendDistrusts" in await watched.firing()
        secret.write_text("right")
        sidecar.signal(signal.SIGHUP)
        await sidecar.until_logged("reloaded")
        await sidecar.decides("standup", "ann@example.org")
        await watched.until(set())


async def test_a_refused_config_is_an_alert_from_the_first_refusal_until_it_is_fixed(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        good = sidecar.file.read_text()
        sidecar.file.write_text("backend: {url: nonsense}\n")
        sidecar.signal(signal.SIGHUP)
        await watched.until({"SidecarConfigRefused"})
        await watched.stays({"SidecarConfigRefused"}, 4)
        sidecar.file.write_text(good)
        sidecar.signal(signal.SIGHUP)
        await watched.until(set(), within=10)
        await watched.stays(set())


async def test_a_full_disk_is_an_alert(watch: Watch, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 40 * MEBIBYTE) as disk:
        settings = {"state_dir": str(disk.folder / "state")}
        async with Backend() as backend, Sidecar.start(backend.url, settings) as sidecar, watch(sidecar) as watched:
            await sidecar.event("user-joined", "standup", "first")
            disk.fill()
            backend.on("user-joined", reply({}, status=503))
            for n in range(200):
                await sidecar.event("user-joined", "standup", f"key-{n}", filler="x" * 20_000)
            await watched.until({"SidecarDisk"})
            disk.empty()
            async with asyncio.timeout(20):
                while (await sidecar.event("user-joined", "standup", "next")).status != 202:
                    await asyncio.sleep(0.2)
            backend.reset_answers()
            await watched.until(set())


async def test_a_parked_event_is_an_alert_until_an_operator_decides(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        backend.on("user-joined", reply({"error": "no"}, status=400))
        await sidecar.event("user-joined", "standup", "key")
        await watched.until({"SidecarEventsParked"})
        code, said = await sidecar.command("outbox", "drop", "--all")
        assert code == 0, said
        await watched.until(set())


async def test_a_certificate_that_ends_soon_is_an_alert(watch: Watch, tmp_path: Path) -> None:
    settings = {"backend": {"ca_file": str(_certificate(tmp_path, days=5))}}
    async with (
        Backend(tls=tmp_path / "5.pem") as backend,
        Sidecar.start(backend.url, settings) as sidecar,
        watch(sidecar) as watched,
    ):
        assert (await sidecar.decides("standup", "ann@example.org")).allowed
        await watched.until({"SidecarCertificateEnds"})


async def test_a_certificate_that_is_long_valid_is_none(watch: Watch, tmp_path: Path) -> None:
    settings = {"backend": {"ca_file": str(_certificate(tmp_path, days=40))}}
    async with (
        Backend(tls=tmp_path / "40.pem") as backend,
        Sidecar.start(backend.url, settings) as sidecar,
        watch(sidecar) as watched,
    ):
        assert (await sidecar.decides("standup", "ann@example.org")).allowed
        await watched.stays(set())


def _certificate(folder: Path, days: int) -> Path:
    file = folder / f"{days}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         str(days), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out",
         f"{file}.cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + Path(f"{file}.cert").read_text())
    return Path(f"{file}.cert")


async def test_answers_that_must_not_be_remembered_are_an_alert(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        backend.headers["Cache-Control"] = "no-store"
        await sidecar.decides("standup", "ann@example.org")
        await watched.until({"SidecarHelpsNobodyInAnOutage"})
        await watched.stays({"SidecarHelpsNobodyInAnOutage"}, 1)
        backend.headers.clear()
        await sidecar.decides("standup", "bob@example.org")
        await watched.until(set())


async def test_a_module_that_was_there_and_is_gone_is_an_alert(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        module = Module({"status": "done"})
        await sidecar.decides("standup", "ann@example.org")
        async with module.linked(sidecar):
            await asyncio.sleep(2)
            assert await watched.firing() == set()
        await watched.until({"SidecarGateGone"})
        async with module.linked(sidecar):
            await watched.until(set())


async def test_one_of_two_modules_that_is_gone_is_an_alert_while_the_other_asks(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        module = Module({"status": "done"})
        async with module.linked(sidecar, host="conference.example.net") as other:
            async with module.linked(sidecar):
                await asyncio.sleep(2)
            asking = asyncio.ensure_future(_asks_again_and_again(other))
            try:
                await watched.until({"SidecarGateGone"})
            finally:
                asking.cancel()
            async with module.linked(sidecar):
                await watched.until(set())


async def _asks_again_and_again(link: Link) -> None:
    while True:
        await link.asks("join", {"roomName": "standup", "userJid": "ann@example.org/r", "timestamp": 1})
        await asyncio.sleep(0.5)


async def test_a_module_that_asks_over_http_is_not_gone(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        async with Module({"status": "done"}).linked(sidecar):
            await asyncio.sleep(2)
        for n in range(20):
            room_jid = "standup@conference.example.com"
            await sidecar.decides("standup", f"user{n}@example.org", roomJid=room_jid)
            await asyncio.sleep(0.5)
            assert await watched.firing() == set()


async def test_a_site_whose_module_never_had_a_link_has_no_alert(watch: Watch) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar, watch(sidecar) as watched:
        await sidecar.decides("standup", "ann@example.org")
        await watched.stays(set(), 8)
