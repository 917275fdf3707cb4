"""`make demo` goes as promised, says so, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_tells_its_story_and_ends_well(tmp_path: Path) -> None:
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
        "is kept out of review",
        "comes into standup again",
        "comes into planning",
        "as promised",
    ):
        assert promise in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
