"""The settings of the memory that several sidecars share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.loader import examine, parse
from sidecar.config.named_files import examine_with_files
from sidecar.daemon.current import read_secrets
from sidecar.errors import StartError
from tests.unit.builders import make_certificate

BASE = "backend: {url: 'https://api.example.com/hooks'}\n"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host:6379", "redis://"),
        ("redis://:secret@host", "password_file"),
        ("redis://host/db?x=1", "number of a database"),
        ("redis://host:0/0", "port from 1 to 65535"),
    ],
)
def test_a_wrong_url_is_named(url: str, says: str) -> None:
    (line,) = examine(f"{BASE}shared: {{url: '{url}'}}\n", "f").problem_lines()
    assert "shared.url" in line
    assert says in line


def test_without_a_key_or_with_a_short_one_it_is_refused(tmp_path: Path) -> None:
    config, key = tmp_path / "sidecar.yaml", tmp_path / "key"
    key.write_text("short")
    key.chmod(0o600)
    for setting, says in (("", "openssl rand"), (f", key_file: {key}", "can be guessed")):
        config.write_text(f"{BASE}shared: {{url: 'redis://127.0.0.1'{setting}}}\n")
        lines = [line for line in examine_with_files(config, {}).problem_lines() if "shared.key_file" in line]
        assert len(lines) == 1
        assert says in lines[0]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), ("no certificate", "contains no certificate"), ("", "contains no")]
)
def test_a_file_of_an_authority_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    config, ca = tmp_path / "sidecar.yaml", tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    config.write_text(f"{BASE}shared: {{url: 'rediss://127.0.0.1', ca_file: {ca}}}\n")
    lines = [line for line in examine_with_files(config, {}).problem_lines() if "shared.ca_file" in line]
    assert len(lines) == 1
    assert f"{config}:2:37: shared.ca_file: {ca} {says}" in lines[0]


def test_the_file_of_an_authority_is_read_at_the_start_too(tmp_path: Path) -> None:
    make_certificate(tmp_path / "ca.pem", tmp_path / "ca.key")
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    shared = f"shared: {{url: 'rediss://127.0.0.1', key_file: {tmp_path}/key, ca_file: {tmp_path}/ca.pem}}\n"
    settings = parse(BASE + shared, "f")
    assert read_secrets(settings, {}).shared_key
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(StartError, match=r"shared\.ca_file: .* cannot be read: No such file"):
        read_secrets(settings, {})
