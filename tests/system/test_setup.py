"""tools/setup.sh and the Makefile, as far as they can be tried without changing this machine."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "cut", "dirname", "env", "grep", "id", "mkdir", "sed", "sha256sum", "sleep", "tail", "tr")


def set_up(*purposes: str, folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the script in an empty project, with only the commands in `path`."""
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools/setup.sh", folder / "tools/setup.sh")
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run(
        [bash, str(folder / "tools/setup.sh"), *purposes],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of commands as on a machine that has next to nothing, used by somebody who is not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    (folder / "id").unlink()
    for name, body in (("id", "echo 1000"), ("apt-get", "exit 3"), ("apt-cache", "exit 3")):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def test_an_unknown_purpose_is_refused_with_those_that_there_are(tmp_path: Path, bare: Path) -> None:
    done = set_up("dance", folder=tmp_path, path=bare)
    assert done.returncode == 1
    assert "unit|run|demo|browser|test" in done.stderr


def test_without_root_and_sudo_it_says_what_is_missing_why_and_what_to_run(tmp_path: Path, bare: Path) -> None:
    done = set_up("demo", folder=tmp_path, path=bare)
    assert done.returncode == 1
    assert "prosody is missing: the XMPP server" in done.stdout
    assert re.search(r"apt-get install --no-install-recommends .*\bprosody\b", done.stderr)


def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text() + (ROOT / "packaging" / "packaging.mk").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"demo", "run", "unit", "test", "bench"} <= targets
    assert targets == set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.M))
