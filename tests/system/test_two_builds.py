"""Two builds of the package at once, in one checkout. What install.sh and dpkg-deb do is not the matter here."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = """#!/bin/bash
mkdir -p "$DESTDIR"/usr/share/doc/prosody-sidecar "$DESTDIR"/usr/share/prosody-sidecar "$DESTDIR"/etc/prosody-sidecar
echo >"$DESTDIR/etc/prosody-sidecar/sidecar.yaml"
"""
DPKG_DEB = """#!/bin/bash
set -e
exec 3>"${@: -1}"
touch "$MET/$$"
for _ in {1..200}; do [ "$(ls "$MET" | wc -l)" = 2 ] && break; sleep 0.05; done
echo "a package" >&3
"""


def test_each_of_two_builds_at_once_makes_the_package(tmp_path: Path) -> None:
    checkout, tools, met = tmp_path / "checkout", tmp_path / "tools", tmp_path / "met"
    shutil.copytree(ROOT / "packaging", checkout / "packaging")
    shutil.copy(ROOT / "CHANGELOG.md", checkout)
    (checkout / "sidecar").mkdir()
    shutil.copy(ROOT / "sidecar" / "__init__.py", checkout / "sidecar")
    for file, text in ((checkout / "packaging" / "install.sh", INSTALL), (tools / "dpkg-deb", DPKG_DEB)):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    met.mkdir()
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MET": str(met), "SOURCE_DATE_EPOCH": "1"}
    order = [str(checkout / "packaging" / "deb.sh")]
    builds = [subprocess.Popen(order, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [build.communicate(timeout=60)[0].strip() for build in builds]
    assert [build.returncode for build in builds] == [0, 0]
    assert len(set(said)) == 1
    assert [file.read_text() for file in (checkout / "dist").iterdir()] == ["a package\n"]
    assert (checkout / said[0]).exists()
