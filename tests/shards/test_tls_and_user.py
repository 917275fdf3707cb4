"""An engine with TLS and a user who has just the rights that docs/shards.md gives."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, connection
from redis.exceptions import NoPermissionError, RedisError

from sidecar.errors import EngineError
from sidecar.shared.engine import Engine, Place
from tests.rig.answers import deny, raw, reply
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.module import Module
from tests.rig.ports import free_port
from tests.rig.sidecar import ROOT, Sidecar
from tests.shards.rig import all_in_touch, in_touch, order, shard, until, write_secret

PASSWORD = "a-password-of-the-engine"
ANN = "ann@example.com"
NEWER = "+client|setinfo"
ACL = re.compile(r"`ACL SETUSER (sidecar .*?)`")


async def rights(engine: EngineProcess) -> list[str]:
    """The line of the page, with a password, and what newer engines need besides."""
    found = ACL.search((ROOT / "docs" / "shards.md").read_text())
    assert found is not None
    version = (await engine.info("server"))["redis_version"]
    more = [NEWER] if tuple(map(int, version.split("."))) >= (7, 2) else []
    return [*found[1].replace("PASSWORD", PASSWORD).split(), *more]


def make_certificates(folder: Path, name: str) -> None:
    """An authority (ca.pem), and a certificate that it has signed for this name (server.pem, server.key)."""
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj")
    ca = (str(folder / "ca.pem"), str(folder / "ca.key"))
    _openssl(*new, "/CN=Authority", "-x509", "-days", "2", "-out", ca[0], "-keyout", ca[1])
    request, key = str(folder / "server.csr"), str(folder / "server.key")
    _openssl(*new, "/CN=engine", "-out", request, "-keyout", key)
    (folder / "extra").write_text(f"subjectAltName={name}\n")
    signed = ("-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial", "-days", "2", "-extfile", str(folder / "extra"))
    _openssl("x509", "-req", "-in", request, *signed, "-out", str(folder / "server.pem"))


def add_tls(engine: EngineProcess, port: int, name: str) -> None:
    """Let an engine that does not run yet use TLS on another port, with a certificate for this name."""
    make_certificates(engine.folder, name)
    for kind, file in {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}.items():
        (engine.folder / file).chmod(0o644)
        engine.arguments += (f"--tls-{kind}-file", engine.seen(engine.folder / file))
    engine.arguments += ("--tls-port", str(port), "--tls-auth-clients", "no")


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@dataclass
class Guarded:
    """An engine that knows a user, and speaks TLS on another port than for the tests."""

    engine: EngineProcess
    tls_port: int

    def url(self, user: str = "sidecar") -> str:
        return f"rediss://{user}@127.0.0.1:{self.tls_port}/1"

    @asynccontextmanager
    async def shards(self, backend: Backend, count: int, **more: str) -> AsyncIterator[list[Sidecar]]:
        """Sidecars that use it as that user."""
        file = self.engine.folder / "password"
        write_secret(file, PASSWORD)
        shared = {"password_file": str(file), "ca_file": str(self.engine.folder / "ca.pem"), **more}
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(shard(backend, self.url(), None, shared)) for _ in range(count)]

    async def as_sidecar(self, *words: str) -> object:
        """One command of that user."""
        client = Redis(host="127.0.0.1", port=self.engine.port, username="sidecar", password=PASSWORD)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()


@asynccontextmanager
async def guarded(name: str) -> AsyncIterator[Guarded]:
    port = free_port()
    async with EngineProcess.prepared() as engine:
        add_tls(engine, port, name)
        await engine.run()
        await engine.order("ACL", "SETUSER", *await rights(engine))
        yield Guarded(engine, port)


@pytest.fixture
async def at() -> AsyncIterator[Guarded]:
    async with guarded("IP:127.0.0.1") as it:
        yield it


async def test_everything_works_with_these_rights_and_none_of_them_is_superfluous(
    backend: Backend, at: Guarded
) -> None:
    engine = at.engine
    async with engine.replica():
        await engine.order("CONFIG", "RESETSTAT")
        async with at.shards(backend, 2) as (here, there):
            await all_in_touch(here, there)
            await engine.order("SCRIPT", "FLUSH")
            await engine.order("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(1.0)
            await all_in_touch(here, there)
            await _everything(backend, here, there)
        assert await engine.order("ACL", "LOG") == []
        used = {name.removeprefix("cmdstat_") for name in await engine.info("commandstats")}
        granted = {right[1:] for right in await rights(engine) if right.startswith("+")}
        assert granted - used == set()


async def _everything(backend: Backend, here: Sidecar, there: Sidecar) -> None:
    """What sidecars do with an engine, once each."""
    assert (await here.decides("standup", ANN)).allowed
    await here.configures("standup")
    backend.on("room-created", reply({"password": "hush"}), room="retro")
    await here.configures("retro")
    backend.on("validate-access", raw('{"allowed": true}', headers={"Cache-Control": "private"}), room="open")
    await here.decides("open", "guest@guest.example.com", guest=True)
    assert (await order(here, "forget", user=ANN))[0] == 200
    backend.on("validate-access", deny("cancelled"))
    assert not (await here.decides("standup", ANN)).allowed
    assert not (await here.decides("standup", "eve@example.com")).allowed
    absent = Module({"status": "absent"})
    async with absent.linked(here), absent.linked(there, "2-2"):
        assert (await order(here, "end", room="nowhere"))[0] == 404
    await all_in_touch(here, there)
    await asyncio.sleep(1.5)
    await backend.stop()
    assert not (await there.decides("standup", ANN)).allowed
    assert (await there.configures("standup")).status == 200


FORBIDDEN = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "LIST"),
    ("DEBUG", "SLEEP", "0"),
    ("SHUTDOWN",),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "FLUSH"),
    ("MONITOR",),
    ("SAVE",),
    ("GET", "of-another-application"),
    ("SET", "of-another-application", "1"),
    ("XADD", "of-another-application", "*", "a", "b"),
    ("EVAL", "return redis.call('GET', 'of-another-application')", "0"),
    ("EVAL", "return redis.call('FLUSHALL')", "0"),
    ("EVAL", "return redis.call('GET', KEYS[1])", "1", "of-another-application"),
    ("RESTORE", "{prosody-sidecar}:x", "0", "x"),
    ("SUBSCRIBE", "channel"),
    ("PUBLISH", "channel", "x"),
)


async def test_nothing_more_is_allowed(at: Guarded) -> None:
    await at.engine.order("SET", "of-another-application", "1")
    for words in FORBIDDEN:
        with pytest.raises(RedisError) as failed:
            await at.as_sidecar(*words)
        said = str(failed.value)
        in_script = "ACL failure" in said or "The user executing the script can't" in said
        assert in_script or isinstance(failed.value, NoPermissionError), words
    assert await at.engine.order("GET", "of-another-application") == b"1"


async def test_an_engine_whose_certificate_another_authority_has_signed_is_not_used(
    backend: Backend, at: Guarded, tmp_path: Path
) -> None:
    make_certificates(tmp_path, "IP:127.0.0.1")
    async with at.shards(backend, 1, ca_file=str(tmp_path / "ca.pem")) as (sidecar,):
        await _is_answered_alone(sidecar)


async def test_an_engine_whose_certificate_has_another_name_is_not_used(backend: Backend) -> None:
    async with guarded("DNS:another.example.com") as at, at.shards(backend, 1) as (sidecar,):
        await _is_answered_alone(sidecar)


class Careless(connection.SSLConnection):
    """As in the oldest client that setup.cfg allows: names are checked only on request."""

    def __init__(self, ssl_check_hostname: bool = False, **options: Any) -> None:
        super().__init__(ssl_check_hostname=ssl_check_hostname, **options)


@pytest.mark.parametrize(
    ("name", "scheme", "is_used"),
    [
        ("DNS:another.example.com", "rediss", False),
        ("DNS:another.example.com", "REDISS", False),
        ("IP:127.0.0.1", "rediss", True),
    ],
)
async def test_the_name_in_a_certificate_is_checked_whatever_the_client_does_by_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, scheme: str, is_used: bool
) -> None:
    monkeypatch.setattr(connection, "SSLConnection", Careless)
    async with guarded(name) as at:
        url = at.url().replace("rediss", scheme)
        engine = Engine(Place(url, password=PASSWORD, ca_file=str(at.engine.folder / "ca.pem")), lambda: "text")
        engine._open_until = float("inf")  # one connection: on a busy machine, not all 32 are closed within a second
        try:
            with nullcontext() if is_used else pytest.raises(EngineError, match="certificate verify failed"):
                await engine.beat(0, "here")
        finally:
            await engine.close()


async def test_with_a_wrong_password_users_are_answered_without_the_engine(
    backend: Backend, at: Guarded, tmp_path: Path
) -> None:
    write_secret(tmp_path / "wrong", "another-password")
    async with at.shards(backend, 1, password_file=str(tmp_path / "wrong")) as (sidecar,):
        await _is_answered_alone(sidecar)
        assert "another-password" not in sidecar.output()
        assert "another-password" not in (await sidecar.get("/status")).body.decode()


async def _is_answered_alone(sidecar: Sidecar) -> None:
    assert (await sidecar.decides("standup", ANN)).allowed
    await asyncio.sleep(1.0)
    assert not await in_touch(sidecar)
    assert (await sidecar.decides("standup", "bob@example.com")).allowed
    await until(lambda: _is_said(sidecar), 8.0)


async def _is_said(sidecar: Sidecar) -> bool:
    status = (await sidecar.get("/status")).document
    return any("shared memory" in reason for reason in status["reasons"])
