"""The config file: what it means, and every mistake with the place where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config import Settings, load, parse
from sidecar.errors import ConfigError

GOOD = "backend: {url: http://127.0.0.1:1}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return caught.value.problems


def _binary(folder: Path) -> Path:
    file = folder / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    return file


# Each entry: a file, and all that is said about it.
GOLDEN: list[tuple[str, list[str]]] = [
    ("", ["f:1:1: backend: is required; it needs at least `url: https://api.example.com/webhooks/jitsi`"]),
    ("backend: {}\n", ["f:1:1: backend.url: is required, such as https://api.example.com/webhooks/jitsi"]),
    ("backend:\n", ["f:1:1: backend: expected a section with settings, got nothing"]),
    ("- a\n", ["f:1:1: expected a section with settings, got a list"]),
    ("just text\n", ['f:1:1: expected a section with settings, got the text "just text"']),
    (GOOD + "bakend: {}\n", ["f:2:1: bakend: there is no such setting; did you mean `backend`?"]),
    (
        GOOD + "zzz: 1\n",
        [
            "f:2:1: zzz: there is no such setting; there are listen, admin, state_dir, backend, breaker, endpoints, "
            "rooms, default_room_config, identity, cache, outbox, log"
        ],
    ),
    (
        GOOD + "endpoints:\n  validate-acess: {}\n",
        ["f:3:3: endpoints.validate-acess: there is no such setting; did you mean `validate-access`?"],
    ),
    (
        GOOD + "endpoints:\n  validate-access:\n    allow: {frsh: 5}\n",
        ["f:4:13: endpoints.validate-access.allow.frsh: there is no such setting; did you mean `fresh`?"],
    ),
    (GOOD + "listen: {port: '8788'}\n", ['f:2:10: listen.port: expected a whole number, got the text "8788"']),
    (GOOD + "listen: {port: 70000}\n", ["f:2:10: listen.port: input should be less than or equal to 65535, got 70000"]),
    (
        GOOD + "breaker: {window: 10s}\n",
        ['f:2:11: breaker.window: expected a number of seconds, such as 5 or 0.5, got the text "10s"'],
    ),
    (
        GOOD + "breaker: {window: .inf}\n",
        ["f:2:11: breaker.window: input should be a finite number, got inf"],
    ),
    (GOOD + "breaker: {failure_ratio: 0}\n", ["f:2:11: breaker.failure_ratio: input should be greater than 0, got 0"]),
    (
        GOOD + "endpoints:\n  validate-access: {on_unavailable: yes}\n",
        [
            "f:3:21: endpoints.validate-access.on_unavailable: expected 'deny' or 'allow', got the YAML boolean true",
        ],
    ),
    (
        GOOD + "endpoints:\n  room-created: {on_unavailable: default}\n",
        ["f:1:1: on_unavailable: default needs `default_room_config`"],
    ),
    (
        GOOD + "endpoints:\n  room-created: {deadline: 0.1}\n",
        ["f:3:18: endpoints.room-created.deadline: input should be greater than or equal to 0.5, got 0.1"],
    ),
    (
        GOOD + "rooms:\n  - match: a\n  - {}\n",
        ["f:4:5: rooms[1].match: is required"],
    ),
    (
        GOOD + "rooms:\n  - {match: a, validate-access: {deadline: 3}}\n",
        [
            "f:3:34: rooms[0].validate-access.deadline: there is no such setting; there are answer_within, allow, "
            "deny, on_unavailable"
        ],
    ),
    (GOOD + "rooms: {}\n", ["f:2:1: rooms: expected a list, got a section"]),
    (
        GOOD + "identity: {anonymous_domains: [1]}\n",
        ["f:2:32: identity.anonymous_domains[0]: expected text, got 1; put it in quotes"],
    ),
    (GOOD + "log: {identities: 1}\n", ["f:2:7: log.identities: expected true or false, got 1"]),
    (
        GOOD + "listen: {prefix: webhooks}\n",
        ["f:2:10: listen.prefix: must be a path such as /webhooks/jitsi, without a slash at the end"],
    ),
    (GOOD + "log: {level: debug}\nlog: {level: info}\n", ["f:3:1: log: is there twice, first in line 2"]),
    (GOOD + "listen: [1, 2\n", ["f:3:1: not YAML: expected ',' or ']', but got '<stream end>'"]),
    (GOOD + "\tlisten: 1\n", ["f:2:1: not YAML: found character '\\t' that cannot start any token"]),
    (GOOD + "? [a]\n: 1\n", ["f:2:3: the file: a key must be a plain word"]),
    (GOOD + "log: !!python/object/apply:os.system [x]\n", ["f:2:1: log: expected a section with settings, got a list"]),
    (
        "backend: {url: 'ftp://x'}\n",
        ["f:1:11: backend.url: must be an absolute URL such as https://api.example.com/webhooks/jitsi"],
    ),
    (
        "backend: {url: 'api.example.com'}\n",
        ["f:1:11: backend.url: must be an absolute URL such as https://api.example.com/webhooks/jitsi"],
    ),
    (
        "backend: {url: 'http://x:99999'}\n",
        ["f:1:11: backend.url: must be an absolute URL such as https://api.example.com/webhooks/jitsi"],
    ),
    (
        "backend: {url: 'http://x y/'}\n",
        ["f:1:11: backend.url: must be an absolute URL such as https://api.example.com/webhooks/jitsi"],
    ),
    (
        "backend: {url: 'http://u:p@x'}\n",
        ["f:1:11: backend.url: must not hold a user or password; use secret_file for the shared secret"],
    ),
    (
        "backend: {url: 'http://x?a=1'}\n",
        ["f:1:11: backend.url: must not hold a query or fragment; the endpoint's name is appended to the path"],
    ),
]


@pytest.mark.parametrize(("text", "said"), GOLDEN)
def test_each_mistake_is_named_with_its_place(text: str, said: list[str]) -> None:
    assert problems(text) == said


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
    assert "over 100,000 values" in problems(text)[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "none.yaml", "there is no such file"),
        (lambda folder: folder, "cannot be read"),
        (_binary, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, make: object, says: str) -> None:
    file = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{file}: {says}")


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = parse(GOOD, "f")
    assert (settings.listen.host, settings.listen.port, settings.listen.prefix) == (
        "127.0.0.1",
        8788,
        "/webhooks/jitsi",
    )
    assert (settings.admin.host, settings.admin.port) == ("127.0.0.1", 8789)
    assert (settings.backend.connect_timeout, settings.backend.max_in_flight) == (1.0, 64)
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
