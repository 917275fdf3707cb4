"""`make demo` works as promised, says so, and leaves no process or file."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_what_it_promises_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in (
        "is refused in review",
        "joins standup again",
        "joins planning",
        "planning ends, and carol sees it",
        "as promised",
    ):
        assert promise in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
