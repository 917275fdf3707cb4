"""`prosody-sidecar doctor` on a real Prosody and a real sidecar, with what can be wrong between them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.prosody.conftest import GATE, Server, StartProsody, eventually
from tests.rig.answers import reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tools.command_documents import validate

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def look(sidecar: Sidecar, prosodyctl: str) -> tuple[int, dict[str, list[Mapping[str, Any]]]]:
    """The exit code, and what was found, by the name of the step."""
    code, said = await sidecar.command("doctor", "--json", "--prosodyctl", prosodyctl)
    found: dict[str, list[Mapping[str, Any]]] = {}
    validate("doctor", said)
    for step in json.loads(said)["steps"]:
        found.setdefault(step["name"], []).append(step)
    return code, found


def states(found: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, str]:
    """The worst state of each step that is not well."""
    order = ("failed", "unwise", "ok")
    worst = {name: min((step["state"] for step in steps), key=order.index) for name, steps in found.items()}
    return {name: state for name, state in worst.items() if state != "ok" and name not in ("secret", "latency")}


@asynccontextmanager
async def linked(
    start_prosody: StartProsody, url: str | None = None, **options: Any
) -> AsyncIterator[tuple[Server, Sidecar, Backend]]:
    """A backend, a sidecar, and a Prosody whose module has a link to it, unless it asks another URL."""
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=url or sidecar.webhooks, **options)
        if url is None:
            await eventually(lambda: prosody.module(f"return {GATE}.parts.link.is_up()"), True)
        yield prosody, sidecar, backend


async def test_nothing_is_wrong_where_all_is_well(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, _):
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (0, {})
        assert {"module", "url", "link", "sidecar", "DNS", "TCP", "events"} <= set(found)
        assert "conference.localhost" in found["link"][0]["found"]


async def test_a_module_that_waits_too_short_is_named_with_both_values(start_prosody: StartProsody) -> None:
    async with linked(start_prosody, options={"muc_webhook_timeout": 3.5}) as (prosody, sidecar, _):
        _, found = await look(sidecar, prosody.prosodyctl)
        (step,) = [step for step in found["sidecar"] if step["state"] == "unwise"]
        assert "on conference.localhost waits 3.5 s" in step["found"]
        assert "may take 4 s here" in step["found"]
        await sidecar.until_logged("prosody: the module on conference.localhost waits 3.5 s")


async def test_a_gate_that_is_down_is_named_with_its_cause(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, _):
        await prosody.unload()
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"module": "failed", "link": "unwise"})
        assert "module:load('muc_webhook', 'conference.localhost')" in found["module"][0]["found"]


async def test_a_prosody_without_the_module_is_open_to_everybody(start_prosody: StartProsody) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        prosody = await start_prosody(fresh=True, muc_modules=())
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"module": "failed", "link": "unwise"})
        assert "everybody can join" in found["module"][0]["found"]


async def test_a_shell_that_cannot_be_used_says_nothing_about_the_module() -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        _, found = await look(sidecar, "sh -c 'echo Prosody was unable to find the configuration file.'")
        assert states(found)["module"] == "unwise"
        assert "Prosody was unable to find the configuration file." in found["module"][0]["found"]


async def test_a_module_that_asks_elsewhere_is_named_with_the_line_to_write(start_prosody: StartProsody) -> None:
    async with linked(start_prosody, "http://127.0.0.1:1/webhooks/jitsi") as (prosody, sidecar, _):
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"url": "failed", "link": "unwise"})
        assert f'muc_webhook_url = "{sidecar.webhooks}"' in found["url"][0]["advice"]


async def test_a_prosody_that_does_not_run_is_named(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, _):
        await prosody.stop()
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"module": "failed", "link": "unwise"})
        assert "does not run" in found["module"][0]["found"]


async def test_a_sidecar_that_does_not_run_is_named_and_the_module_is_examined_too(start_prosody: StartProsody) -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url) as sidecar:
        await sidecar.run()
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks)
        await sidecar.end()
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"sidecar": "failed"})
        assert "conference.localhost: loaded" in found["module"][0]["found"]


async def test_a_backend_that_is_gone_is_named(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, backend):
        await backend.stop()
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (1, {"TCP": "failed"})


async def test_parked_events_are_named(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, backend):
        backend.on("user-joined", reply({"error": "no"}, status=400))
        await sidecar.event("user-joined", "standup", "key")
        await sidecar.until_logged("event parked")
        code, found = await look(sidecar, prosody.prosodyctl)
        assert (code, states(found)) == (0, {"events": "unwise"})
        assert "outbox list" in found["events"][0]["advice"]


async def test_all_of_it_is_one_screen(start_prosody: StartProsody) -> None:
    async with linked(start_prosody) as (prosody, sidecar, _):
        _, said = await sidecar.command("doctor", "--prosodyctl", prosody.prosodyctl)
        sys.stdout.write(said)
        assert len(said.splitlines()) <= 24
