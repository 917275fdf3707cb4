"""Settings from the environment: each is the same as in the file, and each wrong one is refused in the same words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.environment import PREFIX, has_settings
from sidecar.config.loader import examine, examine_file
from sidecar.config.models import Section, Settings
from sidecar.errors import ConfigError

MINIMAL = "backend: {url: https://api.example.com/hooks}\n"


def leaves(section: type[Section] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting that is not a section."""
    for name, field in section.model_fields.items():
        inner, here = field.annotation, (*path, field.alias or name)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from leaves(inner, here)
        else:
            yield here


ALL = list(leaves())

TEXTS = (
    "{a: 1}", "[[1]]", "[{a: 1}]", "[]", "-5", "0", "1.5", "0x10", "true", "~", "2026-12-01", "no such value",
    "x" * 3000,
)  # fmt: skip


def variable(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper().replace("-", "_")


def in_a_file(path: tuple[str, ...], value: Any) -> str:
    data: dict[str, Any] = {"backend": {"url": "https://api.example.com/hooks"}}
    home = data
    for part in path[:-1]:
        home = home.setdefault(part, {})
    home[path[-1]] = value
    return json.dumps(data)


def without_place(lines: list[str]) -> list[str]:
    return [line.split(": ", 1)[1] for line in lines]


def fitting(path: tuple[str, ...]) -> Any:
    """A value of this setting that differs from its default."""
    special = {
        "host": "127.0.0.9", "prefix": "/other", "url": "http://b.example.com", "cache_control": "ignore",
        "on_unavailable": {"room-created": "refuse", "validate-access": "allow"}.get(path[-2] if path[1:] else "", ""),
        "level": "debug", "format": "console", "anonymous_domains": ["guest.example.com"], "namespace": "other",
        "muc_domains": ["conference.example.com"],
        "rooms": [{"match": "vip-*", "validate-access": {"allow": {"fresh": 1}}}],
        "default_room_config": {"password": "x"}, "failure_ratio": 0.25, "deadline": 3.5, "state_dir": "/srv/state",
        "secret_env": "A_SECRET",
    }  # fmt: skip
    if path == ("shared", "url"):
        return "redis://b.example.com:6380/2"
    if path[-1] in special:
        return special[path[-1]]
    default = Settings.model_validate(json.loads(in_a_file(("log", "level"), "info")))
    now: Any = default.model_dump(by_alias=True)
    for part in path:
        now = now[part]
    if isinstance(now, bool):
        return not now
    return now + 1 if isinstance(now, int | float) else "/some/file"


@pytest.mark.parametrize("path", ALL, ids=".".join)
def test_each_setting_is_the_same_from_the_environment_and_from_the_file(path: tuple[str, ...]) -> None:
    value = fitting(path)
    text = value if isinstance(value, str) else json.dumps(value)
    by_environment = examine(MINIMAL, "f", {variable(path): text})
    assert by_environment.settings == examine(in_a_file(path, value), "f").settings
    assert by_environment.settings != examine(MINIMAL, "f").settings or path[-1] == "on_unavailable"


@pytest.mark.parametrize("path", ALL, ids=".".join)
def test_any_text_has_the_same_result_and_words_as_in_the_file(path: tuple[str, ...]) -> None:
    for text in TEXTS:
        # A text setting is in quotes in the file; every other value is what YAML reads.
        in_file = json.dumps(text) if isinstance(fitting(path), str) else text
        from_file = examine(in_a_file(path, "@").replace('"@"', in_file), "f")
        from_environment = examine(MINIMAL, "f", {variable(path): text})
        lines = from_environment.problem_lines()
        assert from_environment.settings == from_file.settings, text
        assert sorted(without_place(lines)) == sorted(without_place(from_file.problem_lines())), text
        assert all(line.startswith(f"${variable(path)}: ") for line in lines), text


def test_the_environment_replaces_what_the_file_says() -> None:
    examined = examine(MINIMAL + "log: {level: debug, format: json}\n", "f", {"PROSODY_SIDECAR_LOG__LEVEL": "error"})
    assert examined.usable().log.level == "error"


def test_an_unknown_setting_is_refused_with_its_nearest() -> None:
    lines = examine(MINIMAL, "f", {"PROSODY_SIDECAR_BACKEND__ULR": "https://x.example.com"}).problem_lines()
    assert lines == ["$PROSODY_SIDECAR_BACKEND__ULR: backend.ulr: there is no such setting; did you mean `url`?"]


def test_a_list_with_a_mistake_names_the_variable_and_the_entry() -> None:
    lines = examine(MINIMAL, "f", {"PROSODY_SIDECAR_ROOMS": '[{match: "a*"}, {mtach: "b*"}]'}).problem_lines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["$PROSODY_SIDECAR_ROOMS", "rooms[1].match"],
        ["$PROSODY_SIDECAR_ROOMS", "rooms[1].mtach"],
    ]


def test_what_yaml_cannot_read_is_refused() -> None:
    lines = examine(MINIMAL, "f", {"PROSODY_SIDECAR_ROOMS": "[{match: "}).problem_lines()
    assert len(lines) == 1
    assert lines[0].startswith("$PROSODY_SIDECAR_ROOMS: rooms: not YAML: ")


