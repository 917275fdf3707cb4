"""YAML -> frozen settings. Every problem is reported at once, each with file, line and column.

text --(yaml: nodes with marks)--> plain data + marks --(pydantic)--> Settings | ConfigError
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidecar.errors import ConfigError

Path_ = tuple[str | int, ...]

Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, nothing is converted, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


def _prefix(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValueError("must be a path such as /webhooks/jitsi, without a slash at the end")
    return value


def _backend_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable or any(character.isspace() for character in value):
        raise ValueError("must be an absolute URL such as https://api.example.com/webhooks/jitsi")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password; use secret_file for the shared secret")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or fragment; the endpoint's name is appended to the path")
    return value.rstrip("/")


class Listen(Section):
    """Where Prosody reaches the sidecar."""

    host: str = "127.0.0.1"
    port: Port = 8788
    prefix: Annotated[str, AfterValidator(_prefix)] = "/webhooks/jitsi"


class Admin(Section):
    """Where operators and Prometheus reach it."""

    host: str = "127.0.0.1"
    port: Port = 8789


class BackendSettings(Section):
    """The meeting service."""

    url: Annotated[str, AfterValidator(_backend_url)]
    secret_file: Path | None = Field(default=None, strict=False)
    secret_env: str | None = None
    connect_timeout: Positive = 1.0
    max_in_flight: Count = 64
    cache_control: Literal["honour", "ignore"] = "honour"


class BreakerSettings(Section):
    """When to stop asking, and when to try again."""

    failure_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    minimum_calls: Count = 10
    minimum_rooms: Count = 3
    window: Positive = 10.0
    slow_after: Positive = 2.0
    open_for: Positive = 3.0
    retry_after_cap: Seconds = 30.0


class AllowLifetimes(Section):
    """How long an allow may be used."""

    fresh: Seconds = 15
    stale_while_revalidate: Seconds = 15
    stale_if_error: Seconds = 3600


class DenyLifetimes(Section):
    """How long a deny may be used."""

    fresh: Seconds = 5
    stale_while_revalidate: Seconds = 0
    stale_if_error: Seconds = 3600


class ConfigEndpoint(Section):
    """Policy of `room-created`."""

    deadline: Annotated[float, Field(ge=0.5, le=60)] = 4.0
    fresh: Seconds = 5
    stale_while_revalidate: Seconds = 0
    stale_if_error: Seconds = 86_400
    answer_within: Seconds = 0.5
    on_unavailable: Literal["refuse", "default"] = "refuse"


class DecisionEndpoint(Section):
    """Policy of `validate-access`."""

    deadline: Annotated[float, Field(ge=0.5, le=60)] = 4.0
    answer_within: Seconds = 0.5
    allow: AllowLifetimes = AllowLifetimes()
    deny: DenyLifetimes = DenyLifetimes()
    on_unavailable: Literal["deny", "allow"] = "deny"


class Endpoints(Section):
    """Policy by endpoint."""

    room_created: ConfigEndpoint = Field(default=ConfigEndpoint(), alias="room-created")
    validate_access: DecisionEndpoint = Field(default=DecisionEndpoint(), alias="validate-access")


class LifetimesOverride(Section):
    """Lifetimes that differ for some rooms."""

    fresh: Seconds | None = None
    stale_while_revalidate: Seconds | None = None
    stale_if_error: Seconds | None = None


class ConfigOverride(LifetimesOverride):
    """What differs for `room-created`."""

    answer_within: Seconds | None = None
    on_unavailable: Literal["refuse", "default"] | None = None


class DecisionOverride(Section):
    """What differs for `validate-access`."""

    answer_within: Seconds | None = None
    allow: LifetimesOverride = LifetimesOverride()
    deny: LifetimesOverride = LifetimesOverride()
    on_unavailable: Literal["deny", "allow"] | None = None


class RoomRule(Section):
    """Policy for the rooms whose name fits a pattern: `*` any text, `?` one character, nothing else is special."""

    match: Annotated[str, Field(min_length=1)]
    room_created: ConfigOverride = Field(default=ConfigOverride(), alias="room-created")
    validate_access: DecisionOverride = Field(default=DecisionOverride(), alias="validate-access")


class Identity(Section):
    """Who counts as a guest."""

    anonymous_domains: list[str] = []


class Log(Section):
    """What is written to standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    identities: bool = False


class CacheSettings(Section):
    """The most answers kept in memory."""

    allows: Count = 100_000
    denies: Count = 20_000
    configs: Count = 20_000


class OutboxSettings(Section):
    """The events on their way to the backend."""

    max_events: Count = 100_000
    max_age: Positive = 604_800
    max_in_flight: Count = 16
    timeout: Positive = 10.0
    backoff_cap: Positive = 60.0


