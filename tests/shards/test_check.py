"""`check --online` and `doctor` say what is wrong with the engine, and what to do."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.engine_facts import access_rule
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.ports import free_port
from tests.rig.sidecar import ROOT, Sidecar
from tests.shards.rig import KEY, order, shards, until
from tests.shards.test_tls_and_user import add_tls

PASSWORD = "a-password-of-the-engine"


@asynccontextmanager
async def config(backend: Backend, url: str, password: str | None = None, **settings: str) -> AsyncIterator[Sidecar]:
    """A config that names this engine; nothing runs."""
    async with Sidecar.prepared(backend.url) as sidecar:
        for name, text in (("key", KEY), ("password", password or "")):
            Path(sidecar.folder / name).write_text(text)
        shared = {"url": url, "key_file": str(sidecar.folder / "key"), **settings}
        if password:
            shared["password_file"] = str(sidecar.folder / "password")
        sidecar.write({"shared": shared})
        yield sidecar


async def engine_steps(sidecar: Sidecar) -> dict[str, tuple[str, str]]:
    """By what was found: the state, and the advice."""
    _, printed = await sidecar.command("check", "--online", "--json")
    steps: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])["online"]
    return {each["found"]: (each["state"], each["advice"]) for each in steps if each["name"] == "engine"}


async def test_a_good_engine_is_good(backend: Backend, engine: EngineProcess) -> None:
    await engine.order("CONFIG", "SET", "min-replicas-to-write", "1")
    await engine.order("CONFIG", "SET", "appendonly", "yes")
    await engine.order("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    async with engine.replica(), config(backend, engine.url) as sidecar:
        steps = await engine_steps(sidecar)
        assert {state for state, _ in steps.values()} == {"ok"}, steps
        assert "user default has all rights that are needed" in steps
        assert "it is the primary" in steps
        assert await engine.order("KEYS", "*") == []


async def test_an_engine_as_it_comes_is_not_advisable(backend: Backend, engine: EngineProcess) -> None:
    await engine.order("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with config(backend, engine.url) as sidecar:
        steps = await engine_steps(sidecar)
        unwise = [found for found, (state, _) in steps.items() if state == "unwise"]
        assert unwise == [
            "replicas: 0; min-replicas-to-write is not set",
            "no maxmemory, maxmemory-policy allkeys-lru",
            "nothing is written to disk",
        ]


async def test_shards_with_different_databases_or_namespaces_are_each_said_to_be_alone(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url.replace("/0", "/1")) as both:
        for database, sidecar in enumerate(both):
            found = f"1 sidecar uses namespace prosody-sidecar in database {database} now"
            assert (await engine_steps(sidecar))[found][0] == "unwise"
            _, printed = await sidecar.command("doctor")
            assert found in printed
    async with shards(backend, engine.url, engine.url) as both:
        await until(partial(is_one_of, 2, both[0]), 30)  # those from before count for ten seconds
        assert "2 sidecars use namespace prosody-sidecar in database 0 now" in await engine_steps(both[0])
    async with config(backend, engine.url, namespace="tenant-a") as sidecar:
        assert "no sidecars use namespace tenant-a in database 0 now" in await engine_steps(sidecar)


async def is_one_of(members: int, sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_members") == members


async def test_a_replica_is_no_engine(backend: Backend, engine: EngineProcess) -> None:
    async with engine.replica() as replica, config(backend, replica.url) as sidecar:
        assert (await engine_steps(sidecar))["this is a replica, which takes no writes"][0] == "failed"
        code, printed = await sidecar.command("doctor")
        assert code == 1
        assert "this is a replica" in printed


async def test_an_engine_that_is_away_or_refuses_the_password_is_said(backend: Backend, engine: EngineProcess) -> None:
    await engine.order("ACL", "SETUSER", "sidecar", "on", f">{PASSWORD}", "~*", "+@all")
    url = engine.url.replace("redis://", "redis://sidecar@")
    async with config(backend, url, "another-password") as sidecar:
        ((found, (state, advice)),) = (await engine_steps(sidecar)).items()
        assert state == "failed"
        assert "cannot be used" in found
        assert "shared.password_file" in advice
    await engine.kill()
    async with config(backend, url, PASSWORD) as sidecar:
        ((found, (state, advice)),) = (await engine_steps(sidecar)).items()
        assert state == "failed"
        assert "nothing listens there" in advice
        assert PASSWORD not in found + advice


async def test_a_user_with_the_rights_of_the_page_can_do_all_and_one_that_is_missing_is_named(
    backend: Backend, engine: EngineProcess, tmp_path: Path
) -> None:
    rule = access_rule("sidecar", "prosody-sidecar").replace("PASSWORD", PASSWORD)
    await engine.order(*rule.split())
    url = engine.url.replace("redis://", "redis://sidecar@")
    (tmp_path / "password").write_text(PASSWORD)
    settings = {"shared": {"password_file": str(tmp_path / "password")}}
    async with shards(backend, url, url, settings=settings) as (first, second):
        assert (await first.decides("standup", "ann@example.com")).allowed
        assert (await order(first, "forget", room="standup"))[0] == 200
        assert (await order(first, "end", room="standup"))[0] == 202
        steps = await engine_steps(second)
        assert "user sidecar has all rights that are needed" in steps
        assert {state for state, _ in steps.values()} <= {"ok", "unwise"}, steps
        await engine.order("ACL", "SETUSER", "sidecar", "-hgetall", "-xinfo|stream")
        steps = await engine_steps(second)
        state, advice = steps["user sidecar may not run: hgetall, xinfo|stream"]
        assert state == "failed"
        assert "ACL SETUSER sidecar" in advice


async def failed(backend: Backend, url: str, password: str | None = None, **settings: str) -> list[tuple[str, str]]:
    """What was found, and the advice, of each step that failed; the exit code says so too."""
    async with config(backend, url, password, **settings) as sidecar:
        found = [
            (found, advice) for found, (state, advice) in (await engine_steps(sidecar)).items() if state == "failed"
        ]
        code, _ = await sidecar.command("check", "--online")
        assert bool(code) == bool(found)
        return found


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [("maxmemory", "1mb", "raise maxmemory"), ("min-replicas-to-write", "2", "start them, or lower it")],
)
async def test_an_engine_that_refuses_to_write_fails_the_check(
    backend: Backend, engine: EngineProcess, setting: str, value: str, advice: str
) -> None:
    assert await failed(backend, engine.url) == []
    await engine.order("CONFIG", "SET", setting, value)
    ((found, said),) = await failed(backend, engine.url)
    assert "does not carry out what a sidecar does" in found
    assert advice in said
    assert await engine.order("KEYS", "*") == []


@pytest.mark.parametrize("command", ["EVALSHA", "INFO", "TIME"])
async def test_an_engine_without_a_command_that_is_needed_fails_the_check(backend: Backend, command: str) -> None:
    async with EngineProcess.start("--rename-command", command, "") as engine:
        ((found, advice),) = await failed(backend, engine.url)
        assert found == f"the engine does not have: {command.lower()}"
        assert "renames these commands" in advice


async def test_a_node_of_a_cluster_without_slots_fails_the_check(backend: Backend) -> None:
    async with EngineProcess.start("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as engine:
        ((_, advice),) = await failed(backend, engine.url)
        assert "cluster-enabled no" in advice


@pytest.mark.parametrize("name", ["generation", "stream", "members", "processes", "orders", "changes"])
async def test_a_key_that_another_program_uses_fails_the_check_and_stays(
    backend: Backend, engine: EngineProcess, name: str
) -> None:
    key = f"{{prosody-sidecar}}:{name}"
    await engine.order("SADD", key, "theirs")
    ((found, advice),) = await failed(backend, engine.url)
    assert key in found
    assert "shared.namespace" in advice
    assert await engine.order("KEYS", "*") == [key.encode()]


async def test_a_database_that_is_not_there_fails_the_check(backend: Backend, engine: EngineProcess) -> None:
    ((_, advice),) = await failed(backend, engine.url.replace("/0", "/99"))
    assert "number of a database" in advice


async def test_a_user_who_may_not_select_the_database_fails_the_check(backend: Backend, engine: EngineProcess) -> None:
    await engine.order("ACL", "SETUSER", "sidecar", "on", f">{PASSWORD}", "~*", "+@all", "-select")
    url = engine.url.replace("redis://", "redis://sidecar@").replace("/0", "/1")
    ((_, advice),) = await failed(backend, url, PASSWORD)
    assert "ACL SETUSER sidecar" in advice


async def test_tls_on_one_side_only_fails_the_check_and_says_on_which(backend: Backend) -> None:
    tls_port = free_port()
    async with EngineProcess.prepared() as engine:
        add_tls(engine, tls_port, "IP:127.0.0.1")
        await engine.run()
        ((_, advice),) = await failed(backend, engine.url.replace("redis://", "rediss://"))
        assert "no TLS on this port" in advice
        ((_, advice),) = await failed(backend, f"redis://127.0.0.1:{tls_port}")
        assert "write rediss://" in advice
        ((_, advice),) = await failed(backend, f"rediss://127.0.0.1:{tls_port}")
        assert "shared.ca_file" in advice
        right = {"ca_file": str(engine.folder / "ca.pem")}
        assert await failed(backend, f"rediss://127.0.0.1:{tls_port}", **right) == []


async def test_another_program_on_the_port_fails_the_check(backend: Backend) -> None:
    ((_, advice),) = await failed(backend, backend.url.replace("http://", "redis://").partition("/webhooks")[0])
    assert "another program answers there" in advice


async def test_what_accepts_and_never_answers_fails_the_check(backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ((_, advice),) = await failed(backend, f"redis://127.0.0.1:{silent.getsockname()[1]}")
    assert "does not answer" in advice


async def test_an_engine_starts_with_the_lines_of_the_page_and_is_good(backend: Backend) -> None:
    block = re.search(r"```\n(.*?min-replicas.*?)```", (ROOT / "docs" / "shards.md").read_text(), re.DOTALL)
    assert block is not None
    async with EngineProcess.prepared() as engine:
        lines = engine.folder / "lines.conf"
        lines.write_text(block[1])
        engine.arguments = ("--appendonly", "yes", "--include", engine.seen(lines))
        await engine.run()
        async with engine.replica(), config(backend, engine.url) as sidecar:
            steps = await engine_steps(sidecar)
            assert {state for state, _ in steps.values()} == {"ok"}, steps
