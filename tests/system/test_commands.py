"""The commands as an operator uses them in a shell: JSON for scripts, pipes that close, full disks, no colours."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.rig.backend import Backend
from tests.rig.module import Module
from tests.rig.sidecar import Sidecar
from tools.command_documents import COMMANDS, validate

ROOT = Path(__file__).parents[2]


def shell(sidecar: Sidecar, line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which SIDECAR is the command."""
    command = f"{sys.executable} -m sidecar"
    options = f"--config {sidecar.file}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("SIDECAR", command).replace("CONFIG", options)],
        cwd=ROOT, env={**sidecar.environ, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def expect(line: str, printed: str) -> None:
    """That the command prints what its schema says."""
    try:
        validate(next(name for name in COMMANDS if line.startswith(name)), printed)
    except ValidationError as error:
        pytest.fail(f"`{line} --json` is not as tools/command_documents.py says; change it there: {error}")


async def test_each_json_document_is_as_its_schema_says(backend: Backend, tmp_path: Path) -> None:
    settings = {"state_dir": str(tmp_path / "state")}
    async with Sidecar.start(backend.url, settings) as sidecar:
        await sidecar.decides("standup", "alice@example.com")
        await sidecar.post("user-joined", b'{"roomName":"standup","timestamp":1}')
        for line in (
            "check",
            "check --online",
            "status",
            "status --history",
            "explain standup alice@example.com",
            "explain nowhere",
            "doctor --prosodyctl false",
            "outbox list",
            "outbox retry --all",
            "outbox drop --all",
            "purge --all",
            "forget --room standup",
            "kick standup alice@example.com --reason Enough",
            "end standup",
            "refresh standup",
        ):
            code, printed = await sidecar.command(*line.split(), "--json")
            assert code == 0, printed
            expect(line, printed)


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("kick standup alice@example.com", {"kicked": 1, "users": ["alice@example.com"]}),
        ("end standup", {"ended": True}),
        ("refresh standup", {"refreshed": True}),
        ("refresh standup", {"refreshed": True, "changed": ["password"]}),
        ("who standup", {"occupants": []}),
    ],
)
async def test_what_an_order_prints_that_was_carried_out_is_as_its_schema_says(
    backend: Backend, tmp_path: Path, line: str, outcome: dict[str, object]
) -> None:
    async with (
        Sidecar.start(backend.url, {"state_dir": str(tmp_path)}) as sidecar,
        Module({"status": "done", **outcome}).linked(sidecar),
    ):
        code, printed = await sidecar.command(*line.split(), "--json")
        assert code == 0, printed
        expect(line, printed)


async def test_the_status_is_short_without_the_history(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        short = (await sidecar.command("status", "--json"))[1]
        long = (await sidecar.command("status", "--json", "--history"))[1]
    assert len(short.splitlines()) < 70
    assert set(json.loads(short)["recent"]) == {"last_reload"}
    assert len(json.loads(long)["recent"]["median_ms"]) == 120


async def test_a_reader_that_has_read_enough_changes_nothing(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        for line in ("status", "status --json --history", "check", "outbox list", "explain standup"):
            done = shell(sidecar, f"SIDECAR {line} CONFIG | true")
            assert (done.returncode, lines(done.stderr)) == (0, []), line


async def test_a_full_disk_is_one_line_and_a_failure(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        for line in ("status CONFIG", "status --json CONFIG", "check CONFIG", "--help", "--version", "status --help"):
            done = shell(sidecar, f"SIDECAR {line} > /dev/full")
            said = ["the output cannot be written: No space left on device"]
            assert (done.returncode, lines(done.stderr)) == (1, said), line


def lines(text: str) -> list[str]:
    """Without the warnings of `check`."""
    return [line for line in text.splitlines() if ": warning: " not in line]


async def test_colours_are_for_a_terminal_without_no_color(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        assert "\x1b[" not in shell(sidecar, "SIDECAR status CONFIG").stdout
        command = [sys.executable, "-m", "sidecar", "status", "--config", str(sidecar.file)]
        assert re.search(r"\x1b\[[\d;]*3\dm", on_a_terminal(command, {**sidecar.environ, "TERM": "xterm"}))
        plain = on_a_terminal(command, {**sidecar.environ, "TERM": "xterm", "NO_COLOR": "1"})
        assert "well" in plain
        assert not re.search(r"\x1b\[[\d;]*3\dm", plain)


def on_a_terminal(command: list[str], environ: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while read := os.read(ours, 65536):
                said += read
        except OSError:  # the terminal has no other end any more
            pass
        process.wait()
    os.close(ours)
    return said.decode()


async def test_the_live_status_needs_a_terminal_and_says_what_does_not(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        done = shell(sidecar, "SIDECAR status --watch CONFIG")
    assert (done.returncode, "status --json" in done.stderr) == (1, True)


def test_bash_completes_commands_and_options() -> None:
    def completed(*words: str) -> list[str]:
        line = {"COMP_WORDS": " ".join(("prosody-sidecar", *words)), "COMP_CWORD": str(len(words))}
        environ = {**os.environ, **line, "_PROSODY_SIDECAR_COMPLETE": "bash_complete"}
        program = "from sidecar.cli.commands import main; main(prog_name='prosody-sidecar')"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
        )
        return [each.partition(",")[2] for each in done.stdout.splitlines()]

    assert completed("out") == ["outbox"]
    assert completed("outbox", "") == ["drop", "list", "retry"]
    assert "--history" in completed("status", "--h")
