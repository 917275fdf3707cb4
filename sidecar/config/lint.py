"""What is wrong or not advisable when settings are valid alone but not together. Pure: settings in, sentences out.

contradictions: the settings cannot work together; the file is refused.
warnings:       the file is used, but the operator should know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.config.models import (
    Admin,
    AllowLifetimes,
    ConfigEndpoint,
    Control,
    DecisionEndpoint,
    DenyLifetimes,
    LifetimesOverride,
    Listen,
    RoomRule,
    Settings,
)
from sidecar.config.room_names import why_no_name_fits
from sidecar.core.addresses import is_loopback
from sidecar.core.concurrency import START
from sidecar.core.protection import unreadable

Where = tuple[str | int, ...]

LONG_ALLOW = 86_400.0
"""Seconds. A longer use of an allow that the backend cannot confirm gets a warning."""

LONG_FRESH = 300.0
"""Seconds. A longer use of an allow after a meeting is cancelled gets a warning."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One sentence about one setting. If the file does not have it, `or_else` are other settings it is about."""

    where: Where
    text: str
    or_else: tuple[Where, ...] = ()


def contradictions(settings: Settings) -> Iterator[Advice]:
    """Why these settings cannot be used together."""
    listen, admin = settings.listen, settings.admin
    if listen.port and (listen.host, listen.port) == (admin.host, admin.port):
        yield Advice(
            ("admin", "port"), f"is the same port as in `listen` ({admin.port}); choose another port", (("listen",),)
        )
    yield from _control(settings)
    backend = urlsplit(settings.backend.url)
    port = backend.port or (443 if backend.scheme == "https" else 80)
    if port == listen.port and (
        backend.hostname == listen.host or (is_loopback(backend.hostname) and is_loopback(listen.host))
    ):
        yield Advice(
            ("backend", "url"),
            "is the address of the sidecar itself (see listen.port); write the address of the meeting service",
        )
    yield from _remote("listen", listen)
    yield from _remote("admin", admin)
    certificate, key = settings.backend.client_certificate, settings.backend.client_key
    if (certificate is None) != (key is None):
        stated, lacking = (
            ("client_key", "client_certificate") if certificate is None else ("client_certificate", "client_key")
        )
        yield Advice(("backend", stated), f"also needs backend.{lacking}; add it")
    if backend.scheme == "http" and (certificate or settings.backend.ca_file):
        name = "ca_file" if settings.backend.ca_file else "client_certificate"
        yield Advice(("backend", name), "has no effect with http://; write https:// in backend.url")
    if settings.shared.ca_file and settings.shared.url and urlsplit(settings.shared.url).scheme == "redis":
        yield Advice(("shared", "ca_file"), "has no effect with redis://; write rediss:// in shared.url")
    for name in ("room_created", "validate_access"):
        yield from _times(settings, name)
    yield from _default_config(settings)


def _control(settings: Settings) -> Iterator[Advice]:
    control = settings.control
    for name, other in (("listen", settings.listen), ("admin", settings.admin)):
        if control.token_file and control.port and (control.host, control.port) == (other.host, other.port):
            text = f"is the same port as in `{name}` ({control.port}); choose another port"
            yield Advice(("control", "port"), text, ((name, "port"),))
    yield from _remote("control", control)
    if (control.certificate is None) != (control.key is None):
        stated, lacking = ("key", "certificate") if control.certificate is None else ("certificate", "key")
        yield Advice(("control", stated), f"also needs control.{lacking}; add it")


def _remote(name: str, settings: Listen | Admin | Control) -> Iterator[Advice]:
    if not is_loopback(settings.host) and not (settings.allow_remote and settings.token_file):
        text = (
            f"{settings.host} can be reached from other machines; use 127.0.0.1, or allow it with "
            f"{name}.allow_remote: true and {name}.token_file"
        )
        yield Advice((name, "host"), text)


