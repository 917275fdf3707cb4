"""The config file: what it means, and every mistake with the place where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.loader import load, parse
from sidecar.config.models import Settings
from sidecar.errors import ConfigError

GOOD = "backend: {url: http://127.0.0.1:1}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return caught.value.problems


# Each entry: a file, and all that is said about it.
def test_all_mistakes_are_named_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        "listen:\n  port: x\nbackend:\n  url: nowhere\n  secret: hunter2-hunter2\n"
        "rooms:\n  - match: 7\nlog: {level: loud}\n"
    )
    assert [line.split(": ")[0] for line in found] == ["f:2:3", "f:4:3", "f:5:3", "f:7:5", "f:8:7"]


def test_a_value_in_the_wrong_place_is_not_repeated_since_it_may_be_the_secret() -> None:
    said = "\n".join(problems("backend:\n  url: s3cret-s3cret-s3cret\n  connect_timeout: s3cret-s3cret-s3cret\n"))
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "text", ["a: &x [*x]\n", "a: &x {b: *x}\n", "[" * 5000, "a: \0", "x: 1e9999999999\n", "%YAML 9\n---\n"]
)
def test_no_text_at_all_ends_in_anything_but_named_problems(text: str) -> None:
    assert all(line.startswith("f:") for line in problems(text))


def test_anchors_that_multiply_are_refused_quickly() -> None:
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    assert "more than 100,000 values" in problems(text)[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "none.yaml", "there is no such file"),
        (lambda folder: folder, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, make: object, says: str) -> None:
    file = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{file}: {says}")


def test_a_file_that_the_service_may_not_read_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read every file

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ConfigError, match=f"cannot be read: Permission denied; .*chmod 644 {tmp_path}/f.yaml"):
        load(tmp_path / "f.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD.encode("utf-16"), "1:1: the file is in UTF-16"),
        (GOOD.encode("utf-16-le"), "1:1: the file is in UTF-16"),
        (GOOD.encode("utf-32"), "1:1: the file is in UTF-16"),
        (f"{GOOD}# Grüße\n".encode("latin-1"), "2:5: the byte 0xfc is not UTF-8"),
        (f"{GOOD}# \r\n# Grüße\r\n".encode("latin-1"), "3:5: the byte 0xfc is not UTF-8"),
        (GOOD.encode() + b"# \x00", "2:3: not YAML: the character #x0000 is not allowed"),
        (GOOD.encode() + b"#\r#\x1b", "3:2: not YAML: the character #x001b is not allowed"),
        (b"#" * 600_000, "1:1: the file is larger than 512 KiB"),
    ],
)
def test_bytes_that_are_no_config_are_refused_with_their_place(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:{says}")


def test_a_file_without_an_end_is_read_only_up_to_the_limit() -> None:
    with pytest.raises(ConfigError, match="larger than 512 KiB"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode()])
def test_a_byte_order_mark_of_utf_8_and_line_ends_of_windows_are_no_problem(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    assert load(file) == parse(GOOD, "f")


def test_at_most_a_hundred_problems_are_listed() -> None:
    found = problems(f"{GOOD}identity: {{anonymous_domains: [{', '.join(['a/b'] * 150)}]}}\n")
    assert len(found) == 101
    assert found[-1].endswith("here and below are 50 more problems")


def test_an_anchor_that_multiplies_nothing_can_be_used() -> None:
    settings = parse(f"{GOOD}rooms: [{{match: a, room-created: &x {{fresh: 1}}}}, {{match: b, room-created: *x}}]", "f")
    assert settings.rooms[0].room_created == settings.rooms[1].room_created


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = parse(GOOD, "f")
    assert (settings.listen.host, settings.listen.port, settings.listen.prefix) == (
        "127.0.0.1",
        8788,
        "/webhooks/jitsi",
    )
    assert (settings.admin.host, settings.admin.port) == ("127.0.0.1", 8789)
    assert (settings.backend.connect_timeout, settings.backend.max_in_flight) == (1.0, 1000)
    breaker = settings.breaker
    assert (breaker.failure_ratio, breaker.minimum_calls, breaker.minimum_rooms) == (0.5, 10, 3)
    assert (breaker.window, breaker.slow_after, breaker.open_for) == (10, 2.0, 3)
    room, access = settings.endpoints.room_created, settings.endpoints.validate_access
    assert (room.deadline, room.fresh, room.stale_while_revalidate, room.stale_if_error) == (4.0, 5, 0, 86_400)
    assert (room.answer_within, room.on_unavailable) == (0.5, "refuse")
    assert (access.deadline, access.answer_within, access.on_unavailable) == (4.0, 0.5, "deny")
    assert (access.allow.fresh, access.allow.stale_while_revalidate, access.allow.stale_if_error) == (15, 15, 3600)
    assert (access.deny.fresh, access.deny.stale_while_revalidate, access.deny.stale_if_error) == (5, 0, 3600)
    assert (settings.identity.anonymous_domains, settings.log.level, settings.log.format) == ([], "info", "json")


def test_settings_cannot_be_changed_by_accident() -> None:
    settings: Settings = parse(GOOD, "f")
    with pytest.raises(ValueError, match="frozen"):
        settings.log = settings.log  # type: ignore[misc]


def test_a_slash_at_the_end_of_the_url_is_not_doubled() -> None:
    assert parse("backend: {url: 'http://x/hooks/'}\n", "f").backend.url == "http://x/hooks"
