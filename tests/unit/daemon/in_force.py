"""What is in force in a sidecar: every value that can be reached, and its effect."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import FunctionType
from typing import Any

from pydantic import BaseModel

from sidecar.core.model import Endpoint
from sidecar.daemon.build import Parts

LEARNED = ("_proven", "_full_since")
"""What the limit has learned from the calls: it is no setting, and a lower ceiling that was there for a moment has cut
it. The limit finds it again."""


def state_of(thing: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Everything that can be reached, by its path; the observers, which are to say what happened, are left out."""
    seen = set() if seen is None else seen
    if isinstance(thing, str | bytes | int | float | Enum | BaseModel | type(None)):
        yield path, thing
    elif id(thing) in seen:
        return
    else:
        seen.add(id(thing))
        if isinstance(thing, dict):
            inner = [(f"[{key!r}]", value) for key, value in thing.items()]
        elif isinstance(thing, list | tuple | set | frozenset):
            inner = [(f"[{index}]", value) for index, value in enumerate(thing)]
        elif type(thing).__module__.startswith("sidecar.") and not isinstance(thing, type):
            names = {
                *getattr(thing, "__dict__", ()),
                *(n for c in type(thing).__mro__ for n in getattr(c, "__slots__", ())),
            }
            known = [name for name in sorted(names) if hasattr(thing, name) and name not in LEARNED]
            inner = [(f".{name}", getattr(thing, name)) for name in known]
        else:
            if isinstance(thing, FunctionType):
                yield path, thing
            return
        for name, value in inner:
            if not type(value).__module__.startswith("sidecar.telemetry"):
                yield from state_of(value, path + name, seen)


def in_words(parts: Parts) -> dict[str, Any]:
    """What is in force, by its effect; two sidecars with the same settings are equal."""
    return {
        "settings": parts.current.settings,
        "admin": parts.current.admin_tokens,
        "target": parts.backend.target,
        "webhooks": parts.questions.settings,
        "policies": [
            parts.resolver.policy_for(each, "Lecture-1") for each in (Endpoint.VALIDATE_ACCESS, Endpoint.ROOM_CREATED)
        ],
        "breakers": [guard.breaker.rules for guard in parts.guards.values()],
        "log": log_style(parts),
    }


def log_style(parts: Parts) -> tuple[bool, bool]:
    return parts.log._plain, parts.log._writes_info
