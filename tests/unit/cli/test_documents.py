"""docs/commands.md, the man pages and the lock file say what the code does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

from packaging.requirements import Requirement

from sidecar.core.breaker import Permit
from tools import man
from tools.command_documents import COMMANDS, EndpointStatus
from tools.commands import every_command, options

ROOT = Path(__file__).parents[3]


def test_the_page_and_the_schema_of_the_commands_are_current() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.commands", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_every_command_that_prints_json_has_a_schema() -> None:
    with_json = {
        each.command_path.removeprefix("prosody-sidecar ")
        for each in every_command()
        if any(option.startswith("--json") for option, _ in options(each))
    }
    assert with_json == set(COMMANDS)


def test_the_schema_has_every_state_of_the_breaker() -> None:
    states = get_args(get_type_hints(EndpointStatus)["breaker"])
    assert set(states) == {permit.value for permit in Permit}


def test_the_man_page_has_every_command_and_option() -> None:
    page = man.commands()
    for context in every_command():
        assert f'.SS "{man.plain(context.command_path)} ' in page
        for option, text in options(context):
            assert f".B {man.plain(option)}\n{man.plain(text)}" in page


def test_the_man_page_of_the_config_has_settings_of_every_depth() -> None:
    page = man.settings()
    for name in ("state_dir", "backend.url", r"endpoints.validate\-access.allow.fresh", r"rooms[].match"):
        assert f".B {name}\n" in page


def test_no_line_of_a_man_page_is_a_request_by_accident() -> None:
    assert man.plain(".x\n'y\\z") == "\\&.x\n\\(aqy\\ez"


def test_the_lock_file_has_what_setup_cfg_asks_for() -> None:
    lock = (ROOT / "packaging" / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .*)? \\$", lock, re.M))
    text = (ROOT / "setup.cfg").read_text()
    listed = re.findall(r"^(?:install_requires|shared) =\n((?:    .*\n)+)", text, re.M)
    assert len(listed) == 2
    for line in "".join(listed).splitlines():
        wanted = Requirement(line.strip())
        assert wanted.specifier.contains(locked[wanted.name]), f"{line.strip()}: run `make lock`"
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", lock)) > len(locked)
