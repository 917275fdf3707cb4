"""Requests of Prosody: bytes -> Message -> Query, or a sentence that says which field is wrong and why."""

from __future__ import annotations

import hashlib
import json
import re
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from sidecar.core.model import GUEST, Asker, Endpoint, Key, Kind, Query, jid_subject
from sidecar.core.strict_json import strict_decoder

BODY_LIMIT = 64 * 1024
"""Bytes of a request; a longer one is answered 413."""

NAME_LIMIT = 1023
"""Bytes of a room name or JID: the limit of one part of a JID (RFC 7622)."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Malformed(Exception):
    """The request cannot be understood. `field` is the one that is wrong; None: the body as a whole is."""

    def __init__(self, detail: str, field: str | None = None) -> None:
        """`detail` is a sentence for the author of the request."""
        super().__init__(detail)
        self.field = field


class Message(NamedTuple):
    """A well-formed body: its room, its fields, and its bytes."""

    room: str
    document: dict[str, Any]
    body: bytes


def read_message(endpoint: Endpoint, body: bytes) -> Message:
    """Check the fields that every endpoint needs; raises Malformed."""
    document = read_object(body)
    room = _name(document, "roomName", NAME_LIMIT)
    if endpoint.kind is Kind.DECISION:
        _name(document, "userJid", NAME_LIMIT)
    return Message(room, document, body)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises Malformed."""
    try:
        document = _document(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error.msg} (line {error.lineno} column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not usable JSON: {error}") from None
    if not isinstance(document, dict):
        raise Malformed(f"the body must be a JSON object, not {_type(document)}")
    return document


def query_of(
    endpoint: Endpoint, message: Message, received_at: float, traceparent: str, anonymous_domains: frozenset[str]
) -> Query:
    """The question in a message; `anonymous_domains` are in lower case. Raises Malformed."""
    document = message.document
    room_jid = text_of(document.get("roomJid"))
    if endpoint.kind is Kind.CONFIG:
        creator = document.get("creator")
        name = creator.split("/", 1)[0] if isinstance(creator, str) else ""
        asker = Asker(name, guest=name.rpartition("@")[2].lower() in anonymous_domains)
        return Query(Key(endpoint, message.room, room_jid), message.body, received_at, "", traceparent, asker)
    caller = document["userJid"].split("/", 1)[0]
    token = document.get("bearerToken")
    digest = hashlib.sha256(str(text_of(token)).encode()).hexdigest() if _is_sent(token) else None
    subject = _subject(document, caller, anonymous_domains, has_token=digest is not None)
    key = Key(endpoint, message.room, room_jid, text_of(document.get("meetingId")), subject, digest)
    guest = subject == GUEST
    name = caller if guest else f"{subject} {digest}" if subject == "token" else subject
    sent = "" if digest is None else _header_safe(token)
    return Query(key, message.body, received_at, caller, traceparent, Asker(name, guest), sent)


def config_query_of(message: Message, decision: Query) -> Query:
    """The question for the room config that a join asks for too. Its body is that of a `room-created`, and
    has nothing that is only for the decision, such as the token."""
    document = message.document
    asked = {name: document[name] for name in ("roomName", "roomJid", "timestamp") if _is_plain(document.get(name))}
    body = json.dumps({**asked, "creator": decision.caller}).encode()
    return Query(decision.key.of_config, body, decision.received_at, "", decision.traceparent, decision.asker)


def traceparent_of(header: str) -> str:
    """A valid W3C traceparent, or nothing."""
    return header if header and _TRACEPARENT.fullmatch(header) else ""


def _subject(document: dict[str, Any], caller: str, anonymous_domains: frozenset[str], *, has_token: bool) -> str:
    """Who wants to join. Where Jitsi knows a person only by a token, the JID is another one on each connection."""
    user_id, email = document.get("userId"), document.get("userEmail")
    if user_id is not None or email is not None:
        if _is_sent(user_id) and _is_sent(email):
            # As a JSON list: joined by a space, an id could read like another id and e-mail.
            return f"id+email {text_of([user_id, email])}"
        if _is_sent(user_id):
            return f"id {text_of(user_id)}"
        if _is_sent(email):
            return f"email {text_of(email)}"
    if has_token:
        return "token"  # its digest is a part of the key anyway
    if document.get("guest") is True or caller.rpartition("@")[2].lower() in anonymous_domains:
        return GUEST
    return jid_subject(caller)


def _is_sent(value: Any) -> bool:
    """Whether a field has a value; 0 is one."""
    return value is not None and value is not False and value != ""


_BEARER = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*")
"""What RFC 6750 allows as a bearer token. Nothing else is put into a header."""


def _header_safe(token: Any) -> str:
    """A token that can be sent as `Authorization: Bearer`; empty for any other value."""
    return token if isinstance(token, str) and _BEARER.fullmatch(token) else ""


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def text_of(value: Any) -> str | None:
    """A value as JSON text, so that 1 and "1" differ; None if it was not sent. Raises Malformed."""
    if value is None:
        return None
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, _Number):
        return value.text
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:  # reading goes a little deeper than writing
        raise Malformed("the body is nested too deeply") from None


def _name(document: dict[str, Any], field: str, limit: int) -> str:
    """A field that must be a name; raises Malformed."""
    value = document.get(field)
    if isinstance(value, str) and value.isascii() and 0 < len(value) <= limit:
        return value
    if field not in document:
        raise Malformed(f"{field} is missing", field)
    if not isinstance(value, str):
        raise Malformed(f"{field} must be a string, not {_type(value)}", field)
    if not value:
        raise Malformed(f"{field} must not be empty", field)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise Malformed(f"{field} holds half a surrogate pair, which is no character", field) from None
    if size > limit:
        raise Malformed(f"{field} is {size} bytes long; at most {limit} are allowed", field)
    return value


def _document(text: str) -> Any:
    """The document in a JSON text; raises ValueError and RecursionError."""
    if text.startswith("{"):
        document, end = _decode_beginning(text)
        if end == len(text) and _is_plainly_unambiguous(text, document):
            return document
    return _decode_strictly(text)


def _is_plainly_unambiguous(text: str, document: dict[str, Any]) -> bool:
    """Whether counting shows that no field is there twice. Without escapes and nesting, each quote is the border of a
    name or of a text, so a field that another one replaced leaves too many quotes. Nearly every question is that
    simple, and counting takes a fifth of the time of strict reading."""
    kinds = list(map(type, document.values()))
    quotes = 2 * (len(kinds) + kinds.count(str))
    return "\\" not in text and text.count('"') == quotes and _PLAIN.issuperset(kinds)


_PLAIN = frozenset((str, int, bool, type(None)))
"""No float, because NaN would be one, and it is no JSON."""


class _Number(float):
    """A number with a point or an exponent, and its digits: two that differ may be the same float."""

    def __init__(self, text: str) -> None:
        self.text = text


_decode_beginning = json.JSONDecoder().raw_decode
_decode_strictly = strict_decoder(parse_float=_Number)


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
