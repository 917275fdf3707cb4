"""What XML lacks is replaced, and nothing else is touched."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.classify import classify
from sidecar.core.decision_body import TEXT_LIMIT
from sidecar.core.model import Kind, Rejected, Replied
from sidecar.core.xml_text import fit_for_xml

TEXTS = st.text(st.characters(codec=None) | st.sampled_from('\x00\x0b\t\ufffe\uffff\ud83d\ude00\\u"bf'), max_size=8)
DOCUMENTS = st.recursive(
    TEXTS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)


def fits_xml(character: str) -> bool:
    """XML 1.0, production 2."""
    code = ord(character)
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000


def fitted(document: Any) -> Any:
    """The document with each character that XML lacks replaced, one by one."""
    if isinstance(document, str):
        return "".join(character if fits_xml(character) else "\ufffd" for character in document)
    if isinstance(document, list):
        return [fitted(each) for each in document]
    if isinstance(document, dict):
        return {fitted(name): fitted(value) for name, value in document.items()}
    return document


@given(DOCUMENTS)
def test_each_character_that_xml_lacks_is_replaced_where_it_is_escaped(document: Any) -> None:
    body = json.dumps(document).encode()
    document = json.loads(body)  # two halves next to each other are a character now
    assert json.loads(fit_for_xml(body)) == fitted(document)


@given(DOCUMENTS)
def test_and_where_it_is_written_as_it_is(document: Any) -> None:
    try:
        body = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert json.loads(fit_for_xml(body)) == fitted(document)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\\ud83d\\ude00 \\uD83D\\uDE00"}',
        b'{"a": "\\n\\t\\r\\u000a\\u0009\\u000D \\u007f\\u0085 \\/ \\\\ud83d \\\\b \\u00e9"}',
        '{"a": "Zoë 😀 \ufffd \U0001ffff \x7f"}'.encode(),
        b' { "a" : 1e999 , "a" : [ ] }\n',
    ],
)
def test_everything_else_stays_byte_for_byte(body: bytes) -> None:
    assert fit_for_xml(body) == body


@pytest.mark.parametrize("text", ["\\ud83d", "\\uffff", "\\u0000", "\\b", "\uffff"])
def test_an_answer_is_fit_for_xml(text: str) -> None:
    decision = classify(Kind.DECISION, 403, f'{{"allowed": false, "reason": "No {text}", "x": "{text}"}}'.encode())
    assert isinstance(decision, Rejected)
    assert json.loads(decision.body) == {"allowed": False, "reason": "No \ufffd", "x": "\ufffd"}
    config = classify(Kind.CONFIG, 200, f'{{"meetingTitle": "Party {text}"}}'.encode())
    assert isinstance(config, Replied)
    assert json.loads(config.body) == {"meetingTitle": "Party \ufffd"}


def test_a_long_reason_is_cut() -> None:
    outcome = classify(Kind.DECISION, 200, json.dumps({"allowed": False, "reason": "a" + " " * 80_000 + "b"}).encode())
    assert isinstance(outcome, Replied)
    assert len(json.loads(outcome.body)["reason"]) == TEXT_LIMIT


@pytest.mark.parametrize("piece", ["\\ud83d", "\\\\", "\\b", "\uffff", "\\u", " "])
def test_a_megabyte_takes_no_time(piece: str) -> None:
    body = (piece * (1024 * 1024 // len(piece.encode()))).encode()
    began = time.process_time()
    fit_for_xml(body)
    assert time.process_time() - began < 1
