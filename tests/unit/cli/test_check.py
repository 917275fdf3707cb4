"""`prosody-sidecar check` beyond the text of the config: the secret's file, warnings, exit codes, JSON."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli import check
from sidecar.cli.commands import main


def checked(folder: Path, *options: str, secret: bytes | None = b"0123456789abcdef", mode: int = 0o600) -> Result:
    """Run `check` on a good config whose secret file is as given."""
    file = folder / "secret"
    if secret is not None:
        file.write_bytes(secret)
        file.chmod(mode)
    config = folder / "f.yaml"
    config.write_text(f"backend:\n  url: https://api.example.com/webhooks/jitsi\n  secret_file: {file}\n")
    return CliRunner().invoke(main, ["check", "--config", str(config), *options])


def test_a_good_config_is_good(tmp_path: Path) -> None:
    result = checked(tmp_path)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{tmp_path}/f.yaml: good",
        "state_dir: the file system of /var/lib/prosody-sidecar must have a total size of at least 874 MB, "
        "so that it is not full before this outbox is",
    ]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("outbox: {max_events: 10_000}\n", "at least 566 MB"),
        ("outbox: {max_events: 10}\n", "at least 175 MB"),
        ("state_dir: null\n", None),
    ],
)
def test_the_least_file_system_depends_on_the_outbox(tmp_path: Path, extra: str, says: str | None) -> None:
    config = tmp_path / "f.yaml"
    config.write_text(f"backend: {{url: 'https://api.example.com/x'}}\n{extra.replace('_000', '000')}")
    notes = json.loads(CliRunner().invoke(main, ["check", "--config", str(config), "--json"]).output)["notes"]
    assert [says in note for note in notes if says is not None] == ([] if says is None else [True]), notes


@pytest.mark.parametrize("by_credential", [False, True])
def test_orders_need_a_token_for_the_module_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_credential: bool
) -> None:
    for name in ("control-token", "listen-token"):
        (tmp_path / name).write_text("0123456789abcdef")
    config = tmp_path / "f.yaml"
    lines = "backend: {url: 'https://api.example.com/x'}\n"
    if by_credential:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        (tmp_path / "listen-token").rename(tmp_path / "elsewhere")
    else:
        lines += f"control: {{token_file: {tmp_path}/control-token}}\n"
    config.write_text(lines)
    refused = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert (refused.exit_code, "control.token_file: orders need listen.token_file" in refused.output) == (1, True)
    if by_credential:
        (tmp_path / "elsewhere").rename(tmp_path / "listen-token")
    else:
        config.write_text(f"{lines}listen: {{token_file: {tmp_path}/listen-token}}\n")
    assert CliRunner().invoke(main, ["check", "--config", str(config)]).exit_code == 0


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("geheimnißvoll-0123".encode(), "characters that are not allowed in an HTTP header"),
        (b"\xff\xfe0123456789abcdef", "is not text"),
        (b"0123456789abcdef ", "begins or ends with a space"),
        (b"0123456789\nabcdef", "characters that are not allowed in an HTTP header"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_problem_at_its_line(tmp_path: Path, secret: bytes | None, says: str) -> None:
    result = checked(tmp_path, secret=secret)
    assert result.exit_code == 1
    assert result.output.startswith(f"{tmp_path}/f.yaml:3:3: backend.secret_file: ")
    assert says in result.output


@pytest.mark.parametrize(
    ("secret", "mode", "says"),
    [
        (b"0123456789abcdef\n", 0o600, "ends with a line end"),
        (b"0123456789abcdef", 0o644, "every user of this machine can read"),
        (b"0123456789abcdef", 0o622, "every user of this machine can change"),
        (b"0123456789abcdef", 0o640, "its group can read"),
        (b"hunter2", 0o600, "can be guessed"),
    ],
)
def test_a_secret_file_that_is_unwise_is_warned_of(tmp_path: Path, secret: bytes, mode: int, says: str) -> None:
    result = checked(tmp_path, secret=secret, mode=mode)
    assert result.exit_code == 0
    assert result.output.startswith(f"{tmp_path}/f.yaml:3:3: warning: backend.secret_file: ")
    assert says in result.output


def test_json_has_problems_and_warnings_apart(tmp_path: Path) -> None:
    said = json.loads(checked(tmp_path, "--json", mode=0o644).output)
    assert said["problems"] == []
    assert "warning: backend.secret_file" in said["warnings"][0]
    said = json.loads(checked(tmp_path, "--json", secret=b"").output)
    assert "is empty" in said["problems"][0]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "none.yaml")])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


def test_settings_of_the_environment_are_good_without_a_file(tmp_path: Path) -> None:
    environ = {"PROSODY_SIDECAR_BACKEND__URL": "https://api.example.com/hooks"}
    result = CliRunner(env=environ).invoke(main, ["check", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 0
    assert result.output.startswith("environment: ")


def test_a_systemd_credential_stands_in_for_a_file_only_root_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "webhook-secret").write_text("0123456789abcdef")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert checked(tmp_path, secret=None).exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read a file that the service cannot, and give it away")
@pytest.mark.parametrize(
    ("mode", "group", "warned"), [(0o600, 0, True), (0o640, 0, True), (0o640, 65534, False), (0o644, 0, False)]
)
def test_root_is_warned_of_a_config_that_the_service_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int, warned: bool
) -> None:
    monkeypatch.setattr(check, "SOURCES", tmp_path)
    config = tmp_path / "f.yaml"
    config.write_text("backend: {url: 'https://api.example.com/x'}\n")
    config.chmod(mode)
    os.chown(config, 0, group)
    report = check.check(config, {})
    assert any(f"chmod 644 {config}" in line for line in report.warnings) == warned
    assert report.problems == []
