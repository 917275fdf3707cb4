"""YAML -> the values that JSON has too, each with its place. All else that YAML can write is a problem with a place.

bytes --(decode)--> text --(compose: nodes with marks)--> plain data + marks + problems

YAML reads `2026-12-01` as a date, `1:30` as 90 and `010` as 8. Such a value would reach Prosody as something else, or
fail where it is made into JSON, long after the file was called good. So it is refused here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Where = tuple[str | int, ...]
Place = tuple[int, int]

FILE_LIMIT = 512 * 1024
"""Bytes. A thousand room patterns need a fifth of it."""

VALUE_LIMIT = 100_000
DEPTH_LIMIT = 50
EXACT = 2**53
"""Programs that keep numbers as floats, such as Lua and JavaScript, know whole numbers up to here exactly."""

SHOWN = 12
"""Characters. A longer value is not repeated in a message: in the wrong place, it may be a secret."""

_TAG = "tag:yaml.org,2002:"
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""XML has none of these, a path has no NUL, and halves of surrogate pairs cannot be written as UTF-8."""

_OFTEN_MISREAD = re.compile(r"[-+]?(0_?\d.*|.*:.*)")
_LIKE_A_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|0o[0-7_]+")
"""YAML 1.1 reads some of these as texts: 1e3, 08, 0o17."""

_WORDS = {
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "null": "nothing",
    "timestamp": "a date",
    "value": "a special key",
    "merge": "a merge key",
}


class NotPlain(Exception):
    """The text cannot be read at all: where it stops to be YAML, and why."""

    def __init__(self, place: Place, message: str) -> None:
        """`place` is line and column, counted from 1."""
        super().__init__(message)
        self.place = place


@dataclass(slots=True)
class Document:
    """What a text says."""

    data: Any = None
    marks: dict[Where, Place] = field(default_factory=lambda: {(): (1, 1)})
    """Line and column of each setting in the file, counted from 1."""
    problems: list[tuple[Place, Where, str]] = field(default_factory=list)
    """What has no word in JSON; `data` has something harmless there."""


