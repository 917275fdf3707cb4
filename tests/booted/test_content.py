"""What is in the packages for Debian 12 and 13."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.markers import Marker

from tests.booted.build import LOCK, build
from tests.booted.machine import DEBIANS, ROOT, Debian

HOME = "usr/lib/prosody-sidecar/lib"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]) -> Path:
    folder = tmp_path_factory.mktemp("content") / "of"
    subprocess.run(["dpkg-deb", "--raw-extract", packages[debian], folder], check=True)
    return folder


def test_two_builds_are_the_same_bytes(packages: dict[Debian, Path], tmp_path: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for debian in DEBIANS:
        assert build(debian, tmp_path).read_bytes() == packages[debian].read_bytes(), debian


def test_lintian_finds_no_error(packages: dict[Debian, Path]) -> None:
    for package in packages.values():
        order = ["lintian", "--no-cfg", "--allow-root", "--fail-on", "error,warning", str(package)]
        done = subprocess.run(order, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_name_and_the_dependency_say_which_python(debian: Debian, packages: dict[Debian, Path]) -> None:
    assert re.fullmatch(rf"prosody-sidecar_[\d.]+\+py{debian.python}_\w+\.deb", packages[debian].name)
    order = ["dpkg-deb", "--field", str(packages[debian]), "Depends"]
    depends = subprocess.run(order, check=True, capture_output=True, text=True).stdout
    assert f"python3 (>= {debian.python}~)" in depends


def test_it_has_what_the_lock_file_has_and_the_licence_of_each(content: Path, debian: Debian) -> None:
    locked = {
        name: version
        for name, version, condition in re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; (.*))? \\$", LOCK.read_text(), re.M)
        if name != "setuptools" and (not condition or Marker(condition).evaluate({"python_full_version": debian.full}))
    }
    there = {}
    for folder in (content / HOME / f"python{debian.python}" / "site-packages").glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        there[name.replace("_", "-").lower()] = version
    there.pop("prosody-sidecar")
    assert there == locked
    licences = (content / "usr/share/doc/prosody-sidecar/copyright").read_text()
    for name in locked:
        assert re.search(rf"^License: \S+-{name.replace('-', '[-_]')}\n \S", licences, re.M | re.I), name


def test_it_has_a_changelog_man_pages_and_completions(content: Path) -> None:
    share = content / "usr/share"
    log = gzip.decompress((share / "doc/prosody-sidecar/changelog.gz").read_bytes()).decode()
    assert re.match(r"prosody-sidecar \([\d.]+\+py3\.\d+\) unstable; urgency=medium\n", log)
    for page in ("man1/prosody-sidecar.1.gz", "man5/prosody-sidecar.5.gz"):
        order = ["man", "--warnings", "--local-file", str(share / "man" / page)]
        done = subprocess.run(order, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"})
        assert "prosody-sidecar" in done.stdout
        assert done.stderr == ""
    for file in ("bash-completion/completions/prosody-sidecar", "zsh/vendor-completions/_prosody-sidecar"):
        assert "_PROSODY_SIDECAR_COMPLETE=" in (share / file).read_text()


def test_the_config_names_the_file_with_all_settings(content: Path) -> None:
    config = (content / "usr/share/prosody-sidecar/sidecar.yaml").read_text()
    named = re.search(r"see /(\S+/sidecar\.yaml)", config)
    assert named is not None
    assert "# prosody-sidecar: every setting" in (content / named[1]).read_text()


def test_dpkg_owns_nothing_that_an_administrator_edits(content: Path) -> None:
    assert not (content / "etc").exists()
    assert not (content / "DEBIAN/conffiles").exists()