def _times(settings: Settings, name: str) -> Iterator[Advice]:
    endpoint: ConfigEndpoint | DecisionEndpoint = getattr(settings.endpoints, name)
    alias = name.replace("_", "-")
    place: Where = ("endpoints", alias)
    module = settings.listen.module_timeout
    if endpoint.deadline >= module:
        text = (
            f"{endpoint.deadline:g} s is not below the Prosody module's time-out of {module:g} s: the module would "
            f"stop waiting first; lower it, or raise muc_webhook_timeout in Prosody and listen.module_timeout here"
        )
        yield Advice((*place, "deadline"), text, (("listen", "module_timeout"),))
    stated = [((*place, "answer_within"), endpoint.answer_within)]
    for index, rule in enumerate(settings.rooms):
        own = getattr(rule, name).answer_within
        if own is not None:
            stated.append((("rooms", index, alias, "answer_within"), own))
    for where, seconds in stated:
        if seconds > endpoint.deadline:
            text = f"{seconds:g} s is above the deadline of {endpoint.deadline:g} s; use at most that"
            yield Advice(where, text, ((*place, "deadline"),))


def _default_config(settings: Settings) -> Iterator[Advice]:
    users: list[Where] = []
    if settings.endpoints.room_created.on_unavailable == "default":
        users.append(("endpoints", "room-created", "on_unavailable"))
    for index, rule in enumerate(settings.rooms):
        if rule.room_created.on_unavailable == "default":
            users.append(("rooms", index, "room-created", "on_unavailable"))
    if settings.default_room_config is None:
        for where in users:
            yield Advice(where, "`default` needs `default_room_config`; add it, or use `refuse`")
    for text in unreadable(settings.default_room_config or {}):
        name, _, problem = text.partition(" ")
        yield Advice(("default_room_config", name), problem)


def warnings(settings: Settings) -> Iterator[Advice]:
    """What can be used, but may not be intended."""
    yield from _backend(settings)
    yield from _exposure(settings)
    yield from _lifetimes(settings)
    yield from _breaker(settings)
    yield from _rooms(settings)
    if settings.state_dir is None:
        yield Advice(
            ("state_dir",),
            "null: a restart loses all cached answers and all events that wait; name a folder to keep them",
        )
    if settings.log.identities:
        yield Advice(("log", "identities"), "true: the log shows who joined which meeting; check who may read it")


def _backend(settings: Settings) -> Iterator[Advice]:
    backend = settings.backend
    url = urlsplit(backend.url)
    if url.scheme == "http" and not is_loopback(url.hostname):
        text = "plain http to another machine: secret, tokens and names of users can be read on the network; use https"
        yield Advice(("backend", "url"), text)
    if backend.secret_file is None and backend.secret_env is None:
        text = "no secret: without a systemd credential, any client can ask the backend the same; set secret_file"
        yield Advice(("backend",), text)
    if backend.secret_file is not None and backend.secret_env is not None:
        yield Advice(("backend", "secret_env"), "is not used, because secret_file is set; remove one of them")
    if backend.secret_file is not None and not backend.secret_file.is_absolute():
        yield Advice(
            ("backend", "secret_file"), "is relative to the folder where the sidecar is started; write an absolute path"
        )
    if backend.max_in_flight < START:
        text = (
            f"{backend.max_in_flight} is the ceiling of a limit that follows the backend and begins at {START}: with "
            "so few calls, users wait or are refused when many join at once; remove it, if the backend can do more"
        )
        yield Advice(("backend", "max_in_flight"), text)
    if backend.cache_control == "ignore":
        text = "ignore: answers are cached even if the backend says that they must not be"
        yield Advice(("backend", "cache_control"), text)
    for name in ("room_created", "validate_access"):
        deadline = getattr(settings.endpoints, name).deadline
        if backend.connect_timeout >= deadline:
            alias = name.replace("_", "-")
            text = f"{backend.connect_timeout:g} s is not below the deadline of {alias} ({deadline:g} s); lower it"
            yield Advice(("backend", "connect_timeout"), text, (("endpoints", alias, "deadline"),))


def _exposure(settings: Settings) -> Iterator[Advice]:
    for name, host in (("listen", settings.listen.host), ("admin", settings.admin.host)):
        if not is_loopback(host):
            text = (
                f"{host} can be reached from other machines over plain http: token and names can be read on the network"
            )
            yield Advice((name, "host"), text)

    control = settings.control
    if not is_loopback(control.host) and control.certificate is None:
        text = f"{control.host} can be reached from other machines over plain http: orders and keys can be read there"
        yield Advice(("control", "host"), f"{text}; set control.certificate and control.key")
    if control.token_file is None and control != Control():
        text = "is off, because it has no token_file; set it, unless systemd passes a credential control-token"
        yield Advice(("control",), text)


