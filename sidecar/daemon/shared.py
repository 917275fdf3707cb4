"""The memory that several sidecars share, and orders for other shards, made from the settings; None where it is off.

The client of the engine is imported only here and only if it is needed: it is an extra of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.clock import Clock
from sidecar.config.models import Settings
from sidecar.config.models import Shared as SharedSettings
from sidecar.control.orders import Orders
from sidecar.control.shards import Shards
from sidecar.core.sealed import Sealer
from sidecar.core.selection import Change, Selector
from sidecar.daemon.current import Secrets
from sidecar.daemon.status import Watch
from sidecar.decisions.cache import Cache
from sidecar.decisions.resolver import Resolver
from sidecar.decisions.shared_memory import SharedMemory
from sidecar.decisions.to_say import Journal
from sidecar.errors import DiskError, StartError
from sidecar.facts import Emit

if TYPE_CHECKING:
    from sidecar.shared.engine import Engine


def open_engine(shared: SharedSettings, password: str | None, new_text: Callable[[int], str]) -> Engine:
    """The client of the engine; nothing is opened yet. Raises StartError if it is not installed."""
    try:
        from sidecar.shared.engine import Engine, Place  # noqa: PLC0415 - an extra, see above
    except ImportError:
        text = (
            "shared.url: the client for Valkey and Redis is not installed; run: pip install 'prosody-sidecar[shared]'"
        )
        raise StartError(text) from None
    assert shared.url is not None, "there is one to be opened"
    ca_file = None if shared.ca_file is None else str(shared.ca_file)
    return Engine(Place(shared.url, shared.namespace, password, ca_file), lambda: new_text(8))


@dataclass(frozen=True, slots=True)
class Sharing:
    """What connects this sidecar with those of other shards."""

    memory: SharedMemory
    shards: Shards


def sharing(
    settings: Settings,
    secrets: Secrets,
    cache: Cache,
    resolver: Resolver,
    orders: Orders,
    journal: Journal,
    clock: Clock,
    new_text: Callable[[int], str],
    emit: Emit,
) -> Sharing | None:
    """Nothing is opened yet. Raises StartError if the client is not installed."""
    shared = settings.shared
    if shared.url is None:
        return None
    engine = open_engine(shared, secrets.shared_password, new_text)
    member = new_text(8)
    sealer = Sealer.of(secrets.shared_key, shared.namespace, shared.muc_domains)

    async def purge(selector: Selector, change: Change, at: float) -> None:
        with suppress(DiskError):  # said by the store; it is taken out of the file as soon as that can be done
            await resolver.purge_here(selector, change, at)

    memory = SharedMemory(
        cache,
        engine,
        sealer,
        lambda: resolver.policy_for,
        resolver.asked_about,
        purge,
        resolver.persist,
        member,
        journal,
        clock,
        emit,
        new_text,
    )
    resolver.share(memory)
    shards = Shards(engine, memory, orders, sealer, member, clock, emit)
    memory.orders, orders.shards = shards, shards
    return Sharing(memory, shards)


def add_shared_gauges(watch: Watch, memory: SharedMemory) -> None:
    """Whether this sidecar knows what the others say."""
    watch("shared_in_touch", lambda: memory.in_touch)
    watch("shared_members", lambda: memory.members)
    watch("shared_strangers", lambda: memory.strangers)
    watch("shared_replicas", lambda: memory.replicas)
    watch("shared_behind", lambda: memory.contact.lag)
    watch("shared_unsaid", lambda: memory.unsaid)
