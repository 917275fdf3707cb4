"""What sidecars write into their shared memory, and how it is read: signed and encrypted.

An answer   tag, then encrypted: header (JSON), body     under the digest of its key
A message   tag, then encrypted: header (JSON), attached answer

The tag is the signature of the content, and the encryption begins with it, so that no random text is needed (SIV).
Two contents have the same tag only if they are equal.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import shake_256
from typing import Any, NamedTuple, Self

from sidecar.core.contact import STEP
from sidecar.core.decision_body import restricts
from sidecar.core.engine_clock import age_ms
from sidecar.core.fences import Fence, Standing, Vector, scopes, standing
from sidecar.core.model import SUSPECT, Endpoint, Entry, Key, Lifetimes, Verdict
from sidecar.core.policy import revoked
from sidecar.core.selection import Change, Selector

_TAG = 32
"""Bytes of a tag: SHA-256."""

_VERDICTS = {verdict.value: verdict for verdict in Verdict}


class Forged(Exception):
    """A signature is wrong, or what was signed cannot be read."""


class Kept(NamedTuple):
    """An answer as it is kept for all sidecars."""

    verdict: Verdict
    body: bytes
    epoch: str
    asked_ms: int
    """When the backend was asked, on the engine's clock."""
    lifetimes: Lifetimes
    vector: Vector


@dataclass(frozen=True, slots=True)
class Sealer:
    """Signs, encrypts and digests with one secret."""

    secret: bytes = field(repr=False)
    one_domain: tuple[str, ...] = ()
    """MUC domains under which a room is the same room, as on visitor nodes."""

    @classmethod
    def of(cls, key: bytes, namespace: str, muc_domains: Iterable[str]) -> Self:
        """For the sidecars of one namespace that have the same key: what is of another namespace is forged. The domains
        may be in any order and case."""
        secret = hmac.digest(key, f"namespace {namespace}".encode(), "sha256")
        return cls(secret, tuple(sorted({domain.lower() for domain in muc_domains})))

    def digest(self, *parts: str) -> str:
        """A name for these texts, from which they cannot be found."""
        return self._sign(json.dumps(parts).encode()).hex()[:32]

    @property
    def fingerprint(self) -> str:
        """The same for all sidecars that have the same secret, and that name rooms in the same way."""
        return self.digest("fingerprint", *sorted(self.one_domain))[:8]

    def key(self, key: Key) -> str:
        """The name of a key, the same on all sidecars."""
        key = self.everywhere(key)
        return self.digest("key", key.endpoint.value, *(part or "" for part in key[1:]))

    def scopes(self, key: Key) -> list[str]:
        """The names of the fences of a key."""
        return [self.digest(scope) for scope in scopes(key)]

    def everywhere(self, key: Key) -> Key:
        """The key as it is on all sidecars: the domains of one deployment's visitor nodes count as one."""
        if key.room_jid is None or not self.one_domain:
            return key
        known: Any = json.loads(key.room_jid)
        if not isinstance(known, str):
            return key
        node, at, domain = known.rpartition("@")
        if not at or domain.lower() not in self.one_domain:
            return key
        return key._replace(room_jid=json.dumps(f"{node}@{self.one_domain[0]}"))

    def jid_everywhere(self, room_jid: str | None) -> str | None:
        """The JID of a room as it is on all sidecars."""
        if room_jid is None:
            return None
        everywhere = self.everywhere(Key(Endpoint.ROOM_CREATED, "", json.dumps(room_jid))).room_jid
        return None if everywhere is None else str(json.loads(everywhere))

    def pack(self, name: str, kept: Kept) -> bytes:
        """Seal an answer, under the name of its key."""
        header = [kept.verdict.value, kept.epoch, kept.asked_ms, kept.lifetimes, kept.vector]
        return self._seal(f"answer {name}", json.dumps(header).encode() + b"\n" + kept.body)

    def unpack(self, name: str, content: bytes) -> Kept:
        """The answer under a name; raises Forged."""
        header, _, body = self._open(f"answer {name}", content).partition(b"\n")
        try:
            verdict, epoch, asked_ms, lifetimes, vector = json.loads(header)
            fences = tuple(Fence(*fence) for fence in vector)
            return Kept(_VERDICTS[verdict], body, str(epoch), int(asked_ms), Lifetimes(*map(float, lifetimes)), fences)
        except (KeyError, TypeError, ValueError) as error:
            raise Forged(f"an answer that cannot be read: {type(error).__name__}") from None

    def say(self, document: dict[str, Any], attached: bytes = b"") -> bytes:
        """Seal a message."""
        return self._seal("message", json.dumps(document).encode() + b"\n" + attached)

    def hear(self, content: bytes) -> tuple[dict[str, Any], bytes]:
        """A message, and what is attached to it; raises Forged."""
        header, _, attached = self._open("message", content).partition(b"\n")
        try:
            document = json.loads(header)
        except ValueError:
            raise Forged("a message that cannot be read") from None
        if not isinstance(document, dict):
            raise Forged("a message that is no object")
        return document, attached

    def has_sealed(self, content: bytes) -> bool:
        """Whether this is a message that was sealed with the same secret."""
        try:
            self.hear(content)
        except Forged:
            return False
        return True

    def _seal(self, what: str, content: bytes) -> bytes:
        tag = self._sign(what.encode() + b"\n" + content)
        return tag + self._crypt(tag, content)

    def _open(self, what: str, sealed: bytes) -> bytes:
        tag = sealed[:_TAG]
        content = self._crypt(tag, sealed[_TAG:])
        if not hmac.compare_digest(tag, self._sign(what.encode() + b"\n" + content)):
            raise Forged("a wrong signature")
        return content

    def _crypt(self, tag: bytes, content: bytes) -> bytes:
        """Encrypt, or decrypt: XOR with bytes that are made from the secret and the tag."""
        stream = shake_256(self._sign(b"stream\n" + tag)).digest(len(content))
        return (int.from_bytes(content) ^ int.from_bytes(stream)).to_bytes(len(content))

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self.secret, content, "sha256")


