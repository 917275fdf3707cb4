"""Why a body is not the JSON object that was expected: one clause for operators, without any text of the body."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_NAMES = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


def why_unreadable(body: bytes, content_encoding: str, decode: Callable[[str], Any]) -> str:
    """What is wrong with a body that `decode` does not make an object of."""
    if not body.strip():
        return "is empty"
    return _wrong_bytes(body, content_encoding) or _wrong_text(body, decode)


def _wrong_bytes(body: bytes, content_encoding: str) -> str:
    """What is wrong before it is a text; empty: nothing."""
    encoding = content_encoding.strip().lower()
    compressed = encoding if encoding in _ENCODINGS else ""
    compressed = compressed or next((name for start, name in _COMPRESSED.items() if body.startswith(start)), "")
    if compressed:
        return f"is compressed ({compressed}), although the request asks for no compression"
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"\0")) or body[1:2] == b"\0":
        return "is UTF-16 or UTF-32, and must be UTF-8"
    if body.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark, which must not be there"
    return ""


def _wrong_text(body: bytes, decode: Callable[[str], Any]) -> str:
    """What is wrong with it as JSON."""
    if body.lstrip().startswith(b"<"):
        return "is HTML or XML, and must be JSON"
    try:
        document = decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return "is cut off in the middle of a character"
        return f"is not UTF-8, but perhaps Latin-1 (byte {error.start + 1})"
    except json.JSONDecodeError as error:
        return _wrong_json(error)
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:  # the decoder's own rules: NaN, `allowed` twice, thousands of digits
        return f"is not usable JSON: {error}"
    return f"is {_NAMES.get(type(document), 'something else')}, and must be a JSON object"


def _wrong_json(error: json.JSONDecodeError) -> str:
    at_end = error.pos >= len(error.doc.rstrip())
    if at_end or error.msg.startswith("Unterminated string"):
        return "is cut off: it ends in the middle of the JSON"
    if error.msg == "Extra data":
        return f"has more after the end of the JSON (character {error.pos + 1})"
    return f"is not JSON: {error.msg} (character {error.pos + 1})"
