"""`check --online` and `doctor` say what is wrong with the engine, and what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.core.engine_facts import access_rule
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.shards.rig import KEY, order, shards

PASSWORD = "a-password-of-the-engine"


@asynccontextmanager
async def config(backend: Backend, url: str, password: str | None = None) -> AsyncIterator[Sidecar]:
    """A config that names this engine; nothing runs."""
    async with Sidecar.prepared(backend.url) as sidecar:
        for name, text in (("key", KEY), ("password", password or "")):
            Path(sidecar.folder / name).write_text(text)
        shared = {"url": url, "key_file": str(sidecar.folder / "key")}
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
        assert "firewall" in advice
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
        await engine.order("ACL", "SETUSER", "sidecar", "-hgetall", "-xinfo|stream")
        steps = await engine_steps(second)
        state, advice = steps["user sidecar may not run: hgetall, xinfo|stream"]
        assert state == "failed"
        assert "ACL SETUSER sidecar" in advice