class Found(NamedTuple):
    """What one read of the engine says about a key."""

    epoch: str
    now_ms: int
    """The engine's clock."""
    fences: Vector
    content: bytes | None = None
    settled_ms: int = 0
    """When the answer was written."""


class ToKeep(NamedTuple):
    """An answer that is no deny, on its way to the engine."""

    name: str
    """Of its key."""
    scopes: Sequence[str]
    verdict: str
    epoch: str
    """When the fences were read."""
    vector: Vector
    """The fences, before the backend was asked."""
    asked_ms: int
    lifetime_ms: int
    content: bytes


def usable(kept: Kept, found: Found, now: float, *, in_touch: bool) -> Entry | None:
    """What a kept answer is for this sidecar, at its own instant `now`; None: nothing.

    Only an answer of this epoch whose fences are the same is as good as an own one.
    """
    now_ms = found.now_ms
    worth = standing(kept.verdict, kept.vector, found.fences)
    age = age_ms(kept.asked_ms, kept.epoch, now_ms, found.epoch)
    settled_at = now - max(0, now_ms - found.settled_ms) / 1000
    if worth is Standing.REVOKED:  # it lets nobody in, also where the policy for unknown users does
        return revoked(settled_at)
    if worth is Standing.GONE:
        return None
    if age is None:  # nobody knows: it is no answer, but what restricts a user does so until there is one
        restricted = restricts(kept.verdict, kept.body)
        return Entry(kept.verdict, kept.body, settled_at, settled_at, Lifetimes(0, 0, 0)) if restricted else None
    asked_at = now - max(0, age) / 1000
    settled_at = max(asked_at, settled_at)
    same_history = found.epoch == kept.epoch and in_touch and kept.asked_ms <= now_ms
    unsure = worth is Standing.SUSPECT or not (same_history or kept.verdict is Verdict.DENY)
    return Entry(kept.verdict, kept.body, asked_at, settled_at, kept.lifetimes, SUSPECT if unsure else 0.0)


def done_ms(document: dict[str, Any], at_ms: int) -> int:
    """When that was done of which a message tells, on the engine's clock. `at_ms` is what the engine says, and is not
    signed: a message that somebody says again is as old as it was. Raises Forged."""
    done = document.get("at")
    if done is None:
        return at_ms
    if not isinstance(done, int):
        raise Forged("a message with a time that cannot be read")
    return min(at_ms, done + round(STEP * 1000))


def has_password(body: bytes) -> bool:
    """Whether an answer holds a room's password, however deep; or cannot be read."""
    try:
        return _has_password(json.loads(body))
    except (ValueError, RecursionError):
        return True


def _has_password(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("password") not in (None, "") or any(map(_has_password, value.values()))
    return isinstance(value, list) and any(map(_has_password, value))


@dataclass(frozen=True)
class FromAnother(Selector):
    """What another sidecar means: a room is the same under all domains of a deployment."""

    sealer: Sealer = field(default=Sealer(b""), repr=False, compare=False)

    def fits(self, key: Key) -> bool:
        """Whether this key is meant."""
        return super().fits(key if self.room_jid is None else self.sealer.everywhere(key))

    @classmethod
    def of(cls, document: dict[str, Any], sealer: Sealer) -> Self:
        """What a message means; raises Forged."""
        try:
            return cls(
                room=document.get("room"),
                subject=document.get("subject"),
                room_jid=document.get("roomJid"),
                meeting_id=document.get("meetingId"),
                endpoint=Endpoint(document["endpoint"]) if document.get("endpoint") else None,
                sealer=sealer,
            )
        except (TypeError, ValueError):
            raise Forged("a change that cannot be read") from None


def change_message(selector: Selector, change: Change, sealer: Sealer) -> dict[str, Any]:
    """A change as a message."""
    document = {
        "kind": "change",
        "change": change.name,
        "room": selector.room,
        "subject": selector.subject,
        "roomJid": sealer.jid_everywhere(selector.room_jid),
        "meetingId": selector.meeting_id,
        "endpoint": selector.endpoint and selector.endpoint.value,
    }
    return {name: value for name, value in document.items() if value}
