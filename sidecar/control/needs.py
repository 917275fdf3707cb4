"""What orders need of the other parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from sidecar.core.model import Event
from sidecar.core.orders import Order, Result, Stored
from sidecar.core.selection import Change, Selector


class OrderStore(Protocol):
    """What orders need of the disk; everything raises DiskError."""

    async def add(self, stored: Stored) -> None:
        """Write an order, synced."""
        ...

    async def end(self, order_id: str, result: Result) -> None:
        """Write what became of an order."""
        ...

    async def find(self, key: str) -> Stored | None:
        """The order that was sent with this idempotency key."""
        ...

    async def waiting(self) -> list[Stored]:
        """The orders that wait, oldest first."""
        ...


class Memory(Protocol):
    """The remembered answers."""

    async def purge(self, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is meant, in memory and on disk; returns how many answers. Raises DiskError."""
        ...

    async def purge_here(self, selector: Selector, change: Change) -> int:
        """The same for this sidecar alone."""
        ...

    @property
    def everywhere(self) -> bool:
        """Whether all that was changed is known to the other sidecars too, if there are any."""
        ...


class Modules(Protocol):
    """The modules in Prosody: who is connected, and how an order gets there."""

    def connected(self) -> list[str]:
        """The hosts (MUC components) whose modules are connected now."""
        ...

    def send(self, order: Order) -> bool:
        """Send an order to every connected module that may have the room. False: to none; then it is sent again a
        moment later. Never waits and never raises."""
        ...


class Shards(Protocol):
    """The other shards. Nothing here raises, and only `first_with` waits, for a second at the most."""

    @property
    def in_touch(self) -> bool:
        """Whether the outcome on other shards can come at once."""
        ...

    @property
    def one_domain(self) -> tuple[str, ...]:
        """The MUC domains that count as one. With several, a room is on more than one shard at a time."""
        ...

    def id_for(self, key: str, fingerprint: str) -> str:
        """The id of an order with this idempotency key: the same on all shards."""
        ...

    async def first_with(self, key: str, order_id: str) -> str:
        """The id of the order that was first sent with this idempotency key, to any sidecar; `order_id` if none was, or
        if that is not known."""
        ...

    def pass_on(self, order: Order, expires_at: float) -> None:
        """Have an order carried out where the room is, until it is `over`."""
        ...

    def not_here(self, order_id: str) -> None:
        """The room of an order that was passed on is not on this shard."""
        ...

    def over(self, order_id: str) -> None:
        """An own order has ended."""
        ...

    def report(self, order_id: str, result: Result) -> None:
        """What became of an order of another shard here."""
        ...


Accept = Callable[[Event], Awaitable[None]]
"""Brings an event to the outbox; raises OutboxFull or DiskError."""
