"""Reads the config again: all of it, or, if anything is wrong with it, nothing.

read settings and secrets, make what follows from them   (may fail: then that is said, and the old ones stay)
put each in its place                                    (cannot fail)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sidecar.config.lint import warnings
from sidecar.config.loader import dotted, load
from sidecar.config.policies import policies_from
from sidecar.daemon.build import Parts, breaker_rules, webhook_settings
from sidecar.daemon.current import Current, read_secrets
from sidecar.errors import SidecarError
from sidecar.facts import Emit, Notice, Reloaded

RESTART_ONLY = ("listen", "admin", "state_dir", "cache", "outbox")
"""Sections that a reload leaves as they were; `backend.max_in_flight` and `breaker` change at once."""


def reload(parts: Parts, environ: Mapping[str, str]) -> None:
    """Take over what the config file says now; nothing is raised for one that cannot be used."""
    current = parts.current
    if current.source is None:
        return
    try:
        settings = load(current.source)
        secrets = read_secrets(settings, environ)
    except SidecarError as error:
        parts.emit(Reloaded(problems=tuple(str(error).splitlines())))
        return
    old, policy_for = current.settings, policies_from(settings)
    webhooks = replace(webhook_settings(settings, secrets), prefix=parts.webhooks.settings.prefix)  # as it listens
    breaker = breaker_rules(settings)
    restart_only = tuple(name for name in RESTART_ONLY if getattr(old, name) != getattr(settings, name))
    # From here on nothing can fail, and nothing is awaited: everything is as it was, or as the file says.
    target_changed = secrets.target != parts.backend.target
    current.settings, current.admin_token = settings, secrets.admin_token
    current.read_at = parts.clock.wall()
    parts.backend.target = secrets.target
    parts.resolver.policy_for = policy_for
    parts.webhooks.settings = webhooks
    parts.log.configure(settings.log.level, settings.log.format)
    parts.bulkhead.configure(settings.backend.max_in_flight)
    for guard in parts.guards.values():
        guard.configure(breaker)
        if target_changed:
            guard.try_now()
    parts.emit(Reloaded(restart_only=restart_only))
    say_what_is_unwise(current, parts.emit)


def say_what_is_unwise(current: Current, emit: Emit) -> None:
    """A warning for each setting of the file that can be used but should not be so; none for built-in settings."""
    for advice in warnings(current.settings) if current.source is not None else ():
        emit(Notice(f"config: {dotted(advice.where)}: {advice.text}", "warning"))
