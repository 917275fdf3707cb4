"""The settings of the memory that several sidecars share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.loader import examine
from sidecar.config.named_files import examine_with_files

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