def decode(content: bytes) -> str:
    """The text of a file; raises NotPlain."""
    if len(content) > FILE_LIMIT:
        raise NotPlain((1, 1), f"the file is larger than {FILE_LIMIT // 1024} KiB; is this the right file?")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        raise NotPlain((1, 1), "the file is in UTF-16 or UTF-32; save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        text = f"the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise NotPlain(_place_of(before, len(before)), text) from None


def read(text: str) -> Document:
    """The document in a text; raises NotPlain if it is not YAML."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        message = f"not YAML: the character #x{error.character:04x} is not allowed; remove it"
        raise NotPlain(_place_of(text, error.position), message) from None
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(text, error) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError):
        mark = loader.get_mark()  # an escape such as "\U00110000" fails without a place
        message = "not YAML: there is no such character or value; check this line"
        raise NotPlain((mark.line + 1, mark.column + 1), message) from None
    finally:
        loader.dispose()
    document = Document(data={})
    if root is not None:
        document.data = _Plain(document).value(root, ())
    return document


class _Loader(yaml.SafeLoader):
    """Composes nodes, but not too deep."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node and those in it."""
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {DEPTH_LIMIT} levels of nesting", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Plain:
    """Makes plain data from YAML nodes, and notes the place of each value."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._loader = yaml.SafeLoader("")
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Where) -> Any:
        """The value of a node. An alias is the node of its anchor again."""
        self._count += 1
        self._document.marks.setdefault(path, _place(node))
        if self._count > VALUE_LIMIT:
            text = f"more than {VALUE_LIMIT:,} values; check anchors and aliases, which can multiply values"
            raise NotPlain(self._document.marks[path[:1]], text)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self._refuse(path, "is an alias (*) of something that contains it; write the value out")
            return None
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        finally:
            self._open.remove(id(node))

    def _refuse(self, path: Where, text: str) -> None:
        self._document.problems.append((self._document.marks[path], path, text))

    def _sequence(self, node: yaml.Node, path: Where) -> list[Any]:
        if node.tag != f"{_TAG}seq":
            self._refuse(path, f"has the tag {_shown(node.tag)}, which JSON has no word for; remove the tag")
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        if node.tag != f"{_TAG}map":
            self._refuse(
                path, f"has the tag {_shown(node.tag)}, which JSON has no word for; write a list without a tag"
            )
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place, key = _place(key_node), key_node.value
            if problem := _wrong_key(key_node):
                self._document.problems.append((place, path, problem))
            elif key in result:
                first = self._document.marks[*path, key][0]
                text = f"is there twice, the first time in line {first}; remove one of them"
                self._document.problems.append((place, (*path, key), text))
            else:
                self._document.marks[*path, key] = place
                result[key] = self.value(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Where) -> Any:
        text, plain = node.value, node.style is None
        kind = node.tag.removeprefix(_TAG)
        usual = self._loader.resolve(yaml.ScalarNode, text, (plain, not plain))  # type: ignore[no-untyped-call]
        natural = node.tag == usual
        if kind == "str":
            return self._text(text, path, unquoted=plain and natural)
        if not natural:
            self._refuse(path, f"has the tag {_shown(node.tag)}, which JSON has no word for; remove the tag")
            return text
        if kind in ("int", "float"):
            return self._number(node, path)
        if kind in ("null", "bool"):
            return self._loader.construct_object(node)
        self._refuse(
            path,
            f"YAML reads {_said(text, path)} as {_WORDS.get(kind, kind)}; if it is a text, write {_quoted(text, path)}",
        )
        return text

    def _text(self, text: str, path: Where, *, unquoted: bool) -> str:
        if odd := _UNFIT.search(text):
            self._refuse(path, f"the text has the character U+{ord(odd[0]):04X}, which cannot be sent; remove it")
            return _UNFIT.sub("?", text)
        if unquoted and _LIKE_A_NUMBER.fullmatch(text):
            self._refuse(path, f"YAML reads this as a text; write {_quoted(text, path)}, or the number in digits")
        return text

    def _number(self, node: yaml.ScalarNode, path: Where) -> int | float:
        text = node.value
        try:
            number = self._loader.construct_object(node)
        except (ValueError, OverflowError):
            self._refuse(
                path, f"this number has too many digits, or none; if it is a text, write {_quoted(text, path)}"
            )
            return 0
        if not math.isfinite(number):
            self._refuse(path, "JSON has no such number; write one in digits")
            return 0
        if isinstance(number, int) and abs(number) > EXACT:
            self._refuse(path, f"this number is above 2^53 and not exact in all programs; write {_quoted(text, path)}")
        elif _OFTEN_MISREAD.fullmatch(text):
            what = f"YAML reads {_said(text, path)} as the number {number:g}"
            self._refuse(
                path, f"{what}; if you mean that, write {number:g}; if it is a text, write {_quoted(text, path)}"
            )
        return number  # type: ignore[no-any-return]


def _wrong_key(node: yaml.Node) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        return "a key must be a single word"
    if node.tag == f"{_TAG}merge":
        return "merge keys (<<) are not supported; write the settings out"
    if node.tag != f"{_TAG}str":
        kind = _WORDS.get(node.tag.removeprefix(_TAG), "no text")
        return f"YAML reads the key {node.value[:SHOWN]} as {kind}; write {_quoted(node.value, ())}"
    if not node.value:
        return "the key is empty"
    odd = next((each for each in node.value if not each.isprintable()), None)
    return None if odd is None else f"the key has the invisible character U+{ord(odd):04X}; type the key again"


def _said(text: str, path: Where) -> str:
    return "this" if len(text) > SHOWN or path[-1:] == ("password",) else text


def _quoted(text: str, path: Where) -> str:
    return f'"{text}"' if _said(text, path) == text else "it in quotes"


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _place_of(text: str, position: int) -> Place:
    breaks = [found.end() for found in _BREAK.finditer(text, 0, position)]
    return len(breaks) + 1, position - (breaks[-1] if breaks else 0) + 1


def _shown(tag: str) -> str:
    return tag.replace(_TAG, "!!")[:60]


def _not_yaml(text: str, error: yaml.MarkedYAMLError) -> NotPlain:
    open_quote = error.context == "while scanning a quoted scalar"
    mark = error.context_mark if open_quote else error.problem_mark or error.context_mark
    place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if error.context == "expected a single document in the stream":
        return NotPlain(place, "a second document begins here; put all settings in one, and remove this line ---")
    what = "the quote that begins here does not end" if open_quote else error.problem or error.context
    return NotPlain(place, f"not YAML: {what}{_hint(text, place)}")


def _hint(text: str, place: Place) -> str:
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
