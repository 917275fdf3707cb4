"""For all unit tests: a busy machine makes no property false, and no test needs more than `make unit` installs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

PROGRAMS = {Path(sys.executable).name, "openssl"}
"""openssl comes with ca-certificates."""


@pytest.fixture(autouse=True)
def _starts_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen.__init__

    def only_ours(self: subprocess.Popen[Any], args: Sequence[str], *more: Any, **options: Any) -> None:
        program = Path(args[0]).name
        assert program in PROGRAMS, f"a test that runs {program} belongs in tests/system: make unit does not install it"
        start(self, args, *more, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", only_ours)
