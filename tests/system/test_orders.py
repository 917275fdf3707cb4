"""Orders to a real daemon: who may give them, over which way, and what of them survives a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.rig.backend import Backend
from tests.rig.ports import free_port
from tests.rig.sidecar import ROOT, Sidecar
from tests.unit.builders import make_certificate

KEY = "a-key-of-the-meeting-service"
ANN = "ann@example.org"


@pytest.fixture
async def sidecar(backend: Backend, tmp_path: Path) -> AsyncIterator[Sidecar]:
    """One with a state folder and a control listener; it does not run yet."""
    for name, text in (("key", KEY), ("token", "a-token-for-the-module")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    settings = {
        "listen": {"token_file": str(tmp_path / "token")},
        "control": {"port": free_port(), "token_file": str(tmp_path / "key"), "ttl": 2},
    }
    async with Sidecar.prepared(backend.url, settings, on_disk=True) as it:
        yield it


async def orders(
    sidecar: Sidecar, verb: str, body: Mapping[str, Any], *, token: str = KEY, **headers: str
) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{sidecar.config['control']['port']}/control/v1/{verb}"
    sent = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with sidecar.session.post(url, json=body, headers=sent) as response:
        return response.status, await response.json(content_type=None)


async def test_a_user_who_was_kicked_is_not_let_in_from_memory_also_after_a_kill_with_the_backend_gone(
    sidecar: Sidecar, backend: Backend
) -> None:
    await sidecar.run()
    for who in (ANN, "bob@example.org"):
        assert (await sidecar.decides("standup", who)).allowed is True
    assert await orders(sidecar, "kick", {"room": "standup", "user": ANN}) == (202, {"pending": True})
    await sidecar.kill()
    await backend.stop()
    await sidecar.run()
    assert (await sidecar.decides("standup", ANN)).allowed is False
    assert (await sidecar.decides("standup", "bob@example.org")).allowed is True


async def test_an_order_that_nobody_carries_out_survives_a_kill_and_is_given_up_with_an_event(
    sidecar: Sidecar, backend: Backend
) -> None:
    await sidecar.run()
    order = {"room": "standup", "reason": "over"}
    assert (await orders(sidecar, "end", order, Idempotency_Key="k-1"))[0] == 202
    await sidecar.kill()
    await sidecar.run()
    assert (await orders(sidecar, "end", order, Idempotency_Key="k-1"))[0] in (202, 410)
    await sidecar.until_logged("order ended", 10)
    assert (await orders(sidecar, "end", order, Idempotency_Key="k-1"))[0] == 410
    assert await sidecar.metric("orders_total", verb="end", result="expired") == 1
    assert [line["sender"] for line in sidecar.log("order taken")] == ["key 1 from 127.0.0.1"]
    async with asyncio.timeout(5):
        while await sidecar.metric("events_total", endpoint="order-expired", fate="accepted") < 1:
            await asyncio.sleep(0.02)
    await sidecar.end()


async def test_a_listener_without_a_token_only_reads_and_the_socket_does_the_rest(
    sidecar: Sidecar, backend: Backend
) -> None:
    await sidecar.run()
    await sidecar.decides("standup", ANN)
    for path in ("/purge", "/outbox/drop", "/control/v1/kick"):
        async with sidecar.session.post(sidecar.admin + path, json={"all": True}) as response:
            assert response.status == 403
    assert (await sidecar.get("/control/v1/rooms/standup")).status == 403
    socket = Path(sidecar.config["state_dir"]) / "admin.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o660
    code, printed = await sidecar.command("purge", "--room", "standup", "--json")
    assert (code, json.loads(printed)) == (0, {"purged": 1})
    await sidecar.end()
    assert not socket.exists()


async def test_the_commands_say_what_became_of_an_order(sidecar: Sidecar, backend: Backend) -> None:
    await sidecar.run()
    await sidecar.decides("standup", ANN)
    code, printed = await sidecar.command("forget", "--room", "standup", "--user", ANN, "--json")
    assert (code, json.loads(printed)) == (0, {"forgotten": 1})
    code, printed = await sidecar.command("kick", "standup", ANN, "--json")
    assert (code, json.loads(printed)) == (0, {"pending": True})
    for arguments in (["end", "standup"], ["refresh", "standup"]):
        assert await sidecar.command(*arguments) == (0, "pending: no module of Prosody has carried it out yet\n")
    code, printed = await sidecar.command("who", "standup")
    assert (code, "no module of Prosody is connected" in printed) == (1, True)
    assert (await sidecar.command("end", "a@b@c"))[0] == 1
    assert (await sidecar.command("kick", "standup"))[0] == 2
    await sidecar.end()
    code, printed = await sidecar.command("end", "standup")
    assert (code, "systemctl status prosody-sidecar" in printed) == (3, True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
async def test_another_user_of_the_machine_cannot_change_anything(sidecar: Sidecar, backend: Backend) -> None:
    socket = sidecar.folder / "admin.sock"
    sidecar.config["admin"]["socket"] = str(socket)
    await sidecar.run()
    sidecar.folder.chmod(0o755)
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(socket)!r})"
    done = await asyncio.to_thread(
        subprocess.run, ["/usr/bin/python3", "-c", code], user=65534, group=65534, extra_groups=[], capture_output=True
    )
    assert (done.returncode, b"PermissionError" in done.stderr) == (1, True)
    await sidecar.end()


async def test_a_socket_that_a_killed_sidecar_left_is_used_again_and_one_in_use_is_not(
    sidecar: Sidecar, backend: Backend
) -> None:
    sidecar.config["admin"]["socket"] = str(sidecar.folder / "admin.sock")
    await sidecar.run()
    await sidecar.kill()
    await sidecar.run()
    assert (await sidecar.command("purge", "--all"))[0] == 0
    async with Sidecar.prepared(backend.url, {"admin": {"socket": str(sidecar.folder / "admin.sock")}}) as other:
        other.write()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "run", "--config", str(other.file), cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        printed, _ = await process.communicate()
        assert (process.returncode, b"another sidecar listens there" in printed) == (1, True)
    assert (await sidecar.command("purge", "--all"))[0] == 0


async def test_the_listener_speaks_https_if_it_has_a_certificate_and_a_new_key_needs_only_a_reload(
    sidecar: Sidecar, backend: Backend, tmp_path: Path
) -> None:
    make_certificate(tmp_path / "tls.pem", tmp_path / "tls.key")
    sidecar.config["control"].update(certificate=str(tmp_path / "tls.pem"), key=str(tmp_path / "tls.key"))
    await sidecar.run()
    url = f"https://localhost:{sidecar.config['control']['port']}/control/v1/forget"

    async def curl(key: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "--cacert", str(tmp_path / "tls.pem"), "-w", "%{http_code}", "-d", '{"room": "standup"}',
            "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {key}", url,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return (await process.communicate())[0][-3:]

    assert await curl(KEY) == b"200"
    (tmp_path / "key").write_text(f"a-new-key-for-the-service\n{KEY}\n")
    sidecar.signal(signal.SIGHUP)
    await sidecar.until_logged("config")
    assert [await curl(key) for key in ("a-new-key-for-the-service", KEY, "wrong")] == [b"200", b"200", b"401"]
    await sidecar.end()
