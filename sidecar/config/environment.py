"""Settings from the environment: `PROSODY_SIDECAR_BACKEND__URL` is `backend.url`, and replaces what the file says.

environment --(names -> paths, texts -> values)--> data with these settings + the variable of each + problems

Two underscores part the levels. The value of a text setting is taken as it is. Every other value is YAML, and is read
by the rules of the file: `PROSODY_SIDECAR_ROOMS='[{match: "vip-*"}]'`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sidecar.config.models import Section, Settings
from sidecar.config.plain_yaml import FILE_LIMIT, NotPlain, read

Where = tuple[str | int, ...]

PREFIX = "PROSODY_SIDECAR_"

_KUBERNETES = re.compile(
    r"SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*", re.S
)
"""Kubernetes sets these variables in each container that runs beside a service with the name prosody-sidecar."""


@dataclass(slots=True)
class FromEnvironment:
    """What the environment says."""

    variables: dict[Where, str] = field(default_factory=dict)
    """The variable of each setting."""
    problems: list[tuple[str, Where, str]] = field(default_factory=list)
    """Variable, setting, and what is wrong with the value."""


def has_settings(environ: Mapping[str, str]) -> bool:
    """Whether the environment has any setting."""
    return bool(_variables(environ))


def overlay(data: dict[str, Any], environ: Mapping[str, str]) -> FromEnvironment:
    """Put the settings of the environment into `data`. An empty variable counts as not set."""
    found = FromEnvironment()
    for variable in _variables(environ):
        path, kind, below = _setting(variable.removeprefix(PREFIX))
        home = _section(data, path[:-1])
        if home is None:
            above = ".".join(path[:-1])
            found.problems.append((variable, path, f"{above} is no section, so it has no such setting"))
        elif below:
            whole = variable[: -len("__".join(("", *below)))]
            problem = f"{'.'.join(path)} is one value; write all of it in ${whole}"
            found.problems.append((variable, (*path, *below), problem))
        else:
            home[path[-1]] = None if kind is None else _value(found, variable, path, environ[variable], kind)
            found.variables[path] = variable
    return found


def _variables(environ: Mapping[str, str]) -> list[str]:
    return sorted(
        variable
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and text and not _KUBERNETES.fullmatch(f"{variable.removeprefix(PREFIX)}={text}")
    )


def _setting(name: str) -> tuple[tuple[str, ...], Any, list[str]]:
    """The setting that a variable names, its type, and what the name has below it.

    The path ends with the first name that is unknown, and the type is then None: it is refused as in the file.
    """
    path: list[str] = []
    kind: Any = Settings
    parts = name.lower().split("__")
    for n, part in enumerate(parts):
        if not _is_section(kind):
            return tuple(path), kind, parts[n:]
        kinds = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        path.append(next((known for known in kinds if known.replace("-", "_") == part), part))
        if path[-1] not in kinds:
            return tuple(path), None, []
        kind = kinds[path[-1]]
    return tuple(path), kind, []


def _section(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    for part in path:
        inner = data.get(part)
        if inner is None:
            inner = data[part] = {}
        if not isinstance(inner, dict):
            return None
        data = inner
    return data


def _value(found: FromEnvironment, variable: str, path: Where, text: str, kind: Any) -> Any:
    if _is_text(kind) and not (text == "null" and type(None) in get_args(kind)):
        return text
    if len(text) > FILE_LIMIT:
        found.problems.append((variable, path, f"the value is larger than {FILE_LIMIT // 1024} KiB"))
        return None
    try:
        document = read(text)
    except NotPlain as error:
        found.problems.append((variable, path, str(error)))
        return None
    found.problems += [(variable, (*path, *inner), problem) for _, inner, problem in document.problems]
    return document.data


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _is_text(kind: Any) -> bool:
    """Whether a setting holds a text, a path or a word, which YAML could only misread."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _is_text(inner[0])
    if origin in (Union, types.UnionType):
        return all(_is_text(each) for each in inner if each is not type(None))
    return origin is Literal or kind in (str, Path)
