"""The Debian package, made once for all tests of this folder."""

import subprocess
from pathlib import Path

import pytest

from tests.booted.machine import ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    made = subprocess.run(["make", "--silent", "deb"], cwd=ROOT, check=True, capture_output=True, text=True)
    return ROOT / made.stdout.split()[-1]