def _lifetimes(settings: Settings) -> Iterator[Advice]:
    decision = settings.endpoints.validate_access
    place: Where = ("endpoints", "validate-access")
    if decision.on_unavailable == "allow":
        yield Advice((*place, "on_unavailable"), _LETS_IN)
    if decision.allow.fresh > LONG_FRESH:
        text = f"for {decision.allow.fresh:g} s, users with a cached allow can still join a cancelled meeting"
        yield Advice((*place, "allow", "fresh"), text)
    if decision.allow.stale_if_error > LONG_ALLOW:
        text = f"while the backend is down, an allow is used for {decision.allow.stale_if_error / 3600:g} hours"
        yield Advice((*place, "allow", "stale_if_error"), text)
    groups: list[tuple[Where, AllowLifetimes | DenyLifetimes | ConfigEndpoint]] = [
        (("endpoints", "room-created"), settings.endpoints.room_created),
        ((*place, "allow"), decision.allow),
        ((*place, "deny"), decision.deny),
    ]
    for group, times in groups:
        if 0 < times.stale_if_error < times.fresh:
            text = (
                f"{times.stale_if_error:g} s is shorter than fresh ({times.fresh:g} s); it counts from the end of "
                "fresh, not from the answer; check that this is intended"
            )
            yield Advice((*group, "stale_if_error"), text, ((*group, "fresh"),))
        if times.stale_while_revalidate > times.stale_if_error:
            text = (
                f"{times.stale_while_revalidate:g} s is longer than stale_if_error ({times.stale_if_error:g} s): the "
                "cached answer would be used longer while the backend works than while it is down"
            )
            yield Advice((*group, "stale_while_revalidate"), text, ((*group, "stale_if_error"),))


_LETS_IN = "allow: while the backend is down, strangers can join if nothing is cached for them"


def _breaker(settings: Settings) -> Iterator[Advice]:
    breaker = settings.breaker
    if breaker.minimum_rooms > breaker.minimum_calls:
        text = (
            f"{breaker.minimum_rooms} is above minimum_calls ({breaker.minimum_calls}): so few calls cannot "
            "come from so many rooms, and an outage is noticed later; lower it"
        )
        yield Advice(("breaker", "minimum_rooms"), text, (("breaker", "minimum_calls"),))
    longest = max(settings.endpoints.room_created.deadline, settings.endpoints.validate_access.deadline)
    if breaker.slow_after >= longest:
        text = f"{breaker.slow_after:g} s is not below any deadline: it has no effect; lower it"
        yield Advice(("breaker", "slow_after"), text)


def _rooms(settings: Settings) -> Iterator[Advice]:
    seen: dict[str, int] = {}
    for index, rule in enumerate(settings.rooms):
        where: Where = ("rooms", index)
        hidden_by = next((first for first in seen if first in (rule.match, "*")), None)
        if hidden_by is not None:
            text = f"is never used: the earlier pattern {hidden_by!r} matches the same rooms; put this one first"
            yield Advice((*where, "match"), text)
        seen.setdefault(rule.match, index)
        misfit = why_no_name_fits(rule.match)
        if misfit is not None:
            yield Advice((*where, "match"), f"no room of Jitsi has such a name: {misfit}")
        if not _changes_anything(rule):
            yield Advice(where, "changes nothing; add the settings that are different for these rooms")
        if rule.validate_access.on_unavailable == "allow":
            yield Advice((*where, "validate-access", "on_unavailable"), _LETS_IN)
    policies = {settings.endpoints.room_created.on_unavailable}
    policies.update(rule.room_created.on_unavailable or "refuse" for rule in settings.rooms)
    if settings.default_room_config is not None and "default" not in policies:
        text = "is not used: no endpoint or room has `on_unavailable: default`; add that, or remove this"
        yield Advice(("default_room_config",), text)


def _changes_anything(rule: RoomRule) -> bool:
    empty = LifetimesOverride()
    decision = rule.validate_access
    plain = (decision.answer_within, decision.on_unavailable)
    return (
        any(value is not None for value in plain)
        or decision.allow != empty
        or decision.deny != empty
        or any(value is not None for value in rule.room_created.model_dump().values())
    )