class Settings(Section):
    """The whole file."""

    listen: Listen = Listen()
    admin: Admin = Admin()
    state_dir: Path | None = Field(default=Path("/var/lib/prosody-sidecar"), strict=False)
    backend: BackendSettings
    breaker: BreakerSettings = BreakerSettings()
    endpoints: Endpoints = Endpoints()
    rooms: list[RoomRule] = []
    default_room_config: dict[str, Any] | None = None
    identity: Identity = Identity()
    cache: CacheSettings = CacheSettings()
    outbox: OutboxSettings = OutboxSettings()
    log: Log = Log()

    @model_validator(mode="after")
    def _default_config_is_there(self) -> Settings:
        rules = [self.endpoints.room_created.on_unavailable, *(r.room_created.on_unavailable for r in self.rooms)]
        if "default" in rules and self.default_room_config is None:
            raise ValueError("on_unavailable: default needs `default_room_config`")
        return self


def load(file: Path) -> Settings:
    """Read and check a config file; raises ConfigError with every problem, in the order of the file."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{file}: there is no such file; start from config/minimal.yaml"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from None
    return parse(text, str(file))


def parse(text: str, name: str) -> Settings:
    """Check the text of a config; `name` stands for the file in messages."""
    document = _Document(name)
    data = document.read(text)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        for problem in error.errors():
            document.complain(*_in_words(problem))
    if document.problems or settings is None:
        raise ConfigError(document.report())
    return settings


class _Document:
    """Plain data out of YAML nodes, remembering where each value stood."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.marks: dict[Path_, tuple[int, int]] = {(): (1, 1)}
        self.problems: list[tuple[tuple[int, int], str]] = []
        self._loader = yaml.SafeLoader("")
        self._nodes = 0

    def read(self, text: str) -> Any:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            return {} if root is None else self._plain(root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self.problems = [(place, f"not YAML: {error.problem or error.context}")]
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems = [((1, 1), f"not usable YAML: {' '.join(str(error).split())}")]
        raise ConfigError(self.report())

    def _plain(self, node: yaml.Node, path: Path_) -> Any:
        self._nodes += 1
        if self._nodes > 100_000:
            raise ValueError("over 100,000 values; are there anchors that multiply?")
        self.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self.problems.append((place, f"{_dotted(path) or 'the file'}: a key must be a plain word"))
                continue
            if key in result:
                first = self.marks[*path, key][0]
                self.problems.append((place, f"{_dotted((*path, key))}: is there twice, first in line {first}"))
                continue
            self.marks[*path, key] = place
            result[key] = self._plain(value_node, (*path, key))
        return result

    def complain(self, path: Path_, message: str) -> None:
        place = next(self.marks[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.marks)
        self.problems.append((place, f"{_dotted(path)}: {message}" if path else message))

    def report(self) -> list[str]:
        return [f"{self.name}:{line}:{column}: {text}" for (line, column), text in sorted(self.problems)]


def _dotted(path: Path_) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _in_words(problem: Mapping[str, Any]) -> tuple[Path_, str]:
    """The place and a sentence for one of pydantic's findings."""
    path: Path_ = tuple(problem["loc"])
    given = problem.get("input")
    context = problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return path, f"is required{_EXAMPLES.get(path, '')}"
        case "extra_forbidden":
            return path, f"there is no such setting{_nearest(path)}"
        case "float_type" | "int_type":
            what = "a number of seconds, such as 5 or 0.5" if problem["type"] == "float_type" else "a whole number"
            return path, f"expected {what}, got {_given(given)}"
        case "string_type":
            return path, f"expected text, got {_given(given)}; put it in quotes"
        case "bool_type":
            return path, f"expected true or false, got {_given(given)}"
        case "literal_error":
            return path, f"expected {context['expected']}, got {_given(given)}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return path, f"expected a section with settings, got {_given(given)}"
        case "list_type":
            return path, f"expected a list, got {_given(given)}"
        case "value_error":
            return path, str(context["error"])
        case "path_type":
            return path, f"expected a path, got {_given(given)}"
        case _:
            return path, f"{problem['msg'][0].lower()}{problem['msg'][1:]}, got {_given(given)}"


_EXAMPLES: dict[Path_, str] = {
    ("backend",): "; it needs at least `url: https://api.example.com/webhooks/jitsi`",
    ("backend", "url"): ", such as https://api.example.com/webhooks/jitsi",
}


def _given(value: object) -> str:
    """What stands in the file, capped: a value in the wrong place may be a secret, so texts are not repeated."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the YAML boolean {str(value).lower()}"
        case int() | float():
            return str(value)
        case str() if len(value) <= 12:
            return f"the text {json.dumps(value)}"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a section"
        case _:
            return f"a {type(value).__name__}"


def _nearest(path: Path_) -> str:
    """What was probably meant."""
    section: Any = Settings
    for part in path[:-1]:
        section = _child(section, part)
    if not (isinstance(section, type) and issubclass(section, Section)):
        return ""
    names = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(path[-1]), names, 1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(names)}"


def _child(section: Any, part: str | int) -> Any:
    if isinstance(part, int) or not (isinstance(section, type) and issubclass(section, Section)):
        return section
    for name, field in section.model_fields.items():
        if part in (name, field.alias):
            inner = [arg for arg in get_args(field.annotation) if isinstance(arg, type) and issubclass(arg, Section)]
            return inner[0] if inner else field.annotation
    return None
