"""YAML -> frozen settings. All problems are reported together, each with file, line and column.

text --(yaml: nodes with marks)--> plain data + marks --(pydantic)--> Settings --(lint)--> Settings | ConfigError
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sidecar.config.lint import contradictions, warnings
from sidecar.config.messages import in_words
from sidecar.config.models import Settings
from sidecar.errors import ConfigError

Where = tuple[str | int, ...]


def load(file: Path) -> Settings:
    """Read and check a config file; raises ConfigError with every problem, in the order of the file."""
    return examine_file(file).usable()


def parse(text: str, name: str) -> Settings:
    """Check the text of a config; `name` is the file's name in messages."""
    return examine(text, name).usable()


@dataclass(slots=True)
class Examined:
    """A config file after the checks: its settings, if they can be used, its problems and its warnings."""

    name: str
    settings: Settings | None = None
    marks: dict[Where, tuple[int, int]] = field(default_factory=lambda: {(): (1, 1)})
    """Line and column of each setting in the file, counted from 1."""
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
        """`file:line:column: path: what is wrong`, in the order of the file."""
        return [f"{self.name}:{line}:{column}: {text}" for (line, column), text in sorted(set(self.problems))]

    def warning_lines(self) -> list[str]:
        """The same for warnings, each with the word `warning`."""
        ordered = sorted(set(self.warnings))
        return [f"{self.name}:{line}:{column}: warning: {text}" for (line, column), text in ordered]


def examine_file(file: Path) -> Examined:
    """Check a config file; raises ConfigError only if it cannot be read."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            [f"{file}: there is no such file; copy config/minimal.yaml there, or give --config"]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}; check its path and mode"]) from None
    return examine(text, str(file))


def examine(text: str, name: str) -> Examined:
    """Check the text of a config."""
    examined = Examined(name)
    try:
        data = _Reader(examined).read(text)
    except ConfigError:
        return examined
    wrong = _validate(examined, data)
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


def _validate(examined: Examined, data: Any) -> list[Where]:
    """Set the settings, even if some are wrong: these are replaced by their defaults, so that the others can be checked
    together. Returns the wrong ones."""
    wrong: list[Where] = []
    for attempt in range(3):
        try:
            examined.settings = Settings.model_validate(data, by_alias=True, by_name=False)
            break
        except ValidationError as error:
            found = [in_words(problem) for problem in error.errors()]
        data = copy.deepcopy(data) if isinstance(data, dict) else {}
        for path, message in found:
            if attempt == 0:
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


class _Reader:
    """Makes plain data from YAML nodes, and notes the place of each value."""

    def __init__(self, examined: Examined) -> None:
        self._examined = examined
        self._loader = yaml.SafeLoader("")
        self._nodes = 0

    def read(self, text: str) -> Any:
        """The data. If the text is not YAML, notes the problem and raises ConfigError."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            return {} if root is None else self._plain(root, ())
        except yaml.MarkedYAMLError as error:
            open_quote = error.context == "while scanning a quoted scalar"
            mark = error.context_mark if open_quote else error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            what = "the quote that begins here does not end" if open_quote else error.problem or error.context
            message = f"not YAML: {what}{_hint(text, place)}"
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            place = (line, error.position - text.rfind("\n", 0, error.position))
            message = f"not YAML: the character #x{error.character:04x} is not allowed; remove it"
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            place, message = (1, 1), f"not usable YAML: {' '.join(str(error).split())}"
        self._examined.problems = [(place, message)]
        raise ConfigError(self._examined.problem_lines())

    def _plain(self, node: yaml.Node, path: Where) -> Any:
        self._nodes += 1
        if self._nodes > 100_000:
            raise ValueError("more than 100,000 values; check anchors and aliases, which can multiply values")
        self._examined.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        value = self._loader.construct_object(node)
        if type(value) in (int, float) and re.fullmatch(r"[-+]?(0_?\d.*|.*:.*)", node.value):
            # YAML 1.1 reads 1:30 as the number 90, and 010 as 8.
            self._examined.complain(
                path, f"YAML reads {node.value} as the number {value:g}; if you mean that, write {value:g}"
            )
        return value

    def _mapping(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                text = f"{dotted(path) or 'the file'}: a key must be a single word"
                self._examined.problems.append((place, text))
                continue
            if key in result:
                first = self._examined.marks[*path, key][0]
                text = f"{dotted((*path, key))}: is there twice, the first time in line {first}; remove one of them"
                self._examined.problems.append((place, text))
                continue
            self._examined.marks[*path, key] = place
            result[key] = self._plain(value_node, (*path, key))
        return result


def _hint(text: str, place: tuple[int, int]) -> str:
    """The usual cause of a syntax error in such a line."""
    lines = text.splitlines()
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    if "\t" in line:
        return "; indent with spaces, not tabs"
    if re.match(r"\s*[A-Za-z_-]+:[^\s/]", line):
        return "; put a space after the colon"
    if re.search(r"[*&!%@`]", line):
        return "; a text that begins with one of * & ! % @ ` needs quotes"
    before = lines[place[0] - 2] if 2 <= place[0] <= len(lines) + 1 else ""
    if re.match(r"\s*[A-Za-z_-]+:[^\s/]", before):
        return "; put a space after the colon in the line before"
    return "; check the indentation and quotes of this line and of the line before"


def _sentence(path: Where, message: str) -> str:
    return f"{dotted(path)}: {message}" if path else message


def dotted(path: Where) -> str:
    """`rooms[0].validate-access.allow`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
