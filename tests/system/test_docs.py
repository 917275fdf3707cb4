"""The documents' commands, run as they stand. tests/unit/test_documents.py sees to what they name."""

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.rig.backend import Backend
from tests.rig.module import Module
from tests.rig.ports import free_port
from tests.rig.sidecar import ROOT, Sidecar

DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "runbooks").glob("*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
FOREIGN = {
    "cut",
    "df",
    "dpkg",
    "grep",
    "install",
    "journalctl",
    "nano",
    "prosodyctl",
    "redis-cli",
    "rm",
    "sha256sum",
    "sqlite3",
    "systemctl",
    "openssl",
    "tail",
    "top",
    "usermod",
}
"""Commands of a server, which a test must not run; the booted machine of tests/booted runs the important ones."""


def lines() -> list[str]:
    """The shell commands of all documents, each once."""
    text = "\n".join(block for file in DOCUMENTS for block in BLOCK.findall(file.read_text()))
    return sorted(set(re.sub(r"\\\n\s*", "", text).splitlines()) - {""})


def word(line: str) -> str:
    return line.removeprefix("sudo ").split()[0]


KEY, TOKEN = "a-key-for-the-documents", "a-token-for-prosody"

# `--watch` shows the status until it is interrupted.
OURS = [line for line in lines() if word(line) == "prosody-sidecar" and "--watch" not in line]
CURL = [line for line in lines() if word(line) == "curl"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sidecar]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "key").write_text(KEY)
    (folder / "token").write_text(TOKEN)
    settings = {
        "listen": {"token_file": str(folder / "token")},
        "control": {"port": free_port(), "token_file": str(folder / "key")},
    }
    module = Module({"status": "done", "kicked": 1, "occupants": []})
    async with (
        Backend() as backend,
        Sidecar.start(backend.url, settings) as sidecar,
        module.linked(sidecar),
    ):
        yield sidecar


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("line", OURS)
async def test_a_command_works_as_it_stands(running: Sidecar, line: str) -> None:
    command = line.removeprefix("sudo ").partition(" | ")[0]
    code, printed = await running.command(*shlex.split(command)[1:])
    assert code == 0 or ("doctor" in line and "events" in printed), printed  # there is no Prosody here


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("line", CURL)
async def test_a_question_is_answered(running: Sidecar, line: str) -> None:
    here = line.replace("127.0.0.1:8788", f"127.0.0.1:{running.config['listen']['port']}")
    here = here.replace("curl ", f"curl -H 'X-Webhook-Secret: {TOKEN}' ", 1)
    here = here.replace("127.0.0.1:8789", f"127.0.0.1:{running.config['admin']['port']}")
    here = here.replace("127.0.0.1:8791", f"127.0.0.1:{running.config['control']['port']}")
    environ = {**os.environ, "CONTROL_TOKEN": KEY}
    curl = await asyncio.create_subprocess_exec("bash", "-c", here, stdout=asyncio.subprocess.PIPE, env=environ)
    printed, _ = await curl.communicate()
    assert b"HTTP/1.1 200 OK" in printed


def test_every_other_command_is_one_of_make_or_of_a_server() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "packaging" / "packaging.mk").read_text(), re.M))
    for line in lines():
        subprocess.run(["bash", "-n", "-c", line], check=True)
        if word(line) == "make":
            assert line.split()[1] in targets
        elif word(line) not in {"prosody-sidecar", "curl", "printf"}:
            assert word(line) in FOREIGN, line


def test_every_part_is_in_the_architecture_or_too_small_to_be() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    small = {"__init__", "__main__", "cli", "client", "clock", "console", "demo_backend", "errors", "rules", "target"}
    parts = {file.stem for file in (ROOT / "sidecar").glob("*.py")} - small
    assert [part for part in sorted(parts) if f"{part}.py" not in text] == []
