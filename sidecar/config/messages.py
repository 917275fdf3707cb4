"""A finding of the validator -> a sentence: what is wrong, what was expected, and what was probably meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from sidecar.config.models import Section, Settings

Where = tuple[str | int, ...]

_EXAMPLES: dict[Where, str] = {
    ("backend",): "; it needs at least `url: https://api.example.com/webhooks/jitsi`",
    ("backend", "url"): ", such as https://api.example.com/webhooks/jitsi",
}

_OTHER_WORDS = {
    "address": "host",
    "bind": "host",
    "ca": "ca_file",
    "cert": "client_certificate",
    "key": "client_key",
    "pattern": "match",
    "secret": "secret_file",
    "token": "token_file",
    "timeout": "deadline",
    "ttl": "fresh",
}
"""The name in other programs -> the name here, if the section has it."""

_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}

_UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def in_words(problem: Mapping[str, Any]) -> tuple[Where, str]:  # noqa: PLR0912 - a table, written as one match
    """The place and a sentence for one of pydantic's findings."""
    path: Where = tuple(problem["loc"])
    given = problem.get("input")
    context = problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return path, f"is required{_EXAMPLES.get(path, '')}"
        case "extra_forbidden":
            return path, f"there is no such setting{_nearest(path)}"
        case "float_type":
            return path, f"expected a number{_of_what(path)}, got {_given(given)}{_without_unit(given)}"
        case "int_type":
            return path, f"expected a whole number, got {_given(given)}"
        case "string_type":
            return path, f"expected text, got {_given(given)}; put it in quotes"
        case "bool_type":
            return path, f"expected true or false, got {_given(given)}"
        case "literal_error":
            return path, f"expected {context['expected']}, got {_given(given)}{_nearest_word(given, context)}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return path, f"expected a section with settings, got {_given(given)}{_without_space(given)}"
        case "list_type":
            return path, f"expected a list, got {_given(given)}{_as_list(given)}"
        case "value_error":
            return path, str(context["error"])
        case "path_type":
            return path, f"expected a path, got {_given(given)}"
        case "finite_number":
            return path, f"expected a finite number, got {_given(given)}"
        case "string_too_short":
            return path, "must not be empty"
        case "string_too_long":
            return path, f"must be at most {context['max_length']} characters long, got {len(str(given))}"
        case "too_long":
            return path, f"must have at most {context['max_length']} entries, got {context['actual_length']}"
        case kind if kind in _LIMITS:
            name, words = _LIMITS[kind]
            return (
                path,
                f"must be {words} {context[name]:g}, got {_given(given)}{_in_seconds(path, given, kind)}",
            )
        case _:
            return path, f"{problem['msg'][0].lower()}{problem['msg'][1:]}, got {_given(given)}"


def _given(value: object) -> str:
    """The value in the file. A long text is not repeated: a value in the wrong place may be a secret."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the YAML boolean {str(value).lower()}"
        case int() | float():
            return str(value)
        case str() if len(value) <= 12:
            return f"the text {json.dumps(value, ensure_ascii=False)}"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a section"
        case _:
            return f"a {type(value).__name__}"


def _of_what(path: Where) -> str:
    return ", such as 0.5" if path[-1] == "failure_ratio" else " of seconds, such as 5 or 0.5"


def _without_unit(value: object) -> str:
    """`15 min` -> the number to write instead."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value) if isinstance(value, str) else None
    if found is None or found[2] not in ("", *_UNITS):
        return ""
    return f"; write {float(found[1]) * _UNITS.get(found[2], 1):g}"


def _in_seconds(path: Where, value: object, kind: str) -> str:
    """A number that is much too large was probably meant in milliseconds."""
    if kind == "less_than_equal" and path[-1] == "deadline" and isinstance(value, int | float) and value >= 500:
        return f"; it is in seconds, so for {value:g} ms write {value / 1000:g}"
    return ""


def _nearest_word(value: object, context: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return "; YAML reads yes, no, on and off as booleans"
    words = re.findall(r"'([^']*)'", str(context["expected"]))
    close = difflib.get_close_matches(str(value).lower(), words, 1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _without_space(value: object) -> str:
    """YAML reads `url:https://…` as a text, not as a setting."""
    return "; put a space after the colon" if isinstance(value, str) and re.match(r"\w+:(?!//)\S", value) else ""


def _as_list(value: object) -> str:
    return f"; write [{value}]" if isinstance(value, str) and len(value) <= 60 else ""


def _nearest(path: Where) -> str:
    """The setting that was probably meant."""
    section: Any = Settings
    for part in path[:-1]:
        section = _child(section, part)
    if not (isinstance(section, type) and issubclass(section, Section)):
        return ""
    names = [field.alias or name for name, field in section.model_fields.items()]
    word = str(path[-1])
    other = _OTHER_WORDS.get(word.lower())
    elsewhere = [home for home, name in _everywhere(Settings) if name == word]
    if elsewhere:
        return f" here; it belongs {f'in `{elsewhere[0]}`' if elsewhere[0] else 'at the top level'}"
    close = [other] if other in names else difflib.get_close_matches(word.lower().replace("_", "-"), names, 1)
    close = close or difflib.get_close_matches(word.lower().replace("-", "_"), names, 1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; the settings here are {', '.join(names)}"


def _everywhere(section: type[Section], home: str = "") -> Iterator[tuple[str, str]]:
    """Every setting, with the dotted name of its section."""
    for name, field in section.model_fields.items():
        shown = field.alias or name
        yield home, shown
        inner = _child(section, name)
        if isinstance(inner, type) and issubclass(inner, Section) and shown != "rooms":
            yield from _everywhere(inner, f"{home}.{shown}" if home else shown)


def _child(section: Any, part: str | int) -> Any:
    if isinstance(part, int) or not (isinstance(section, type) and issubclass(section, Section)):
        return section
    for name, field in section.model_fields.items():
        if part in (name, field.alias):
            candidates = (field.annotation, *get_args(field.annotation))
            inner = [arg for arg in candidates if isinstance(arg, type) and issubclass(arg, Section)]
            return inner[0] if inner else field.annotation
    return None
