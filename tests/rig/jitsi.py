"""An installed Jitsi in place of the stand-ins in tests/prosody/stand_ins: its folder is in JITSI_MEET.

`make test-jitsi JITSI_MEET=/usr/share/jitsi-meet` runs the tests with the marker `jitsi` in this way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = os.environ.get("JITSI_MEET") or None
STAND_INS = ROOT / "tests" / "prosody" / "stand_ins"
LUA_LIBRARIES = {"cjson": "lua-cjson", "basexx": "lua-basexx", "openssl": "lua-luaossl", "inspect": "lua-inspect"}
"""What Jitsi's modules need -> the Debian package."""

ON_COMPONENT = {
    "rig_meeting_id": "muc_meeting_id",
    "rig_rate_limit": "muc_rate_limit",
    "rig_allowners": "muc_allowners",
    "rig_token_affiliation": "token_affiliation",
}
"""A stand-in with a name of its own -> the module of Jitsi."""
ON_VIRTUAL_HOST = {"rig_lobby": ("muc_lobby_rooms", "persistent_lobby")}

HOST_OPTIONS = """
	main_muc = "conference.localhost"
	lobby_muc = "lobby.token.localhost"
	app_id = "rig"
	app_secret = "rig"
	allow_empty_token = true"""
GLOBAL_OPTIONS = """
muc_mapper_domain_base = "token.localhost"
muc_mapper_domain = "conference.localhost"
"""
COMPONENTS = """
Component "lobby.token.localhost" "muc"
	restrict_room_creation = true
	muc_room_locking = false
	muc_room_default_public_jids = true
"""


def plugins() -> Path | None:
    """The folder of Jitsi's modules for Prosody: of the Debian package, or of a checkout."""
    folders = [Path(INSTALLED or "/nowhere", name) for name in ("prosody-plugins", "resources/prosody-plugins")]
    return next((each for each in folders if each.is_dir()), None)


def library() -> Path:
    """lib-jitsi-meet as the Debian package has it."""
    return Path(INSTALLED or "/nowhere", "libs", "lib-jitsi-meet.min.js")


def why_unusable(chroot: Path | None) -> str | None:
    """What is missing in that Jitsi, or for it in the system of a Prosody; one sentence, or None."""
    if INSTALLED is None:
        return None
    if not Path(INSTALLED).is_dir():
        return f"JITSI_MEET={INSTALLED} is not a folder; give the one that has prosody-plugins in it"
    if plugins() is None:
        return f"{INSTALLED} has no folder prosody-plugins or resources/prosody-plugins; is jitsi-meet-prosody there?"
    into = ["chroot", str(chroot)] if chroot else []
    missing = [
        package
        for name, package in LUA_LIBRARIES.items()
        if subprocess.run([*into, "lua5.4", "-e", f"require '{name}'"], capture_output=True, check=False).returncode
    ]
    where = f" in {chroot}" if chroot else ""
    return f"Jitsi's modules need {', '.join(missing)} for Lua 5.4{where}" if missing else None


def sources() -> tuple[Path, ...]:
    """Where Prosody takes its modules from, first ours."""
    own = (ROOT / "lua", ROOT / "tests" / "prosody" / "plugins")
    return (*own, plugins() or STAND_INS)


def on_component(modules: Iterable[str]) -> list[str]:
    """The modules of the rooms' component, as they are called in the installed Jitsi."""
    if INSTALLED is None:
        return list(modules)
    return [ON_COMPONENT.get(name, name) for name in modules if name not in ON_VIRTUAL_HOST]


def on_virtual_host(modules: Iterable[str]) -> list[str]:
    """The modules that belong on the virtual host of the users there."""
    if INSTALLED is None:
        return []
    return [real for name in modules for real in ON_VIRTUAL_HOST.get(name, ())]


def main() -> int:
    """Says in a sentence for each Prosody what is missing. 0 if at least the machine's own can be used."""
    for chroot in (None, ROOT / ".cache" / "prosody13"):
        if problem := why_unusable(chroot):
            print(problem)
            if chroot is None:
                return 1
    if not library().exists():
        print(f"there is no {library()}: the browser is not tested; is jitsi-meet-web there?")
    return 0


if __name__ == "__main__":
    sys.exit(main())
