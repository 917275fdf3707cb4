"""The units: correct and sandboxed, as systemd itself judges."""

import os
import re
import subprocess
from pathlib import Path

UNITS = Path(__file__).parents[2] / "systemd"
MOST_EXPOSED = 1.3


def test_the_units_are_sound(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/prosody-sidecar", "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_is_hardly_exposed() -> None:
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / "prosody-sidecar.service")]
    done = subprocess.run(security, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
