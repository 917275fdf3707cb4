"""The script in Jitsi's page passes its own tests, which are JavaScript."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = sorted((Path(__file__).parents[1] / "frontend").glob("*.test.js"))
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="the Debian package nodejs is not installed")
@pytest.mark.parametrize("file", TESTS, ids=[file.name for file in TESTS])
def test_its_own_tests_pass(file: Path) -> None:
    assert NODE is not None
    command = [NODE, "--test", "--test-reporter=tap", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    if skipped := re.search(r"^ *ok .* # SKIP (.*)", ended.stdout, re.M):
        pytest.skip(skipped[1])
