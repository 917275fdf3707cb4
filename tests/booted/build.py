"""Builds the packages for Debian 12 and 13, each in that Debian, without a network: python -m tests.booted.build"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.booted.machine import CACHE, DEBIANS, ROOT, CannotBoot, Debian

LOCK = ROOT / "packaging" / "requirements.lock"


def wheels(python: str) -> Path:
    """The folder with the packages of the lock file, for this version of Python; downloaded once."""
    folder, wanted = CACHE / f"wheels-{python}", LOCK.read_text()
    mark = folder / "made-for"
    if mark.exists() and mark.read_text() == wanted:
        return folder
    # pip would compare the conditions with the Python that runs it, and not with the one that it downloads for.
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "requirements"
    listed.write_text(re.sub(r" ; .* \\$", r" \\", wanted, flags=re.M))
    order = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={folder}"),
        *(f"--python-version={python}", "--only-binary=:all:", "--require-hashes", f"--requirement={listed}"),
    ]
    done = subprocess.run(order, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBoot(f"pip download failed: {done.stderr[-2000:]}")
    mark.write_text(wanted)
    return folder


def build(debian: Debian, checkout: Path = ROOT) -> Path:
    """The package, in dist/ of the checkout."""
    date = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    said = _inside(debian, checkout, "packaging/deb.sh", {"SOURCE_DATE_EPOCH": date.stdout.strip()})
    return checkout / said.split()[-1]


FIRST = "ac474dd3dbae69ccc090d16194b6dc79622766d0"
"""The commit of the first version."""


def build_first(debian: Debian, folder: Path) -> Path:
    """The package of the first version, built from its commit in `folder`/checkout."""
    found = subprocess.run(["git", "archive", FIRST], cwd=ROOT, capture_output=True, check=False)
    if found.returncode != 0:
        raise CannotBoot(f"this checkout has no commit {FIRST[:7]}, of the first version; type: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder / "checkout", filter="data")
    return build(debian, folder / "checkout")


def install(debian: Debian, folder: Path) -> None:
    """What `make install` puts on a machine with this Debian, into a folder that stands for it."""
    folder.mkdir()
    _inside(debian, ROOT, "packaging/install.sh install", {"DESTDIR": "/folder"}, f"--bind={folder}:/folder")


def _inside(debian: Debian, checkout: Path, command: str, settings: dict[str, str], *options: str) -> str:
    """What the command says, run in this Debian, in the checkout, with the packages of the lock file."""
    settings = {**settings, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    order = [
        *("systemd-nspawn", "--quiet", f"--directory={debian.folder()}", "--volatile=overlay", "--pipe"),
        *("--register=no", "--keep-unit", "--private-network", "--chdir=/checkout"),
        f"--machine=build-{os.getpid()}-{debian.suite}",
        *(f"--bind={checkout}:/checkout", f"--bind-ro={wheels(debian.python)}:/wheels", *options),
        *(f"--setenv={name}={value}" for name, value in settings.items()),
        *command.split(),
    ]
    done = subprocess.run(order, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise CannotBoot(f"{command} failed in {debian}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    try:
        for debian in DEBIANS:
            sys.stdout.write(f"{build(debian).relative_to(ROOT)}\n")
    except CannotBoot as error:
        sys.exit(str(error))
