"""What the running service does not load: it would only be in memory, and make the start longer."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOT_NEEDED = ("rich", "structlog", "redis", "sidecar.cli.commands", "sidecar.demo_backend")


@pytest.mark.parametrize(("module", "loaded"), [("sidecar.cli.main", ()), ("sidecar.cli.commands", ("rich",))])
def test_the_service_loads_only_what_it_needs(module: str, loaded: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*[name for name in {NOT_NEEDED!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = set(result.stdout.split()) - {"sidecar.cli.commands"}
    assert found == set(loaded)
