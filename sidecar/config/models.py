"""What the config file may contain: every section, every setting, its default and its bounds.

config/sidecar.yaml says what each setting means, and why it has this default.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, no value is converted, no value changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


def _prefix(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValueError("must be a path such as /webhooks/jitsi, without a slash at the end")
    return value


def _domain(value: str) -> str:
    if not re.fullmatch(r"[^\s/@:]+", value):
        raise ValueError("must be a domain such as guest.meet.example.com, without user, port or path")
    return value


def _backend_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(map(str.isspace, value)):
        raise ValueError("must be an absolute URL such as https://api.example.com/webhooks/jitsi")
    if parts.username or parts.password:
        raise ValueError("must not contain a user or password; use secret_file for the shared secret")
    try:
        usable = parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must have a port from 1 to 65535, or no port")
    if parts.query or parts.fragment:
        raise ValueError("must not contain a query or fragment; the endpoint's name is appended to the path")
    return value.rstrip("/")


class Listen(Section):
    """Where Prosody connects."""

    host: str = "127.0.0.1"
    port: Port = 8788
    prefix: Annotated[str, AfterValidator(_prefix)] = "/webhooks/jitsi"
    module_timeout: Positive = 5.0
    allow_remote: bool = False
    token_file: Path | None = Field(default=None, strict=False)


class Admin(Section):
    """Where operators and Prometheus connect."""

    host: str = "127.0.0.1"
    port: Port = 8789
    socket: Path | None = Field(default=None, strict=False)
    allow_remote: bool = False
    token_file: Path | None = Field(default=None, strict=False)


class Control(Section):
    """Where the meeting service sends its orders; off without a token."""

    host: str = "127.0.0.1"
    port: Port = 8791
    token_file: Path | None = Field(default=None, strict=False)
    allow_remote: bool = False
    certificate: Path | None = Field(default=None, strict=False)
    key: Path | None = Field(default=None, strict=False)
    ttl: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 300.0


def _engine_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or any(map(str.isspace, value)):
        raise ValueError("must be an URL such as redis://10.0.0.5:6379/0, or rediss:// for TLS")
    if parts.password:
        raise ValueError("must not contain a password; use password_file")
    try:
        usable = parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not re.fullmatch(r"(/[0-9]{0,4})?", parts.path):
        raise ValueError("must have a port from 1 to 65535 or none, then the number of a database or nothing")
    return value


def _namespace(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise ValueError("must have 1 to 64 letters, digits, dots, hyphens or underscores")
    return value


class Shared(Section):
    """The memory that several sidecars share; off without an url."""

    url: Annotated[str, AfterValidator(_engine_url)] | None = None
    key_file: Path | None = Field(default=None, strict=False)
    password_file: Path | None = Field(default=None, strict=False)
    ca_file: Path | None = Field(default=None, strict=False)
    namespace: Annotated[str, AfterValidator(_namespace)] = "prosody-sidecar"
    muc_domains: list[Annotated[str, AfterValidator(_domain)]] = []


class BackendSettings(Section):
    """The meeting service."""

    url: Annotated[str, AfterValidator(_backend_url)]
    secret_file: Path | None = Field(default=None, strict=False)
    secret_env: str | None = None
    signing_key_file: Path | None = Field(default=None, strict=False)
    forward_token: bool = False
    ca_file: Path | None = Field(default=None, strict=False)
    client_certificate: Path | None = Field(default=None, strict=False)
    client_key: Path | None = Field(default=None, strict=False)
    connect_timeout: Positive = 1.0
    max_in_flight: Count = 1000
    cache_control: Literal["honour", "ignore"] = "honour"


class BreakerSettings(Section):
    """When to stop the calls to the backend, and when to try again."""

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
    """Policy of each endpoint."""

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
    """Policy for rooms whose name matches a pattern: `*` any text, `?` one character, all else is literal."""

    match: Annotated[str, Field(min_length=1, max_length=255)]
    room_created: ConfigOverride = Field(default=ConfigOverride(), alias="room-created")
    validate_access: DecisionOverride = Field(default=DecisionOverride(), alias="validate-access")


class Identity(Section):
    """Who counts as a guest."""

    anonymous_domains: list[Annotated[str, AfterValidator(_domain)]] = []


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
    """The events that wait for the backend."""

    max_events: Count = 100_000
    max_age: Positive = 604_800
    max_in_flight: Count = 16
    timeout: Positive = 10.0
    backoff_cap: Positive = 60.0


class Settings(Section):
    """The whole file."""

    listen: Listen = Listen()
    admin: Admin = Admin()
    control: Control = Control()
    shared: Shared = Shared()
    state_dir: Path | None = Field(default=Path("/var/lib/prosody-sidecar"), strict=False)
    backend: BackendSettings
    breaker: BreakerSettings = BreakerSettings()
    endpoints: Endpoints = Endpoints()
    rooms: Annotated[list[RoomRule], Field(max_length=1000)] = []
    default_room_config: dict[str, Any] | None = None
    identity: Identity = Identity()
    cache: CacheSettings = CacheSettings()
    outbox: OutboxSettings = OutboxSettings()
    log: Log = Log()
