"""JSON that every reader understands in the same way: no field twice in an object, and no NaN or Infinity.

Where a field is there twice, one program takes the first and another the last. What is allowed for one reader could be
denied for the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any


def strict_decoder(only: str | None = None, parse_float: Callable[[str], Any] = float) -> Callable[[str], Any]:
    """A function from JSON text to a document. It raises ValueError if a field, or `only` this one, is there twice."""

    def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = [name for name, count in counts.items() if count > 1 and only in (None, name)]
            if twice:
                raise ValueError(f"{twice[0][:40]!r} is there twice, and programs differ in which of them they use")
        return document

    return json.JSONDecoder(
        parse_float=parse_float, parse_constant=_refuse_constant, object_pairs_hook=unambiguous
    ).decode


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
