"""Where a daemon is found while its config file has mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.running_daemon import examine_running
from sidecar.errors import ConfigError

ELSEWHERE = "admin:\n  # not the usual port\n  port: 7777\n\nstate_dir: /srv/sidecar\nlisten: {port: 7776}\n"

MISTAKES = {
    "none": "backend: {url: http://127.0.0.1:1/x}\n",
    "wrong value": "backend: {url: nonsense}\n",
    "missing": "",
    "unknown": "bakend: 3\n",
    "a tab": "backend:\n\turl: x\n",
    "an open quote": 'backend:\n  url: "http://127.0.0.1:1/x\n',
    "an open bracket": "rooms: [{match: x\n",
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_daemon_is_found_whatever_else_is_wrong(tmp_path: Path, mistake: str) -> None:
    file = tmp_path / "sidecar.yaml"
    for text in (ELSEWHERE + mistake, mistake + ELSEWHERE):
        file.write_text(text)
        examined, settings = examine_running(file, {})
        assert (settings.admin.port, settings.state_dir) == (7777, Path("/srv/sidecar"))
        assert bool(examined.problem_lines()) == (mistake != MISTAKES["none"])


@pytest.mark.parametrize("text", ["admin: {port: many}\n", "admin:\n\tport: 7777\n", "\0\0\0\0", "%", "- a\n- b\n"])
def test_what_cannot_be_read_has_its_default(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(text)
    _, settings = examine_running(file, {})
    assert settings.admin.port == 8789


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text("%\n" + ELSEWHERE)
    _, settings = examine_running(file, {"PROSODY_SIDECAR_ADMIN__PORT": "7778"})
    assert settings.admin.port == 7778


def test_a_file_that_cannot_be_read_is_a_problem_and_the_daemon_is_found_at_its_default(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.symlink_to(file)
    examined, settings = examine_running(file, {})
    assert settings.admin.port == 8789
    assert examined.problem_lines()[0].startswith(f"{file}: cannot be read: ")
    with pytest.raises(ConfigError, match="cannot be read"):
        examined.usable()


def test_a_file_that_is_not_there_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        examine_running(tmp_path / "sidecar.yaml", {})
