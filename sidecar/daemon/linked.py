"""Between the links and the orders: orders go down to the modules, and outcomes go to who waits for them."""

from __future__ import annotations

import json
from typing import Any

from sidecar.control.orders import Orders
from sidecar.control.restarts import Restarts
from sidecar.core.orders import Order
from sidecar.web.link import Links


class Linked:
    """The modules whose links are up."""

    def __init__(self, links: Links) -> None:
        """No state of its own."""
        self._links = links

    def connected(self) -> list[str]:
        """Their hosts."""
        return [module.host for module in self._links.connected()]

    def send(self, order: Order) -> bool:
        """Send an order to the module of its host, or to all if it names a room without its host. False: to none."""
        document = json.dumps(order.document()).encode()
        hosts = self.connected() if order.host is None else [order.host]
        sent = [self._links.send(order.id, document, host) for host in hosts]  # to each, also if the first gets it
        return any(sent)


class Orderers:
    """Who hears what a module says beside its questions."""

    def __init__(self, orders: Orders, restarts: Restarts) -> None:
        """No state of its own."""
        self._orders = orders
        self._restarts = restarts

    def acknowledged(self, order_id: str, outcome: dict[str, Any], host: str) -> None:
        """A module has carried out an order, or could not."""
        self._orders.acknowledged(order_id, outcome, host)

    def module_connected(self, host: str, boot: str, *, has_events: bool) -> None:
        """A module's link is up."""
        self._restarts.module_connected(host, boot, has_events=has_events)
        self._orders.module_connected()