def test_a_date_in_a_room_config_is_refused_as_in_the_file() -> None:
    lines = examine(MINIMAL, "f", {"PROSODY_SIDECAR_DEFAULT_ROOM_CONFIG": "{meetingTitle: 2026-12-01}"}).problem_lines()
    assert lines == [
        "$PROSODY_SIDECAR_DEFAULT_ROOM_CONFIG: default_room_config.meetingTitle: YAML reads 2026-12-01 as a date; "
        'if it is a text, write "2026-12-01"'
    ]


def test_an_empty_variable_counts_as_not_set() -> None:
    environ = {"PROSODY_SIDECAR_LOG__LEVEL": "", "PROSODY_SIDECAR_NO_SUCH": ""}
    assert examine(MINIMAL, "f", environ).usable() == examine(MINIMAL, "f").usable()


def test_null_takes_an_optional_setting_away() -> None:
    assert examine(MINIMAL, "f", {"PROSODY_SIDECAR_STATE_DIR": "null"}).usable().state_dir is None


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("BACKENDS__URL", "backends: there is no such setting; did you mean `backend`?"),
        ("ENDPOINTS__VALIDATE_ACESS__DENY__FRESH", "did you mean `validate-access`?"),
        ("__URL", "there is no such setting"),
        ("", "there is no such setting"),
        ("LOG__LEVEL__X", "log.level is one value; write all of it in $PROSODY_SIDECAR_LOG__LEVEL"),
        ("ROOMS__0__MATCH", "rooms is one value; write all of it in $PROSODY_SIDECAR_ROOMS"),
        # Names of room settings have capitals, which the name of a variable cannot keep.
        ("DEFAULT_ROOM_CONFIG__MEMBERSONLY", "write all of it in $PROSODY_SIDECAR_DEFAULT_ROOM_CONFIG"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_variable(name: str, refused: str) -> None:
    (line,) = examine(MINIMAL, "f", {PREFIX + name: "5"}).problem_lines()
    assert line.startswith(f"${PREFIX}{name}: ")
    assert refused in line


def test_the_variables_of_a_kubernetes_service_are_no_settings() -> None:
    environ = {
        "PROSODY_SIDECAR_SERVICE_HOST": "10.0.0.1",
        "PROSODY_SIDECAR_SERVICE_PORT": "8788",
        "PROSODY_SIDECAR_SERVICE_PORT_HTTP": "8788",
        "PROSODY_SIDECAR_PORT": "tcp://10.0.0.1:8788",
        "PROSODY_SIDECAR_PORT_8788_TCP": "tcp://10.0.0.1:8788",
        "PROSODY_SIDECAR_PORT_8788_TCP_PROTO": "tcp",
        "PROSODY_SIDECAR_PORT_8788_TCP_PORT": "8788",
        "PROSODY_SIDECAR_PORT_8788_TCP_ADDR": "10.0.0.1",
    }
    assert examine(MINIMAL, "f", environ).usable() == examine(MINIMAL, "f").usable()
    assert not has_settings(environ)


def test_a_port_without_its_section_is_refused() -> None:
    (line,) = examine(MINIMAL, "f", {"PROSODY_SIDECAR_PORT": "9000"}).problem_lines()
    assert line.endswith("there is no such setting here; it belongs in `listen` or in `admin` or in `control`")


def test_a_setting_below_a_text_is_refused() -> None:
    lines = examine(
        "backend: https://x.example.com\n", "f", {"PROSODY_SIDECAR_BACKEND__URL": "https://y"}
    ).problem_lines()
    assert "$PROSODY_SIDECAR_BACKEND__URL: backend.url: backend is no section, so it has no such setting" in lines


def test_all_settings_may_come_from_the_environment_without_a_file(tmp_path: Path) -> None:
    environ = {"PROSODY_SIDECAR_BACKEND__URL": "https://api.example.com/hooks"}
    assert examine_file(tmp_path / "none.yaml", environ).usable().backend.url == "https://api.example.com/hooks"


def test_without_a_file_what_the_environment_lacks_is_said(tmp_path: Path) -> None:
    examined = examine_file(tmp_path / "none.yaml", {"PROSODY_SIDECAR_LOG__LEVEL": "loud"})
    assert [line.partition(";")[0] for line in examined.problem_lines()] == [
        "$PROSODY_SIDECAR_LOG__LEVEL: log.level: expected 'debug', 'info', 'warning' or 'error', got the text \"loud\"",
        "environment: backend: is required",
    ]


def test_without_a_file_and_variables_the_file_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        examine_file(tmp_path / "none.yaml", {"PATH": "/bin"})


def test_what_contradicts_is_named_with_its_variable() -> None:
    environ = {"PROSODY_SIDECAR_LISTEN__HOST": "0.0.0.0"}
    lines = examine(MINIMAL, "f", environ).problem_lines()
    assert lines
    assert all(line.startswith("$PROSODY_SIDECAR_LISTEN__HOST: ") for line in lines)
