"""Orders that another shard carries out: what sidecars say to each other about them, and how it is read.

Times are of the engine's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from sidecar.core.orders import Order, Result, State, Verb
from sidecar.core.sealed import Forged, Sealer


class PassedOn(NamedTuple):
    """An order of another shard."""

    order: Order
    """`issued` is wall time of this machine."""
    left: float
    """Seconds until it is given up."""


class OfOthers:
    """The orders of other shards: which are under way here, and for a while the outcome of the others. Instants are
    seconds of one monotonic clock."""

    def __init__(self) -> None:
        """None yet."""
        self._began: dict[str, tuple[float, float]] = {}
        self._outcomes: dict[str, tuple[float, Result]] = {}

    def __contains__(self, order_id: str) -> bool:
        """Whether this one is under way here."""
        return order_id in self._began

    def __iter__(self) -> Iterator[str]:
        """Those that are under way."""
        return iter(self._began)

    def begin(self, order_id: str, now: float, expires_at: float) -> None:
        """One is heard of."""
        self._began[order_id] = now, expires_at

    def began_at(self, order_id: str) -> float:
        """When it was heard of."""
        return self._began[order_id][0]

    def end(self, order_id: str, result: Result | None = None) -> float:
        """One has ended here, with this result; None: it is given up. Returns when it was heard of. A failure is not
        remembered, because the next try may not fail."""
        began_at, expires_at = self._began.pop(order_id, (0.0, 0.0))
        if result is not None and result.state is not State.FAILED:
            self._outcomes[order_id] = expires_at, replace(result, users=())
        return began_at

    def outcome(self, order_id: str) -> Result | None:
        """What became of one that has ended here."""
        known = self._outcomes.get(order_id)
        return None if known is None else known[1]

    def tidy(self, now: float) -> None:
        """Forget the outcomes of orders that nobody sends again."""
        for order_id in [each for each, (until, _) in self._outcomes.items() if until <= now]:
            del self._outcomes[order_id]


def order_message(order: Order, issued_ms: int, left_ms: int, sealer: Sealer, member: str) -> bytes:
    """An order, sealed. `left_ms`: milliseconds from `issued_ms` until it is given up."""
    document = {
        "kind": "order",
        "from": member,
        "id": order.id,
        "verb": order.verb.value,
        "room": order.room,
        "roomJid": order.room_jid,
        "user": order.user,
        "nick": order.nick,
        "reason": order.reason,
        "issued": issued_ms,
        "until": issued_ms + left_ms,
    }
    return sealer.say(document)


def read_order_message(document: dict[str, Any], now_ms: int, wall: float) -> PassedOn:
    """The order of a message whose signature is right, at `now_ms` and `wall`. Raises Forged."""
    try:
        order = Order(
            id=_text(document["id"]),
            verb=Verb(document["verb"]),
            issued=wall - max(0, now_ms - int(document["issued"])) / 1000,
            room=_text(document["room"]),
            room_jid=document["roomJid"] and _text(document["roomJid"]),
            user=document["user"] and _text(document["user"]),
            nick=document["nick"] and _text(document["nick"]),
            reason=document["reason"] and _text(document["reason"]),
        )
        return PassedOn(order, (int(document["until"]) - now_ms) / 1000)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Forged(f"an order that cannot be read: {type(error).__name__}") from None


def outcome_message(order_id: str, result: Result, sealer: Sealer, member: str) -> bytes:
    """What became of an order here, sealed."""
    document = {
        "kind": "outcome",
        "from": member,
        "id": order_id,
        "state": result.state.value,
        "fields": dict(result.fields),
        "error": result.error,
    }
    return sealer.say(document)


def read_outcome_message(document: dict[str, Any]) -> tuple[str, Result]:
    """The id of an order, and what became of it on another shard. Raises Forged."""
    try:
        result = Result(State(document["state"]), dict(document["fields"]), str(document["error"]))
        return _text(document["id"]), result
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Forged(f"an outcome that cannot be read: {type(error).__name__}") from None


def on_this_shard(order: Order, hosts: Collection[str], one_domain: Collection[str]) -> Order:
    """The order as it is meant where these modules are connected: on visitor nodes, the same room has another domain,
    and is known by its name."""
    if order.host in one_domain and order.host not in hosts:
        return replace(order, room_jid=None)
    return order


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value
