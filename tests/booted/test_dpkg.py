"""dpkg and the guard: whatever dpkg does with the package, and wherever it is killed, the guard is whole.

The real dpkg works on a folder that stands for a machine whose Prosody is configured to load the module.
"""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.booted.machine import ROOT

GUARD = "usr/share/jitsi-meet/prosody-plugins/mod_muc_webhook.lua"
NEW = (ROOT / "lua" / "mod_muc_webhook.lua").read_text()
OF_0_1_0 = "-- Asks a meeting service, over webhooks, who may join which room, and sets rooms up as it says.\n"
PUBLIC = "-- The public module.\n"
CHANGES = "unlink,unlinkat,rename,renameat,renameat2,rmdir"


def control(folder: Path, version: str) -> None:
    (folder / "DEBIAN").mkdir(parents=True)
    fields = ("Package: prosody-sidecar", f"Version: {version}", "Architecture: all", "Maintainer: x <x@localhost>")
    (folder / "DEBIAN" / "control").write_text("\n".join([*fields, "Description: x", ""]))


def build(folder: Path, version: str) -> Path:
    deb = folder.parent / f"{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder, deb], check=True, capture_output=True)
    return deb


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that owns the module's file, as 0.1.0 does."""
    folder = tmp_path_factory.mktemp("earlier") / "content"
    control(folder, "0.1.0")
    (folder / GUARD).parent.mkdir(parents=True)
    (folder / GUARD).write_text(OF_0_1_0)
    return build(folder, "0.1.0")


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.guard = folder / GUARD
        self.configuration = folder / "etc/prosody/conf.d/meet.cfg.lua"
        self.configuration.parent.mkdir(parents=True)
        self.configuration.write_text('modules_enabled = { "muc_webhook" }\n')
        (folder / "usr").mkdir()
        for name in ("info", "updates"):
            (folder / "var/lib/dpkg" / name).mkdir(parents=True)
        for name in ("status", "available"):
            (folder / "var/lib/dpkg" / name).touch()

    def dpkg(self, *arguments: str | Path, under: tuple[str, ...] = (), ends: tuple[int, ...] = (0,)) -> str:
        """Its output. Dependencies count as there, and scripts run without a chroot, which has no programs."""
        options = (f"--root={self.folder}", "--force-script-chrootless", "--force-not-root", "--force-depends")
        done = subprocess.run([*under, "dpkg", *options, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in ends, done.stdout + done.stderr
        return done.stdout + done.stderr

    def killed(self, call: int, *arguments: str | Path) -> None:
        """dpkg is killed at this change of a file's name."""
        inject = ("-e", f"trace={CHANGES}", "-e", f"inject={CHANGES}:signal=KILL:when={call}")
        self.dpkg(*arguments, under=("strace", "-qq", "-o", "/dev/null", *inject), ends=(-signal.SIGKILL,))

    def state(self) -> str:
        order = ["dpkg-query", f"--root={self.folder}", "--show", "--showformat=${db:Status-Status}", "prosody-sidecar"]
        return subprocess.run(order, capture_output=True, text=True, check=False).stdout

    def diversions(self) -> str:
        order = ["dpkg-divert", f"--root={self.folder}", "--list"]
        return subprocess.run(order, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "root")


def test_a_removed_and_purged_package_leaves_the_guard_and_says_what_to_do(place: Place, package: Path) -> None:
    place.dpkg("--install", package)
    said = place.dpkg("--remove", "prosody-sidecar")
    assert place.guard.read_text() == NEW
    assert list(place.guard.parent.iterdir()) == [place.guard]
    assert re.search(r"1\. take muc_webhook.*meet.cfg.lua:1:.*2\. run: systemctl restart.*3\. run: rm", said, re.S)
    said = place.dpkg("--purge", "prosody-sidecar")
    assert "3. run: rm" in said
    assert place.guard.read_text() == NEW


def test_a_purged_package_takes_the_guard_along_when_nobody_names_it(place: Place, package: Path) -> None:
    place.dpkg("--install", package)
    place.dpkg("--remove", "prosody-sidecar")
    place.configuration.write_text('-- "muc_webhook"\n')
    place.dpkg("--purge", "prosody-sidecar")
    assert not (place.folder / "usr").exists()


def test_a_package_that_was_never_configured_leaves_the_guard(place: Place, package: Path) -> None:
    place.dpkg("--install", package)
    place.dpkg("--unpack", package)
    place.dpkg("--remove", "prosody-sidecar")
    assert place.guard.read_text() == NEW


def test_an_upgrade_from_0_1_0_that_was_never_configured_leaves_the_module(
    place: Place, package: Path, earlier: Path
) -> None:
    place.dpkg("--install", earlier)
    place.dpkg("--unpack", package)
    assert place.guard.read_text() == OF_0_1_0
    place.dpkg("--remove", "prosody-sidecar")
    assert place.guard.read_text() == OF_0_1_0
    assert place.diversions() == ""


def test_an_upgrade_from_0_1_0_and_back_and_again(place: Place, package: Path, earlier: Path) -> None:
    place.dpkg("--install", earlier)
    said = place.dpkg("--install", package)
    assert place.guard.read_text() == NEW
    assert "module:reload('muc_webhook')" in said
    place.dpkg("--install", earlier)
    assert place.guard.read_text() == OF_0_1_0
    assert list(place.guard.parent.iterdir()) == [place.guard]
    place.dpkg("--install", package)
    assert place.guard.read_text() == NEW
    assert place.diversions() == ""


def test_a_package_that_is_cut_off_changes_nothing(place: Place, package: Path, earlier: Path) -> None:
    cut = place.folder.parent / "cut.deb"
    cut.write_bytes(package.read_bytes()[:-1000])
    place.dpkg("--install", earlier)
    place.dpkg("--install", cut, ends=(1,))
    assert place.guard.read_text() == OF_0_1_0
    assert place.diversions() == ""
    place.dpkg("--install", package)
    place.dpkg("--install", cut, ends=(1,))
    assert place.guard.read_text() == NEW
    assert place.state() == "installed"


def test_a_public_module_is_kept(place: Place, package: Path) -> None:
    place.guard.parent.mkdir(parents=True)
    place.guard.write_text(PUBLIC)
    said = place.dpkg("--install", package)
    assert "is kept as mod_muc_webhook.lua.before-prosody-sidecar" in said
    assert place.guard.read_text() == NEW
    assert place.guard.with_name("mod_muc_webhook.lua.before-prosody-sidecar").read_text() == PUBLIC


def test_nothing_ever_writes_into_the_guard_or_takes_it_away(place: Place, package: Path, earlier: Path) -> None:
    trace = place.folder.parent / "trace"
    strace = ("strace", "-f", "-A", "-qq", "-o", str(trace), "-e", "trace=file")
    place.dpkg("--install", earlier)
    place.dpkg("--install", package, under=strace)
    place.dpkg("--install", package, under=strace)
    place.dpkg("--remove", "prosody-sidecar", under=strace)
    place.dpkg("--purge", "prosody-sidecar", under=strace)
    calls = [line for line in trace.read_text().splitlines() if f'{place.guard}"' in line and "= -1" not in line]
    changing = [line for line in calls if not re.search(r"\b(l?stat|newfstatat|access|execve)\(|O_RDONLY", line)]
    assert len(changing) == 2
    assert all(re.search(rf'renameat2?\(.*"{place.guard}.new", .*"{place.guard}"', line) for line in changing)


@pytest.mark.parametrize("call", [1, 2, 50, 500, 1000])
def test_a_removal_that_is_killed_leaves_the_guard_and_can_go_on(place: Place, package: Path, call: int) -> None:
    place.dpkg("--install", package)
    place.killed(call, "--remove", "prosody-sidecar")
    assert place.guard.read_text() == NEW
    place.dpkg("--remove", "prosody-sidecar")
    assert place.guard.read_text() == NEW
    assert place.state() == "config-files"


@pytest.mark.parametrize("call", [1, 2, 50, 500, 1000])
def test_an_upgrade_that_is_killed_leaves_a_whole_module_and_can_go_on(
    place: Place, package: Path, earlier: Path, call: int
) -> None:
    place.dpkg("--install", earlier)
    place.killed(call, "--install", package)
    assert place.guard.read_text() == OF_0_1_0
    place.dpkg("--install", package)
    assert place.guard.read_text() == NEW
    assert place.state() == "installed"
    assert place.diversions() == ""
