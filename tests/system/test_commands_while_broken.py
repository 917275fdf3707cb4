"""The commands while something is broken: the config file, or the service behind a socket of systemd."""

from __future__ import annotations

import socket
import time

import pytest

from sidecar.cli.admin_client import READ_WITHIN
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

COMMANDS = (
    "status",
    "explain standup ann@example.org",
    "outbox list",
    "outbox retry --all",
    "purge --all",
    "forget --room standup",
    "healthcheck",
)

BREAK = {"a wrong value": "\nbackend: {url: nonsense}\n", "no YAML any more": '\nrooms: ["\n'}


@pytest.mark.parametrize("mistake", BREAK.values(), ids=BREAK)
async def test_the_commands_work_while_the_config_file_is_broken(mistake: str) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        await sidecar.decides("standup", "ann@example.org")
        sidecar.file.write_text(sidecar.file.read_text() + mistake)
        for command in COMMANDS:
            code, said = await sidecar.command(*command.split())
            assert code == 0, f"{command}: {said}"


async def test_without_a_daemon_the_mistake_is_named_as_the_more_probable_cause() -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url) as sidecar:
        sidecar.write()
        sidecar.file.write_text(sidecar.file.read_text() + BREAK["a wrong value"])
        code, said = await sidecar.command("status")
        assert code == 1
        assert "sidecar.yaml:" in said
        assert "nonsense" in said or "backend" in said


async def test_a_socket_that_systemd_holds_for_a_service_that_does_not_start_is_no_wait_without_end() -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url) as sidecar:
        sidecar.write()
        begun = time.monotonic()
        with socket.create_server(("127.0.0.1", sidecar.config["admin"]["port"])):
            code, said = await sidecar.command("status")
        assert code == 3, said
        assert "systemctl status prosody-sidecar" in said
        assert time.monotonic() - begun < READ_WITHIN + 10


@pytest.mark.parametrize("mistake", BREAK.values(), ids=BREAK)
async def test_doctor_names_the_mistake_and_examines_the_rest(mistake: str) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        sidecar.file.write_text(sidecar.file.read_text() + mistake)
        code, said = await sidecar.command("doctor", "--prosodyctl", "/nowhere/prosodyctl")
        assert code == 1
        assert "✗ config" in said
        assert "! module  not examined: there is no command /nowhere/prosodyctl here" in said
        assert "! backend not examined: the config file has a mistake" in said
        assert "✓ sidecar" in said
        assert "✓ events" in said
