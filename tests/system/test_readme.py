"""README's lines to try, run as they stand against what `make run` starts, in the order one meets them."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig.ports import is_listening

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMAND = ("-m", "sidecar", "run", "--demo")
PORTS = (8788, 8789, 8790)


@dataclass(frozen=True, slots=True)
class Line:
    """A command of README, and the JSON that README says it answers."""

    command: str
    says: str | None

    def __str__(self) -> str:
        return self.command[:60]


def lines_to_try() -> list[Line]:
    block = re.compile(
        r"^```sh\n((?:curl|\.venv/bin/prosody-sidecar) .*?)^```\n(?:```json\n(.*?)^```$)?|`(curl [^`]*http[^`]*)`",
        re.M | re.S,
    )
    return [Line((shell or inline).rstrip(), says or None) for shell, says, inline in block.findall(README)]


def the_same(said: str, answered: str) -> bool:
    """README may leave out settings with a line of `...`; what it shows must be there, with that value."""
    shown = json.loads(re.sub(r",?\s*\.\.\.", "", said))
    answer = json.loads(answered)
    if "..." not in said:
        return bool(shown == answer)
    return all(name in answer and answer[name] == value for name, value in shown.items())


def wait_until_free() -> None:
    """README's lines name fixed ports; another run of these tests may have them for a while."""
    until = time.monotonic() + 60
    while taken := [port for port in PORTS if is_listening(port)]:
        if time.monotonic() > until:
            pytest.fail(f"README's lines need the ports {PORTS}; stop what listens on {taken}")
        time.sleep(0.2)


def start(output: Path) -> subprocess.Popen[bytes] | None:
    """What `make run` runs, once it is ready; None if somebody else was quicker to take its ports."""
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, *COMMAND], cwd=ROOT, stdout=file, stderr=file)
    until = time.monotonic() + 15
    while time.monotonic() < until and process.poll() is None:
        if "ready: " in output.read_text() and all(is_listening(port) for port in PORTS):
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    if "in use" in output.read_text():
        return None
    pytest.fail(f"`make run` did not come up:\n{output.read_text()}")


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    output, process = tmp_path_factory.mktemp("make-run") / "output", None
    while process is None:
        wait_until_free()
        process = start(output)
    yield
    process.terminate()
    code = process.wait(timeout=10)
    assert code == 0, output.read_text()


def test_make_run_is_the_command_tested_here() -> None:
    assert " ".join(COMMAND) in (ROOT / "Makefile").read_text()


def test_readme_has_the_lines() -> None:
    assert len(lines_to_try()) >= 9


@pytest.mark.usefixtures("make_run")
@pytest.mark.parametrize("line", lines_to_try(), ids=str)
def test_a_line_of_readme_works_and_answers_what_it_says(line: Line) -> None:
    command = line.command.replace(".venv/bin/prosody-sidecar", f"{sys.executable} -m sidecar")
    command = command.replace("curl ", "curl --fail-with-body ")
    done = subprocess.run(["bash", "-ec", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, done.stdout + done.stderr
    if line.says is not None:
        assert the_same(line.says, done.stdout), done.stdout
