"""YAML -> frozen settings. All problems are reported together, each with file, line and column.

bytes --(plain_yaml)--> plain data + marks --(environment)--> the same --(pydantic)--> Settings --(lint)--> Settings
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sidecar.config.environment import has_settings, overlay
from sidecar.config.lint import contradictions, warnings
from sidecar.config.messages import in_words
from sidecar.config.models import Settings
from sidecar.config.plain_yaml import FILE_LIMIT, NotPlain, decode, read
from sidecar.errors import ConfigError

Where = tuple[str | int, ...]

THE_ENVIRONMENT = "environment"
"""The name in messages where there is no file, since a container may have all its settings in variables."""

MOST_PROBLEMS = 100
"""Problems that are listed; the operator fixes some of them and checks again."""


def load(file: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check a config file; raises ConfigError with every problem, in the order of the file."""
    return examine_file(file, environ or {}).usable()


def parse(text: str, name: str) -> Settings:
    """Check the text of a config; `name` is the file's name in messages."""
    return examine(text, name).usable()


@dataclass(slots=True)
class Examined:
    """A config file after the checks: its settings, if they can be used, its problems and its warnings."""

    name: str
    settings: Settings | None = None
    marks: dict[Where, tuple[int, int]] = field(default_factory=lambda: {(): (1, 1)})
    """Line and column of each setting, counted from 1. Line 0 and n: it is from the environment, in `variables[n]`."""
    variables: list[str] = field(default_factory=list)
    """The environment variables that have a say."""
    problems: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    warnings: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    def usable(self) -> Settings:
        """The settings; raises ConfigError if there are problems."""
        if self.problems or self.settings is None:
            raise ConfigError(self.problem_lines())
        return self.settings

    def place(self, *paths: Where) -> tuple[int, int]:
        """Where the first of these settings is, or else the section where it would be."""
        stated = next((path for path in paths if path in self.marks), paths[0])
        return next(self.marks[stated[:n]] for n in range(len(stated), -1, -1) if stated[:n] in self.marks)

    def complain(self, path: Where, message: str, *or_else: Where) -> None:
        """Note a problem with this setting."""
        self.problems.append((self.place(path, *or_else), _sentence(path, message)))

    def warn(self, path: Where, message: str, *or_else: Where) -> None:
        """Note that this setting is not advisable."""
        self.warnings.append((self.place(path, *or_else), _sentence(path, message)))

    def problem_lines(self) -> list[str]:
        """`file:line:column: path: what is wrong`, in the order of the file; `$VARIABLE: path: …` before these."""
        ordered = sorted(set(self.problems))
        lines = [f"{self._source(place)}: {text}" for place, text in ordered[:MOST_PROBLEMS]]
        if len(ordered) > MOST_PROBLEMS:
            place, _ = ordered[MOST_PROBLEMS]
            lines.append(f"{self._source(place)}: here and below are {len(ordered) - MOST_PROBLEMS} more problems")
        return lines

    def warning_lines(self) -> list[str]:
        """The same for warnings, each with the word `warning`."""
        ordered = sorted(set(self.warnings))
        return [f"{self._source(place)}: warning: {text}" for place, text in ordered]

    def _source(self, place: tuple[int, int]) -> str:
        line, column = place
        if line and self.name == THE_ENVIRONMENT:
            return THE_ENVIRONMENT
        return f"{self.name}:{line}:{column}" if line else f"${self.variables[column]}"


def examine_file(file: Path, environ: Mapping[str, str]) -> Examined:
    """Check a config file with the environment; raises ConfigError only if it cannot be read."""
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        if has_settings(environ):
            return examine("", THE_ENVIRONMENT, environ)
        raise ConfigError(
            [
                f"{file}: there is no such file; copy minimal.yaml there (it is in config/, or in "
                "/usr/share/doc/prosody-sidecar/examples), or give --config"
            ]
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ConfigError([f"{file}: cannot be read: {error}; check its path and mode"]) from None
    try:
        return examine(decode(content), str(file), environ)
    except NotPlain as error:
        return Examined(str(file), problems=[(error.place, str(error))])


def examine(text: str, name: str, environ: Mapping[str, str] | None = None) -> Examined:
    """Check the text of a config, with the settings of the environment in it."""
    try:
        document = read(text)
    except NotPlain as error:
        return Examined(name, problems=[(error.place, str(error))])
    examined = Examined(name, marks=document.marks)
    for place, path, message in document.problems:
        examined.problems.append((place, _sentence(path, message)))
    known = [path for _, path, _ in document.problems]
    if isinstance(document.data, dict):
        known += _from_environment(examined, document.data, environ or {})
    wrong = _validate(examined, document.data, known)
    if examined.settings is not None:
        # A wrong setting was replaced by its default: findings about that default say nothing about the file.
        unsure = {path[:-1] for path in wrong}
        for advice in contradictions(examined.settings):
            if advice.where[:-1] not in unsure:
                examined.complain(advice.where, advice.text, *advice.or_else)
        for advice in warnings(examined.settings):
            if advice.where[:-1] not in unsure and advice.where not in unsure:
                examined.warn(advice.where, advice.text, *advice.or_else)
    return examined


def _from_environment(examined: Examined, data: dict[str, Any], environ: Mapping[str, str]) -> list[Where]:
    """Put the settings of the environment into the data; returns those with a problem."""
    found = overlay(data, environ)
    examined.variables = sorted({*found.variables.values(), *(variable for variable, _, _ in found.problems)})
    for path, variable in found.variables.items():
        for inner in [each for each in examined.marks if each[: len(path)] == path]:
            del examined.marks[inner]
        examined.marks[path] = (0, examined.variables.index(variable))
    for variable, path, message in found.problems:
        examined.problems.append(((0, examined.variables.index(variable)), _sentence(path, message)))
    return [path for _, path, _ in found.problems]


def _validate(examined: Examined, data: Any, known: list[Where]) -> list[Where]:
    """Set the settings, even if some are wrong: these are replaced by their defaults, so that the others can be checked
    together. Returns the wrong ones, among them those that are known already."""
    wrong = list(known)
    for attempt in range(3):
        try:
            examined.settings = Settings.model_validate(data, by_alias=True, by_name=False)
            break
        except ValidationError as error:
            found = [in_words(problem) for problem in error.errors()]
        data = copy.deepcopy(data) if isinstance(data, dict) else {}
        for path, message in found:
            if attempt == 0 and path not in known:
                examined.complain(path, message)
            wrong.append(path)
            _take_out(data, path)
        backend = data.setdefault("backend", {})
        if isinstance(backend, dict):
            backend.setdefault("url", "https://a.backend.invalid")
    return wrong


def _take_out(data: Any, path: Where) -> None:
    if not path:
        return
    for part in path[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(data, dict):
        data.pop(path[-1], None)
    elif isinstance(data, list) and isinstance(path[-1], int) and path[-1] < len(data):
        data[path[-1]] = {"match": "*"} if isinstance(data[path[-1]], dict) else None


def _sentence(path: Where, message: str) -> str:
    return f"{dotted(path)}: {message}" if path else message


def dotted(path: Where) -> str:
    """`rooms[0].validate-access.allow`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
