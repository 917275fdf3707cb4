"""Where the webhook secret comes from, and what is wrong when it cannot be had."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sidecar.backend.client import Target
from sidecar.config import credentials
from sidecar.config.credentials import (
    CREDENTIAL,
    FILE_LIMIT,
    how_to_correct_secret,
    newer_than_credentials,
    read_secret,
    restart_for,
)
from sidecar.config.models import BackendSettings
from sidecar.config.named_files import examine_with_files
from sidecar.errors import StartError


def settings(file: Path | None = None, env: str | None = None) -> BackendSettings:
    return BackendSettings(url="http://127.0.0.1:1", secret_file=file, secret_env=env)


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def test_without_a_place_to_look_there_is_no_secret() -> None:
    assert read_secret(settings(), {}) is None


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n"])
def test_the_line_end_an_editor_adds_is_no_part_of_it(tmp_path: Path, content: bytes) -> None:
    assert read_secret(settings(write(tmp_path / "secret", content)), {}) == "s3cret"


def test_a_space_inside_is_part_of_it(tmp_path: Path) -> None:
    assert read_secret(settings(write(tmp_path / "secret", b"two words")), {}) == "two words"


def test_it_may_be_in_the_environment() -> None:
    assert read_secret(settings(env="WEBHOOK_SECRET"), {"WEBHOOK_SECRET": "s3cret"}) == "s3cret"


def test_a_file_goes_before_the_environment_and_a_credential_before_both(tmp_path: Path) -> None:
    file = write(tmp_path / "secret", b"of the file")
    environ = {"WEBHOOK_SECRET": "of the environment"}
    both = settings(file, "WEBHOOK_SECRET")
    assert read_secret(both, environ) == "of the file"
    (tmp_path / "credentials").mkdir()
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path / "credentials")
    assert read_secret(both, environ) == "of the file"
    write(tmp_path / "credentials" / CREDENTIAL, b"of the credential")
    assert read_secret(both, environ) == "of the credential"
    assert read_secret(settings(), environ) == "of the credential"


@pytest.mark.parametrize("content", [b"", b"\n", "schlüssel".encode(), b"\xff\xfe", b"two\nlines", b"a\x00b"])
def test_what_no_header_can_carry_is_refused_without_being_repeated(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "webhook", content)
    with pytest.raises(StartError) as caught:
        read_secret(settings(file), {})
    said = str(caught.value)
    assert "\n" not in said
    assert str(file) in said
    assert "schl" not in said
    assert "two" not in said


def test_a_file_that_cannot_be_read_and_a_variable_that_is_not_there_are_one_line_each(tmp_path: Path) -> None:
    for missing in (settings(tmp_path / "none"), settings(tmp_path), settings(env="NOT_THERE")):
        with pytest.raises(StartError) as caught:
            read_secret(missing, {})
        assert "\n" not in str(caught.value)


def test_it_shows_in_no_repr() -> None:
    assert "s3cret" not in repr(Target("http://x", "s3cret"))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_what_has_no_end_or_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "secret"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file = Path("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        write(file, b"x" * (FILE_LIMIT + 1))
    reason = "larger than 1024 KiB" if kind == "huge" else "not a regular file"
    with pytest.raises(StartError, match=f"cannot be read from {file}: it is {reason}"):
        read_secret(settings(file), {})


def test_a_folder_of_credentials_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 300)  # too long a name; root may read every other folder
    with pytest.raises(StartError, match=r"\$CREDENTIALS_DIRECTORY: .* cannot be read"):
        read_secret(settings(), {"CREDENTIALS_DIRECTORY": str(folder)})


@pytest.fixture
def passed(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """What systemd passed, and the folder with the files that it was read from: `webhook-secret`, the same in both."""
    credentials, sources = tmp_path / "credentials", tmp_path / "etc"
    for folder in (credentials, sources):
        folder.mkdir()
        (folder / "webhook-secret").write_text("s3cret")
    return {"CREDENTIALS_DIRECTORY": str(credentials)}, sources


def test_a_file_that_is_as_it_was_passed_needs_no_restart(passed: tuple[dict[str, str], Path]) -> None:
    environ, sources = passed
    assert newer_than_credentials(environ, sources) == []
    assert newer_than_credentials({}, sources) == []


def test_a_file_that_differs_from_what_was_passed_is_named(passed: tuple[dict[str, str], Path]) -> None:
    environ, sources = passed
    (sources / "webhook-secret").write_text("another")
    (sources / "admin-token").write_text("not passed")
    assert newer_than_credentials(environ, sources) == [sources / "webhook-secret"]


def test_where_no_file_may_be_read_the_later_one_counts(
    passed: tuple[dict[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, sources = passed

    def forbidden(_: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr("sidecar.config.credentials.content_of", forbidden)
    now = time.time()
    os.utime(sources / "webhook-secret", (now + 5, now + 5))
    assert newer_than_credentials(environ, sources) == [sources / "webhook-secret"]
    os.utime(sources / "webhook-secret", (now - 5, now - 5))
    assert newer_than_credentials(environ, sources) == []


@pytest.mark.parametrize(
    ("of", "advice"),
    [
        (settings(file=Path("/x/secret")), "/x/secret, then reload"),
        (settings(env="SECRET"), "variable SECRET, then restart"),
        (settings(), "no webhook secret is sent"),
    ],
    ids=["file", "environment", "none"],
)
def test_the_advice_for_a_wrong_secret_is_about_where_it_is_from(of: BackendSettings, advice: str) -> None:
    assert advice in how_to_correct_secret(of, {})


def test_a_new_secret_is_tested_before_the_restart(passed: tuple[dict[str, str], Path]) -> None:
    environ, sources = passed
    for advice in (how_to_correct_secret(settings(), environ), restart_for(sources / "webhook-secret")):
        assert "sudo prosody-sidecar doctor, which tests the new secret, then run: systemctl restart" in advice
    assert "doctor" not in restart_for(sources / "admin-token")


def test_a_wrong_secret_that_systemd_has_passed_needs_a_restart(passed: tuple[dict[str, str], Path]) -> None:
    environ, _ = passed
    assert "restart prosody-sidecar (a reload does not" in how_to_correct_secret(settings(Path("/x")), environ)


def test_a_file_that_systemd_passes_is_not_examined_by_a_process_that_may_not_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the `check` of a reload on Debian 13, or of any user: `systemctl reload` must not fail for it."""
    monkeypatch.setattr(credentials, "SOURCES", tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "webhook-secret").write_text("")
    config = tmp_path / "sidecar.yaml"
    config.write_text(f"backend: {{url: 'http://127.0.0.1/x', secret_file: {tmp_path / 'webhook-secret'}}}\n")
    examined = examine_with_files(config, {})
    assert examined.problem_lines() == []
    assert "backend.secret_file: was not examined" in "\n".join(examined.warning_lines())
    assert "is empty" in "\n".join(examine_with_files(config, {"CREDENTIALS_DIRECTORY": "/nowhere"}).problem_lines())
    (tmp_path / "webhook-secret").unlink()
    assert "cannot be read" in "\n".join(examine_with_files(config, {}).problem_lines())
