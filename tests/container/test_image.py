"""The image alone: it runs unprivileged on a read-only root, obeys signals, and keeps what it accepted."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.container.podman import Image, Running
from tests.rig.answers import allow, deny
from tests.rig.backend import Backend
from tests.rig.ports import free_ports

TOKEN = "a-token-of-this-test"


@pytest.fixture
def volumes(tmp_path: Path) -> dict[Path, str]:
    return made_in(tmp_path)


def made_in(tmp_path: Path) -> dict[Path, str]:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o400)
    (tmp_path / "state").mkdir()
    for each in (tmp_path / "token", tmp_path / "state"):
        os.chown(each, 1000, 1000)
    return {tmp_path / "token": "/run/token:ro", tmp_path / "state": "/var/lib/prosody-sidecar"}


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


def environment(ports: list[int], backend: str) -> dict[str, str]:
    return {
        "PROSODY_SIDECAR_BACKEND__URL": backend,
        "PROSODY_SIDECAR_LISTEN__PORT": str(ports[0]),
        "PROSODY_SIDECAR_LISTEN__TOKEN_FILE": "/run/token",
        "PROSODY_SIDECAR_ADMIN__PORT": str(ports[1]),
    }


async def asks(port: int, user: str) -> dict[str, object]:
    body = {"roomName": "standup", "userJid": user, "timestamp": 0}
    url = f"http://127.0.0.1:{port}/webhooks/jitsi/validate-access"
    async with aiohttp.ClientSession(headers={"X-Webhook-Secret": TOKEN}) as http, http.post(url, json=body) as reply:
        assert reply.status == 200
        return dict(await reply.json())


@dataclass(frozen=True)
class Alone:
    """A container whose backend is away."""

    running: Running
    port: int


@pytest.fixture(scope="module")
def alone(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    volumes, ports = made_in(tmp_path_factory.mktemp("volumes")), free_ports(2)
    with image.running(volumes=volumes, environment=environment(ports, "http://127.0.0.1:9/hooks")) as running:
        running.becomes_ready()
        yield Alone(running, ports[0])


@pytest.fixture
def container(alone: Alone) -> Running:
    return alone.running


def test_it_runs_as_user_1000_without_capabilities(container: Running) -> None:
    status = container.do("python3", "-c", "print(open('/proc/1/status').read())").out
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_it_writes_nowhere_but_in_its_state(container: Running) -> None:
    program = "import sys; open(sys.argv[1], 'w')"
    for folder in ("/", "/etc/prosody-sidecar", "/opt/prosody-sidecar", "/tmp"):
        assert "Read-only file system" in container.do("python3", "-c", program, f"{folder}/x").out, folder
    assert container.do("python3", "-c", program, "/var/lib/prosody-sidecar/x").code == 0


def test_the_operators_commands_work_in_it(container: Running) -> None:
    assert "version" in container.do("prosody-sidecar", "status").out
    assert json.loads(container.do("prosody-sidecar", "check", "--json").out)["problems"] == []


def test_the_token_is_in_no_log(container: Running) -> None:
    assert TOKEN not in container.logs()


def test_a_wrong_setting_ends_it_with_the_words_of_the_file(image: Image) -> None:
    ended = image.once(environment={"PROSODY_SIDECAR_BACKEND__ULR": "http://x"})
    assert ended.code == 1
    assert "$PROSODY_SIDECAR_BACKEND__ULR: backend.ulr: there is no such setting; did you mean `url`?" in ended.out
    assert "Traceback" not in ended.out


def test_without_any_setting_it_says_what_is_missing(image: Image) -> None:
    ended = image.once()
    assert ended.code == 1
    assert "there is no such file" in ended.out


def test_the_health_check_fails_when_the_daemon_does_not_answer(container: Running) -> None:
    assert container.do("prosody-sidecar", "healthcheck").code == 0
    container.kill("STOP")
    assert container.do("prosody-sidecar", "healthcheck").code == 3
    container.kill("CONT")


def test_the_health_check_passes_while_the_backend_is_away(alone: Alone) -> None:
    assert not asyncio.run(asks(alone.port, "ann@example.com"))["allowed"]
    assert alone.running.do("prosody-sidecar", "healthcheck").code == 0


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
async def test_what_it_learned_survives_its_end(
    image: Image, volumes: dict[Path, str], ports: list[int], signal: str
) -> None:
    async with Backend() as backend:
        backend.on("validate-access", allow())
        with image.running(volumes=volumes, environment=environment(ports, backend.url)) as running:
            await asyncio.to_thread(running.becomes_ready)
            assert (await asks(ports[0], "ann@example.com"))["allowed"]
            backend.on("validate-access", deny("cancelled"))
            assert not (await asks(ports[0], "bob@example.com"))["allowed"]
            await asyncio.sleep(0.5)  # an allow is written behind
            await asyncio.to_thread(running.kill, signal)
            await _ended(running, 0 if signal == "TERM" else 137)
            await backend.stop()
            await asyncio.to_thread(running.start_again)
            await asyncio.to_thread(running.becomes_ready)
            assert (await asks(ports[0], "ann@example.com"))["allowed"]
            assert not (await asks(ports[0], "bob@example.com"))["allowed"]


async def test_a_stop_under_load_answers_what_it_has_accepted(
    image: Image, volumes: dict[Path, str], ports: list[int]
) -> None:
    async with Backend() as backend:
        backend.on("validate-access", allow())
        with image.running(volumes=volumes, environment=environment(ports, backend.url)) as running:
            await asyncio.to_thread(running.becomes_ready)
            waiting = [asyncio.create_task(asks(ports[0], f"user{n}@example.com")) for n in range(50)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(running.kill, "TERM")
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            accepted = [each for each in answers if isinstance(each, dict)]
            assert all(each["allowed"] for each in accepted)
            assert all(isinstance(each, aiohttp.ClientConnectorError) for each in answers if each not in accepted)
            await _ended(running, 0)


async def _ended(running: Running, code: int) -> None:
    async with asyncio.timeout(20):
        while (state := await asyncio.to_thread(running.state))["Running"]:
            await asyncio.sleep(0.1)
    assert state["ExitCode"] == code
