"""What an answer of the backend means.

`CLASSES` is the table that docs/answers.md publishes; the first row that fits counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar, assert_never

from sidecar.core.decision_body import read_decision
from sidecar.core.model import (
    CacheControl,
    Failure,
    Kind,
    Misconfigured,
    Outcome,
    Rejected,
    Replied,
    Unavailable,
    Verdict,
)
from sidecar.core.protection import unreadable
from sidecar.core.strict_json import strict_decoder
from sidecar.core.unreadable import why_unreadable
from sidecar.core.xml_text import fit_for_xml


class Class(Enum):
    """The four things an answer can be."""

    REPLIED = "Replied"
    REJECTED = "Rejected"
    MISCONFIGURED = "Misconfigured"
    UNAVAILABLE = "Unavailable"


class Shape(Enum):
    """What a body must be for a row to fit."""

    ANY = "anything"
    OBJECT = "a JSON object"
    CONFIG = "a JSON object whose protective settings can be read"
    DECISION = "a JSON object with a boolean `allowed`"
    DENIAL = "a JSON object with `allowed: false`"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: an answer of these kinds, with these statuses and such a body, is of this class."""

    kinds: frozenset[Kind]
    statuses: frozenset[int]
    shape: Shape
    outcome: Class


_EVERY_KIND = frozenset(Kind)
_SUCCESS = frozenset(range(200, 300))
_CLIENT_ERROR = frozenset(range(400, 500))
_EVERY_STATUS = frozenset(range(1000))

CLASSES: tuple[Row, ...] = (
    Row(frozenset({Kind.DECISION}), _SUCCESS, Shape.DECISION, Class.REPLIED),
    Row(frozenset({Kind.CONFIG}), _SUCCESS, Shape.CONFIG, Class.REPLIED),
    Row(frozenset({Kind.EVENT}), _SUCCESS, Shape.ANY, Class.REPLIED),
    Row(frozenset({Kind.DECISION}), _CLIENT_ERROR, Shape.DENIAL, Class.REJECTED),
    Row(frozenset({Kind.CONFIG}), frozenset({400, 404, 409, 410, 422}), Shape.OBJECT, Class.REJECTED),
    Row(frozenset({Kind.EVENT}), frozenset({400, 409, 410, 413, 422}), Shape.ANY, Class.REJECTED),
    Row(frozenset({Kind.EVENT}), frozenset({404}), Shape.OBJECT, Class.REJECTED),
    Row(_EVERY_KIND, frozenset({401, 403}), Shape.ANY, Class.MISCONFIGURED),
    Row(_EVERY_KIND, _EVERY_STATUS, Shape.ANY, Class.UNAVAILABLE),
)


def classify(
    kind: Kind,
    status: int,
    body: bytes,
    cache_control: str = "",
    retry_after: float | None = None,
    content_encoding: str = "",
    took: float | None = None,
) -> Outcome:
    """The outcome of a complete HTTP answer. `body` is at most 1 MiB; `cache_control` and `content_encoding` are texts
    of headers; `took`: seconds, None: not measured."""
    body = fit_for_xml(body)
    document = _parse_object(body)
    row = next(row for row in CLASSES if kind in row.kinds and status in row.statuses and _FITS[row.shape](document))
    match row.outcome:
        case Class.REPLIED:
            return _answered(Replied, kind, status, body, document, cache_control, took)
        case Class.REJECTED:
            return _answered(Rejected, kind, status, body, document, cache_control, took)
        case Class.MISCONFIGURED:
            return Misconfigured(f"the backend answered {status}", status, is_proof_of_life(status, body), took=took)
        case Class.UNAVAILABLE:
            if kind is Kind.CONFIG and status in _SUCCESS and document is not None:
                return Unavailable("; ".join(unreadable(document)), Failure.UNREADABLE, status, alive=True, took=took)
            reason = _complaint(kind, status, body, document, content_encoding)
            alive = is_proof_of_life(status, body)
            return Unavailable(reason, status=status, retry_after=retry_after, alive=alive, took=took)
        case _:
            assert_never(row.outcome)


_ASKS_FOR_LESS = frozenset({408, 425, 429})
"""Client errors with which a backend, or a proxy before it, says that it has too much to do."""


def is_proof_of_life(status: int, body: bytes) -> bool:
    """Whether an answer that decides nothing shows that the backend works: a client error that the application itself
    wrote, in JSON. A proxy's error page is none."""
    if status not in _CLIENT_ERROR or status in _ASKS_FOR_LESS:
        return False
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False


def parse_cache_control(header: str) -> CacheControl:
    """The directives that may shorten a lifetime; a number that cannot be read counts as 0."""
    if not header:
        return _SILENT
    seen: dict[str, float] = {}
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        name = name.strip().lower()
        seconds = _seconds(value)
        seen[name] = min(seen.get(name, seconds), seconds)
    return CacheControl(
        no_store="no-store" in seen,
        private="private" in seen,
        must_revalidate="must-revalidate" in seen or "no-cache" in seen,
        max_age=0.0 if "no-cache" in seen else seen.get("max-age"),
        stale_while_revalidate=seen.get("stale-while-revalidate"),
        stale_if_error=seen.get("stale-if-error"),
    )


_SILENT = CacheControl()


def _seconds(value: str) -> float:
    digits = value.strip().strip('"')
    return float(digits[:12]) if digits.isascii() and digits.isdigit() else 0.0


def _parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; None for anything else, and for an object with `allowed` twice."""
    try:
        document = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


_decode = strict_decoder(only="allowed")


_FITS: dict[Shape, Callable[[dict[str, Any] | None], bool]] = {
    Shape.ANY: lambda document: True,
    Shape.OBJECT: lambda document: document is not None,
    Shape.CONFIG: lambda document: document is not None and not unreadable(document),
    Shape.DECISION: lambda document: document is not None and isinstance(document.get("allowed"), bool),
    Shape.DENIAL: lambda document: document is not None and document.get("allowed") is False,
}


_Answered = TypeVar("_Answered", Replied, Rejected)


def _answered(
    outcome: type[_Answered],
    kind: Kind,
    status: int,
    body: bytes,
    document: dict[str, Any] | None,
    cache_control: str,
    took: float | None,
) -> _Answered:
    """The outcome for an answer that says something: a decision is written again from the fields that were checked, any
    other body stays as it is."""
    said = parse_cache_control(cache_control)
    if kind is not Kind.DECISION or document is None:
        verdict = Verdict.CONFIG if kind is Kind.CONFIG and outcome is Replied else None
        return outcome(status, body, verdict, said, took=took)
    decision = read_decision(document)
    verdict = Verdict.ALLOW if document["allowed"] else Verdict.DENY
    said = replace(said, private=True) if decision.personal and not said.private else said
    return outcome(status, decision.body, verdict, said, decision.remark, took=took)


def _complaint(kind: Kind, status: int, body: bytes, document: dict[str, Any] | None, content_encoding: str) -> str:
    if status in _SUCCESS and document is None:
        return f"the body of the {status} {why_unreadable(body, content_encoding, _decode)}"
    if status in _SUCCESS and kind is Kind.DECISION:
        return f"the body of the {status} has no boolean `allowed`"
    return f"the backend answered {status}"
