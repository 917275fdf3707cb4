"""The module in Prosody's plugin folder: however its installation or removal ends, the guard is whole and in its place.

The real install.sh works on a folder that stands for a machine. Prosody would open all rooms without the guard.
"""

import itertools
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "packaging" / "install.sh"
NEW = (ROOT / "lua" / "mod_muc_webhook.lua").read_text()
OLD = NEW.replace("local version = ", "local version = 'old' or ")
PUBLIC = "local http = require 'net.http';\nmodule:hook('muc-room-pre-create', function () end);\n"
OF_0_1_0 = "-- Asks a meeting service, over webhooks, who may join which room, and sets rooms up as it says.\n"
KILLED = -9
KILL_AT = "set -T; trap 'if ((++step == STOP)); then kill -9 $$; fi' DEBUG\n"
"""Read by bash before the script: it counts each command, those of functions too."""


class Place:
    """A machine with a Prosody whose configuration names the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugins = folder / "usr/share/jitsi-meet/prosody-plugins"
        self.guard = self.plugins / "mod_muc_webhook.lua"
        self.kept = self.plugins / "mod_muc_webhook.lua.before-prosody-sidecar"
        self.configuration = folder / "etc/prosody/conf.d/meet.cfg.lua"
        self.configure('Component "conference.meet.example.com" "muc"\n    modules_enabled = { "muc_webhook" }\n')

    def configure(self, text: str, name: str = "conf.d/meet.cfg.lua") -> None:
        file = self.folder / "etc/prosody" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def holds(self, guard: str, *libraries: str) -> None:
        """What an earlier installation, or an administrator, has put there."""
        shutil.rmtree(self.plugins, ignore_errors=True)
        (self.plugins / "muc_webhook").mkdir(parents=True)
        self.guard.write_text(guard)
        for name in libraries:
            (self.plugins / "muc_webhook" / name).write_text("return {};\n")

    def libraries(self) -> set[str]:
        return {path.name for path in self.plugins.glob("muc_webhook/*")}

    def run(
        self,
        order: str,
        *under: str,
        install: Path = INSTALL,
        prepare: Callable[[], None] | None = None,
        **environment: str,
    ) -> int:
        """install.sh module|uninstall; its exit code, or the signal that ended it as a negative number."""
        done = subprocess.run(
            [*under, install, order],
            env={"PATH": os.environ["PATH"], "DESTDIR": str(self.folder), **environment},
            preexec_fn=prepare,
            capture_output=True,
            text=True,
            check=False,
        )
        self.said = done.stdout + done.stderr
        return done.returncode


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


OURS = {path.name for path in (ROOT / "lua" / "muc_webhook").glob("*.lib.lua")}


@pytest.mark.parametrize("order", ["module", "uninstall"])
def test_an_installation_or_removal_killed_at_any_step_leaves_a_whole_guard(
    place: Place, tmp_path: Path, order: str
) -> None:
    hook = tmp_path / "kill-at.sh"
    hook.write_text(KILL_AT)
    for stop in itertools.count(1):
        place.holds(OLD, "start.lib.lua", "gone.lib.lua")
        code = place.run(order, BASH_ENV=str(hook), STOP=str(stop))
        assert place.guard.read_text() in (OLD, NEW), f"step {stop}"
        if place.guard.read_text() == NEW:
            assert place.libraries() >= OURS, f"step {stop}: the guard came before its libraries"
        if code != KILLED:
            break
    assert code == 0
    assert stop > 20


def test_a_disk_that_is_full_leaves_a_whole_guard(place: Place, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"  # its libraries are so small that the guard is what does not fit
    shutil.copytree(ROOT / "packaging", checkout / "packaging")
    (checkout / "lua" / "muc_webhook").mkdir(parents=True)
    (checkout / "lua" / "muc_webhook" / "start.lib.lua").touch()
    (checkout / "lua" / "mod_muc_webhook.lua").write_text(NEW)
    cut = 0
    for size in range(0, len(NEW.encode()) + 512, 512):
        place.holds(OLD)
        place.run(
            "module",
            install=checkout / "packaging" / "install.sh",
            prepare=lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),  # type: ignore[misc]
        )
        assert place.guard.read_text() in (OLD, NEW), f"{size} bytes"
        cut += place.guard.with_suffix(".lua.new").exists()
    assert cut > 10
    assert place.guard.read_text() == NEW


@pytest.mark.parametrize("order", ["module", "uninstall"])
def test_nothing_ever_writes_into_the_guard_or_takes_it_away(place: Place, tmp_path: Path, order: str) -> None:
    place.holds(OLD, "start.lib.lua")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=file")
    assert place.run(order, *strace) == 0
    calls = [line for line in trace.read_text().splitlines() if f'{place.guard}"' in line and "= -1" not in line]
    changing = [line for line in calls if not re.search(r"\b(stat|newfstatat|access|execve)\(|O_RDONLY", line)]
    onto = [line for line in changing if re.search(rf'rename\w*\(.*"{place.guard}.new", .*"{place.guard}"', line)]
    assert changing == onto
    assert len(onto) == (order == "module")


def test_libraries_of_an_earlier_version_go(place: Place) -> None:
    place.holds(OLD, "start.lib.lua", "gone.lib.lua")
    assert place.run("module") == 0
    assert place.libraries() == OURS
    assert [path.name for path in place.plugins.iterdir() if path.suffix == ".new"] == []


def test_the_command_that_loads_the_new_module_is_named(place: Place) -> None:
    place.holds(OLD)
    place.run("module")
    assert "prosodyctl shell \"module:reload('muc_webhook')\"" in place.said


def test_another_module_of_the_same_name_is_kept_and_so_is_the_next_one(place: Place) -> None:
    place.holds(PUBLIC)
    assert place.run("module") == 0
    assert place.kept.read_text() == PUBLIC
    assert place.guard.read_text() == NEW
    assert "is kept as mod_muc_webhook.lua.before-prosody-sidecar" in place.said
    assert "systemctl restart prosody" in place.said
    place.guard.write_text("-- Another one.\n")
    assert place.run("module") == 0
    assert place.kept.read_text() == "-- Another one.\n"
    assert Path(f"{place.kept}.~1~").read_text() == PUBLIC


@pytest.mark.parametrize("ours", [NEW, OF_0_1_0], ids=["this version", "0.1.0"])
def test_a_module_of_ours_is_not_kept(place: Place, ours: str) -> None:
    place.holds(ours)
    assert place.run("module") == 0
    assert list(place.plugins.glob("*.before-*")) == []


NAMED = {
    "in a list": 'modules_enabled = { "muc_meeting_id"; "muc_webhook"; }',
    "alone in its line": "modules_enabled = {\n'muc_webhook'\n}",
    "with a comment behind it": '"muc_webhook"; -- add this',
    "behind a comment": '--[[ ours: ]] "muc_webhook";',
    "behind the end of a comment": '--]] "muc_webhook";',
    "without a newline": '"muc_webhook"',
    "with the newlines of Windows": '{\r\n"muc_webhook";\r\n}',
    "beside a byte that is no text": '"muc_webhook"; \x00',
}
NOT_NAMED = {
    "in no line": "modules_enabled = {}",
    "in a comment": '    -- "muc_webhook";',
    "by its options": 'muc_webhook_url = "http://127.0.0.1:8788/webhooks/jitsi"',
    "by another module's name": 'modules_enabled = { "muc_webhook_rate", "my_muc_webhook" }',
}


@pytest.mark.parametrize("text", NAMED.values(), ids=NAMED)
def test_the_guard_stays_while_the_module_is_named(place: Place, text: str) -> None:
    place.holds(NEW, *OURS)
    place.configure(text)
    assert place.run("uninstall") == 0
    assert place.guard.read_text() == NEW
    assert place.libraries() == set()
    assert f"{place.configuration}:" in place.said
    assert re.search(r"1\. take muc_webhook.*2\. run: systemctl restart prosody.*3\. run: rm", place.said, re.S)


@pytest.mark.parametrize("text", NOT_NAMED.values(), ids=NOT_NAMED)
def test_the_guard_goes_when_the_module_is_not_named(place: Place, text: str) -> None:
    place.holds(NEW, *OURS)
    place.configure(text)
    assert place.run("uninstall") == 0
    assert not place.plugins.exists()


def test_a_machine_without_prosody_keeps_nothing(place: Place) -> None:
    place.holds(NEW, *OURS)
    shutil.rmtree(place.folder / "etc/prosody")
    assert place.run("uninstall") == 0
    assert not place.plugins.exists()


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('Include "/srv/meet/*.lua"', "srv/meet/rooms.lua"),
        ('Include "/srv/meet/rooms.conf"', "srv/meet/rooms.conf"),
        ('Include("rooms.d/*.conf")', "etc/prosody/rooms.d/rooms.conf"),
        ("Include '../meet/rooms.lua'", "etc/meet/rooms.lua"),
        ("Include [[/srv/meet/rooms.lua]]", "srv/meet/rooms.lua"),
        ('Include "/srv/our rooms/*.lua"', "srv/our rooms/rooms.lua"),
        ('Include "global.lua"; Include "/srv/rooms.lua"', "srv/rooms.lua"),
        ('log = "*syslog"; Include "/srv/rooms.lua"', "srv/rooms.lua"),
        ('dofile("/srv/rooms.inc")', "srv/rooms.inc"),
        ('modules_enabled = FileLines("modules.txt")', "etc/prosody/modules.txt"),
    ],
)
def test_included_files_are_looked_into(place: Place, line: str, where: str) -> None:
    place.holds(NEW)
    place.configure(line, "prosody.cfg.lua")
    place.configure("")
    file = place.folder / where
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('modules_enabled = { "muc_webhook" }\n')
    assert place.run("uninstall") == 0
    assert place.guard.exists()


def test_files_that_included_files_include_are_looked_into(place: Place) -> None:
    place.holds(NEW)
    place.configure('Include "/srv/meet/all"', "prosody.cfg.lua")
    place.configure("")
    meet = place.folder / "srv/meet"
    (meet / "rooms").mkdir(parents=True)
    (meet / "all").write_text('Include "all"\nInclude "rooms/*"\n')
    (meet / "rooms/main").write_text('modules_enabled = { "muc_webhook" }\n')
    assert place.run("uninstall") == 0
    assert place.guard.exists()


def test_linked_files_are_looked_into(place: Place) -> None:
    place.holds(NEW)
    place.configuration.rename(place.folder / "elsewhere")
    place.configuration.symlink_to(place.folder / "elsewhere")
    (place.configuration.parent / "broken.cfg.lua").symlink_to("nowhere")
    assert place.run("uninstall") == 0
    assert place.guard.exists()


def test_a_linked_library_folder_does_not_stop_the_removal(place: Place) -> None:
    place.holds(NEW)
    place.configure("")
    (place.plugins / "muc_webhook").rename(place.folder / "libraries")
    (place.plugins / "muc_webhook").symlink_to(place.folder / "libraries")
    assert place.run("uninstall") == 0
    assert not place.guard.exists()


def test_a_module_that_is_not_ours_is_never_taken_away(place: Place) -> None:
    place.holds(PUBLIC)
    place.configure("")
    assert place.run("uninstall") == 0
    assert place.guard.read_text() == PUBLIC
