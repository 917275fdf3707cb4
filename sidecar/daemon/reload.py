"""Reads the config again: all of it, or, if anything goes wrong, nothing.

in a thread: read the file, secrets and certificates; work out all that follows   (may fail: nothing has been changed)
in the event loop: put each value in its place                         (should not fail; if it does, all is put back)
say what happened, and try an open breaker if the backend is another

To read a long file takes tenths of a second, in which no join may wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from sidecar.backend.client import Target
from sidecar.config.credentials import newer_than_credentials, restart_for
from sidecar.config.models import Settings
from sidecar.config.named_files import examine_with_files
from sidecar.config.policies import policies_from
from sidecar.core.breaker import BreakerRules
from sidecar.core.policy import PolicyFor
from sidecar.daemon.build import Parts, breaker_rules, webhook_settings
from sidecar.daemon.current import Secrets, read_secrets
from sidecar.errors import SidecarError, StartError
from sidecar.facts import Crashed, Notice, Reloaded
from sidecar.web.keys import ControlKey
from sidecar.web.questions import WebhookSettings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _InForce:
    """Everything that a reload changes."""

    settings: Settings
    admin_tokens: tuple[str, ...]
    read_at: float
    target: Target
    policy_for: PolicyFor
    webhooks: WebhookSettings
    breaker: BreakerRules
    control_keys: tuple[ControlKey, ...]
    secret_advice: str


class InThread(Protocol):
    """Runs a function while the event loop goes on; `asyncio.to_thread` is one."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns, or raises."""
        ...


async def reload(parts: Parts, environ: Mapping[str, str], in_thread: InThread = asyncio.to_thread) -> None:
    """Use what the config file says now. If that is not possible, say why, and change nothing."""
    source = parts.current.source
    if source is None:
        return
    try:
        new, advice, unread = await in_thread(_worked_out, parts, source, environ)
        before = _in_force(parts)
        _take_over(parts, new, before)
    except SidecarError as error:
        _refuse(parts, str(error).splitlines())
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the old settings stay and the daemon goes on
        parts.emit(Crashed("reload", error))
        _refuse(parts, [f"{source}: a defect of the sidecar ({type(error).__name__}) prevents the reload; see its log"])
        return
    parts.emit(Reloaded(restart_only=(*parts.current.needs_restart(), *unread)))
    say_what_is_unwise(parts, advice)
    for sentence in parts.links.impatient():
        parts.emit(Notice(sentence, "warning"))
    if new.target != before.target:
        for guard in parts.guards.values():
            guard.try_now()


def say_what_is_unwise(parts: Parts, advice: list[str]) -> None:
    """A warning for each setting of the file that can be used but should not be so: the lines of `check`."""
    for line in advice:
        parts.emit(Notice(f"config: {line}", "warning"))


def _refuse(parts: Parts, problems: list[str]) -> None:
    parts.emit(Reloaded(tuple(problems), parts.current.needs_restart()))


def _in_force(parts: Parts) -> _InForce:
    current = parts.current
    return _InForce(
        current.settings,
        current.admin_tokens,
        current.read_at,
        parts.backend.target,
        parts.resolver.policy_for,
        parts.questions.settings,
        breaker_rules(current.settings),
        current.control_keys,
        parts.health.secret_advice,
    )


def _worked_out(parts: Parts, source: Path, environ: Mapping[str, str]) -> tuple[_InForce, list[str], list[str]]:
    """What the file says now, the warnings about it, and the secrets that only a restart reads. Changes nothing: it
    runs beside the event loop. Raises anything."""
    examined = examine_with_files(source, environ)
    settings = examined.usable()
    secrets = read_secrets(settings, environ)
    _check_tokens(parts.current.started_with, secrets, source)
    webhooks = replace(webhook_settings(settings, secrets), prefix=parts.questions.settings.prefix)  # as it listens
    new = _InForce(
        settings,
        secrets.admin_tokens,
        parts.clock.wall(),
        secrets.target,
        policies_from(settings),
        webhooks,
        breaker_rules(settings),
        secrets.control_keys,
        secrets.secret_advice,
    )
    files = newer_than_credentials(environ)
    unread = (*(file.name for file in files), *parts.current.changed_secrets(settings, secrets))
    return new, [*examined.warning_lines(), *map(restart_for, files)], list(unread)


def _check_tokens(started_with: Settings, secrets: Secrets, source: Path) -> None:
    """A listener that other machines can reach is not left without a token: it stays open to them until a restart."""
    listeners = (
        ("listen", started_with.listen, secrets.listen_tokens),
        ("admin", started_with.admin, secrets.admin_tokens),
    )
    for section, listener, tokens in listeners:
        if listener.allow_remote and not tokens:
            text = "other machines can connect until a restart, and need a token until then; restart instead"
            raise StartError(f"{source}: {section}.token_file: {text}")


def _take_over(parts: Parts, new: _InForce, before: _InForce) -> None:
    """Nothing is awaited here: a request sees all of the old values or all of the new ones."""
    try:
        for step in _steps(parts, new):
            step()
    except BaseException:
        for step in _steps(parts, before):
            with suppress(Exception):  # the next ones are put back too
                step()
        raise


def _steps(parts: Parts, it: _InForce) -> Iterator[Callable[[], None]]:
    """First the calls, which a defect could let fail, then the plain assignments."""
    yield partial(parts.log.configure, it.settings.log.level, it.settings.log.format)
    for guard in parts.guards.values():
        yield partial(guard.configure, it.breaker)
    yield partial(parts.bulkhead.configure, it.settings.backend.max_in_flight)
    yield partial(_assign, parts, it)


def _assign(parts: Parts, it: _InForce) -> None:
    current = parts.current
    current.settings, current.admin_tokens, current.read_at = it.settings, it.admin_tokens, it.read_at
    current.control_keys = it.control_keys
    parts.health.secret_advice = it.secret_advice
    parts.backend.target = it.target
    parts.resolver.policy_for = it.policy_for
    parts.questions.settings = it.webhooks
