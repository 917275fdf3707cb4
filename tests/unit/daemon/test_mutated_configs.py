"""Mutated config files: check, start and reload agree about each, and say what is wrong with its place."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli.commands import main
from sidecar.config.named_files import examine_with_files
from sidecar.daemon.build import Parts
from sidecar.daemon.current import read_secrets
from sidecar.daemon.reload import reload
from sidecar.errors import SidecarError
from tests.unit.daemon.builders import a_sidecar, at_once, in_this_thread
from tests.unit.daemon.in_force import in_words, state_of

BASE = """\
# A file with every kind of value: Grüße
listen: {host: 127.0.0.1, port: 18788, prefix: /webhooks/jitsi, token_file: FOLDER/secret}
admin: {port: 18789}
state_dir: null
backend:
  url: http://127.0.0.1:1/webhooks/jitsi
  secret_file: FOLDER/secret
  connect_timeout: 1.0
  cache_control: honour
breaker: {failure_ratio: 0.5, minimum_calls: 10, open_for: 3}
endpoints:
  room-created: {deadline: 4.0, fresh: 5, on_unavailable: default}
  validate-access:
    deadline: 4.0
    allow: &times {fresh: 15, stale_if_error: 3600}
    deny: *times
rooms:
  - match: "lecture-*"
    validate-access: {on_unavailable: allow}
  - {match: 'open-?', room-created: {fresh: 1}}
default_room_config:
  meetingTitle: "A title"
  lobbyEnabled: true
  moderators: [ann@example.com, bob@example.com]
identity: {anonymous_domains: [guest.example.com]}
cache: {allows: 1000}
log: {level: info, format: json}
"""
# fmt: off
VALUES = [
    "2026-12-01", "2026-12-01T10:00:00Z", "10:30", "-1:30.5", "010", "0o17", "08", "1e3", "1_000", ".nan", ".inf",
    "-.inf", "1.0e+999", "0x1f", "0b11", "~", "null", "yes", "on", "NO", "true", '""', "''", '"x"', "[]", "{}",
    "[[]]", "{a:", "b}", "*times", "*none", "&a", "&a", "x", "!!set{a}", "!!binary_eA==", "!!python/object:os.system",
    "!!float", "!!int_x", "!!timestamp_x", "!!null_x", "!x", "<<:", "=", "?", ":", "-", "--", "---", "...", "%", "@",
    "`", "|", ">", "|-", '"\\0"', '"\\ud800"', '"\\UFFFFFFFF"', '"\\x1b"', "\ufeff", "\u200b", "\x00", "\x07",
    "\x1b[31m", "9007199254740993", "99999999999999999999999999", "-0", "+5", ".5", "5.", "1__0", "/dev/zero",
    "/dev/full", "/etc", "/none", "a/../b", "[1,2", "{a:", '"x', "http://[", "http://[::1", "http://a:b@c",
    "http://x:99999", "https://xn--a", "ftp://x", "//x", "::1", "0.0.0.0", "[::]", "256.256.256.256", "\xfc",
    "[tenant]*", "*****", "Board-*", "\ud7ff", "\U0001f3a5", "#", "#x",
]
# fmt: on
"""Each takes the place of a value or a key; `_` stands for a space."""

PLACED = r"{file}:\d+:\d+: \S"


def mutated(content: bytes, random: random.Random) -> bytes:
    """One to three changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice((_bytes, _slice, _value, _value, _value, _line, _encoded))(content, random)
    return content


def _bytes(content: bytes, random: random.Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(random.randrange(3)) + content[at + random.randrange(3) :]


def _slice(content: bytes, random: random.Random) -> bytes:
    a, b, c = (random.randrange(len(content) + 1) for _ in range(3))
    return random.choice((content[:a], content[a:], content[:a] + content[min(b, c) : max(b, c)] + content[a:]))


def _value(content: bytes, random: random.Random) -> bytes:
    """Another value, or another key."""
    places = list(re.finditer(rb"(?<=[:\[,{-] )[^\n,{}\[\]]+|[\w-]+(?=:)", content))
    if not places:
        return content
    place, value = random.choice(places), random.choice(VALUES).replace("_", " ")
    return content[: place.start()] + value.encode("utf-8", "surrogatepass") + content[place.end() :]


def _line(content: bytes, random: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    line = lines[at] if random.random() < 0.5 else lines.pop(at)
    lines.insert(to, random.choice((b"", b" ", b"\t", b"- ", b"  ")) + line)
    return b"".join(lines)


def _encoded(content: bytes, random: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    name = random.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp500"))
    return random.choice((content.replace(b"\n", b"\r\n"), text.encode(name, "replace"), content * 2, content * 600))


class Trial:
    """One mutated file, and what is said about it."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self.file = folder / "sidecar.yaml"
        self.good = BASE.replace("FOLDER", str(folder))
        self.file.write_text(self.good)
        self.parts = self.built()
        self.file.write_bytes(content)

    def built(self) -> Parts:
        """As far as a start comes before it opens anything."""
        examined = examine_with_files(self.file, {})
        settings = examined.usable()
        return a_sidecar(self.file.read_text("utf-8"), read_secrets(settings, {}), self.file, output=io.StringIO())

    def checked(self) -> list[str]:
        """The problems."""
        result = CliRunner().invoke(main, ["check", "--config", str(self.file)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.output
        assert result.exit_code in (0, 1)
        problems = [line for line in result.output.split("\n") if line and ": warning: " not in line]
        return problems if result.exit_code else []

    def started(self) -> tuple[list[str], Parts | None]:
        try:
            return [], self.built()
        except SidecarError as error:
            return str(error).split("\n"), None

    def reloaded(self) -> bool:
        """Whether it was applied."""
        before = dict(state_of(self.parts))
        at_once(reload(self.parts, {}, in_this_thread))
        said = self.parts.health.reasons()
        assert not any("defect" in reason for reason in said), said
        if said:
            assert dict(state_of(self.parts)) == before
        return not said


@pytest.mark.parametrize("seed", range(300))
def test_a_mutated_file_is_good_for_all_or_refused_by_all_with_its_place(tmp_path: Path, seed: int) -> None:
    (tmp_path / "secret").write_text("a-secret-of-enough-length")
    base = BASE.replace("FOLDER", str(tmp_path)).encode()
    trial = Trial(tmp_path, mutated(base, random.Random(seed)))
    problems = trial.checked()
    assert all(re.match(PLACED.format(file=re.escape(str(trial.file))), line) for line in problems), problems
    said, fresh = trial.started()
    assert said == problems
    assert trial.reloaded() is (fresh is not None)
    if fresh is not None:
        prefix = trial.parts.questions.settings.prefix
        assert {**in_words(trial.parts), "webhooks": prefix} == {**in_words(fresh), "webhooks": prefix}
