"""The memory that several sidecars share, made from the settings; None where it is off.

The client of the engine is imported only here and only if it is needed: it is an extra of the package.
"""

from __future__ import annotations

from contextlib import suppress

from sidecar.clock import Clock
from sidecar.config.models import Settings
from sidecar.core.sealed import Sealer
from sidecar.core.selection import Change, Selector
from sidecar.daemon.current import Secrets
from sidecar.daemon.status import Watch
from sidecar.decisions.cache import Cache
from sidecar.decisions.resolver import Resolver
from sidecar.decisions.shared_memory import NewText, SharedMemory
from sidecar.errors import DiskError, StartError
from sidecar.facts import Emit


def shared_memory(
    settings: Settings,
    secrets: Secrets,
    cache: Cache,
    resolver: Resolver,
    clock: Clock,
    new_text: NewText,
    emit: Emit,
) -> SharedMemory | None:
    """Nothing is opened yet. Raises StartError if the client is not installed."""
    shared = settings.shared
    if shared.url is None:
        return None
    try:
        from sidecar.shared.engine import Engine, Place  # noqa: PLC0415 - an extra, see above
    except ImportError:
        text = (
            "shared.url: the client for Valkey and Redis is not installed; run: pip install 'prosody-sidecar[shared]'"
        )
        raise StartError(text) from None
    ca_file = None if shared.ca_file is None else str(shared.ca_file)
    place = Place(shared.url, shared.namespace, secrets.shared_password, ca_file)
    member = new_text(8)
    sealer = Sealer(secrets.shared_key, tuple(domain.lower() for domain in shared.muc_domains))

    async def purge(selector: Selector, change: Change) -> None:
        with suppress(DiskError):  # said by the store; it is taken out of the file as soon as that can be done
            await resolver.purge_here(selector, change)

    memory = SharedMemory(
        cache,
        Engine(place, lambda: new_text(8), member),
        sealer,
        lambda: resolver.policy_for,
        resolver.asked_about,
        purge,
        member,
        clock,
        emit,
    )
    resolver.share(memory)
    return memory


def add_shared_gauges(watch: Watch, memory: SharedMemory) -> None:
    """Whether this sidecar knows what the others say."""
    watch("shared_in_touch", lambda: memory.in_touch)
    watch("shared_members", lambda: memory.members)
    watch("shared_replicas", lambda: memory.replicas)
    watch("shared_behind", lambda: memory.contact.lag)
    watch("shared_unsaid", lambda: memory.unsaid)
