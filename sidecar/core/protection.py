"""The settings that protect a room, and what can be read of them.

A config in which one of them cannot be read is no answer: without the setting, the room would be less protected than
its owner wants. The module in Prosody reads them in the same way (lua/muc_webhook/setting_types.lib.lua).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_NUMERAL = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


def _is_password(value: Any) -> bool:
    """Text, or a number that has the same digits in every program."""
    return isinstance(value, str) or (_is_number(value) and 0 <= value < 2**53 and value == int(value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (_is_number(value) and value in (0, 1)) or value in ("true", "false")


def _is_limit(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMERAL.fullmatch(value) is not None
    return _is_duration(value) and value == int(value)


def _is_duration(value: Any) -> bool:
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None
    return _is_number(value) and 0 <= value < float("inf")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


PROTECTIVE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "password": (_is_password, "text"),
    "membersOnly": (_is_flag, "true or false"),
    "isPublic": (_is_flag, "true or false"),
    "lobbyEnabled": (_is_flag, "true or false"),
    "maxParticipants": (_is_limit, "a whole number"),
    "moderated": (_is_flag, "true or false"),
    "hidden": (_is_flag, "true or false"),
    "maxDurationMinutes": (_is_duration, "a number"),
}
"""For each setting: whether a value of it can be read, and what it has to be."""


def unreadable(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the protective settings, a text for each; null and empty text are as good as absent."""
    return [
        f"{name} must be {expected}"
        for name, (is_readable, expected) in PROTECTIVE.items()
        if (value := config.get(name)) is not None and value != "" and not is_readable(value)
    ]
