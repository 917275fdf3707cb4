"""What the running service does not load: it would only be in memory, and make the start longer."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOT_NEEDED = ("click", "rich", "structlog", "redis", "sidecar.cli.main", "sidecar.cli.commands", "sidecar.demo_backend")
PROGRAM = f"""
import sys
from sidecar.__main__ import main
sys.argv[1:] = {{arguments!r}}
try:
    main()
except SystemExit:
    print(*[name for name in {NOT_NEEDED!r} if name in sys.modules])
"""


def loaded(*arguments: str) -> set[str]:
    """Which of them are loaded with these arguments, when the command ends."""
    program = PROGRAM.format(arguments=list(arguments))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["run"], ["run", "--config", "/there/is/none.yaml"]])
def test_the_service_loads_only_what_it_needs(arguments: list[str]) -> None:
    assert loaded(*arguments) == set()


def test_the_other_commands_load_what_prints_them() -> None:
    assert {"click", "rich"} < loaded("check", "--config", "/there/is/none.yaml")
