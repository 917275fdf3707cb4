"""The modules in Prosody, as far as orders need them: who is connected, and how an order gets there."""

from __future__ import annotations

from typing import Protocol

from sidecar.core.orders import Order


class Modules(Protocol):
    """The links to the modules."""

    def connected(self) -> list[str]:
        """The hosts (MUC components) whose modules are connected now."""
        ...

    def send(self, order: Order) -> bool:
        """Send `order.document()` under `order.id` to every connected module that may have the room. False: to none;
        then it is sent again a moment later. Never waits and never raises."""
        ...


class NoModules:
    """Nobody is connected."""

    def connected(self) -> list[str]:
        """None."""
        return []

    def send(self, order: Order) -> bool:
        """To nobody."""
        return False
