"""The memory that several sidecars share.

recall    from_engine.py             read on a miss, before the backend is asked
learned   to_engine.py               written behind
listen    engine.beat -> contact, others -> cache
                      -> orders      what other shards say about orders (control/shards.py)

The engine has no authority. Whatever it does, the questions are answered as without it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from sidecar.clock import Clock
from sidecar.core.contact import Contact
from sidecar.core.engine_clock import Renewal
from sidecar.core.members import Process
from sidecar.core.model import Endpoint, Entry, Key
from sidecar.core.policy import PolicyFor
from sidecar.core.sealed import Forged, Found, Sealer, done_ms
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.from_engine import FromEngine
from sidecar.decisions.membership import Membership
from sidecar.decisions.needs import Engine, Orders
from sidecar.decisions.others import Others
from sidecar.decisions.to_engine import AGAIN, ToEngine
from sidecar.decisions.to_say import Journal
from sidecar.errors import DiskError, EngineError
from sidecar.facts import Crashed, Emit, SharedChanged

NAMED_WITHIN = 2.0
"""Seconds to wait for a slow disk before this shard shows itself under another name, and hears only what is new."""

KEPT_EVERY = 5.0
"""Seconds from one note on disk of what was heard to the next. What was heard since is heard again after a restart."""

AT_A_STRETCH = 0.005
"""Seconds of work on messages after which questions have their turn: after a restart there may be many messages."""


class SharedMemory:
    """One sidecar's part of it. `run` must run beside it."""

    def __init__(
        self,
        cache: Cache,
        engine: Engine,
        sealer: Sealer,
        policy_for: Callable[[], PolicyFor],
        asked_about: Callable[[str], Iterable[Key]],
        purge: Callable[[Selector, Change, float], Awaitable[Any]],
        persist: Callable[[], Awaitable[None]],
        member: str,
        journal: Journal,
        clock: Clock,
        emit: Emit,
        new_text: Callable[[int], str],
    ) -> None:
        """`asked_about`: the keys of a room that the backend is being asked about; `purge` changes the memory of this
        sidecar alone, as of an instant, and raises nothing; `persist` returns when the disk has all that was taken away
        by now, or raises DiskError; `member` names this process; `new_text(n)` returns n random bytes in hex."""
        self.orders: Orders | None = None
        self.contact = cache.contact = Contact()
        self._engine = engine
        self._sealer = sealer
        self._policy_for = policy_for
        self._purge = purge
        self._persist = persist
        self._member = member
        self._journal = journal
        self._clock = clock
        self._emit = emit
        self._others = Others(cache, sealer, asked_about)
        self._from_engine = FromEngine(cache, engine, sealer, self.contact, clock, emit)
        self._to_engine = ToEngine(cache, engine, sealer, self.contact, policy_for, member, journal, clock, emit)
        own = Process(round(clock.wall() * 1000), member, sealer.fingerprint)
        self._membership = Membership(engine, journal, own, new_text, clock, emit)
        self._named = asyncio.Event()
        self._heard = "", 0
        """Up to where what was heard is on disk: the epoch and the position."""
        self._unreadable = False
        """A message was not understood, and no other one since: this sidecar may have another key. With the right one,
        after a restart, it reads on from before that message."""
        self._resuming = False
        """Messages come that an earlier process may have heard."""
        self._missed_changes = False
        """What was taken away elsewhere may be in no message that comes: it was said before this sidecar came here."""
        self._was_in_touch: bool | None = None
        self._stopping = False
        self._purging: set[asyncio.Future[Any]] = set()

    # ---- for operators

    @property
    def members(self) -> int:
        """Sidecars that share the memory now, this one included."""
        return self._engine.members

    @property
    def strangers(self) -> int:
        """Those of them that have another key, or other domains: nothing is shared with them."""
        return self._membership.strangers

    @property
    def replicas(self) -> int:
        """Replicas of the engine."""
        return self._engine.replicas

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know, although it does no harm now."""
        return self._membership.notes

    def document(self) -> dict[str, Any]:
        """What `status` shows."""
        return {
            "in_touch": self.in_touch,
            "members": self.members,
            "strangers": self.strangers,
            "replicas": self.replicas,
            "behind": self.contact.lag,
            "unsaid": self.unsaid,
        }

    # ---- for orders

    @property
    def shard(self) -> str:
        """The name of this shard, which outlives the process as soon as it was read from disk."""
        return self._membership.shard

    @property
    def complete_in(self) -> str:
        """The epoch of the engine that knows all shards that may have rooms; empty: nobody can say."""
        return self._membership.complete_in

    # ---- for questions

    @property
    def in_touch(self) -> bool:
        """Whether this sidecar knows what the others say."""
        return self.contact.in_touch(self._clock.monotonic())

    @property
    def unsaid(self) -> int:
        """Restrictions and changes that the engine has not acknowledged yet."""
        return self._to_engine.unsaid

    @property
    def engine_ms(self) -> int | None:
        """The engine's clock, as far as it is known: Unix milliseconds."""
        return self.contact.engine_ms(self._clock.monotonic())

    @property
    def everywhere(self) -> bool:
        """Whether the engine has all changes that were made here."""
        return self._to_engine.everywhere

    async def recall(self, key: Key) -> Found | None:
        """Bring what the others know about a key into the cache. None: the engine was not asked, or is too slow."""
        found = await self._from_engine.recall(key)
        self._others.recall(key)  # also what was heard while the engine was read
        return found

    def learned(self, key: Key, entry: Entry, found: Found | None) -> None:
        """The backend has answered. `found`: what the engine said before it was asked."""
        self._to_engine.learned(key, entry, found)

    def separate_guests(self, shared: Key, asked_at: float) -> None:
        """The backend says that the guests of a room share no answer."""
        self._to_engine.separate_guests(shared, asked_at)

    def withdraw(self, key: Key) -> None:
        """The backend says that what it answered earlier is not to be remembered."""
        self._to_engine.withdraw(key)

    async def say(self, selector: Selector, change: Change) -> None:
        """An operator or an order has taken something away here; the engine is waited for a moment. Raises DiskError if
        neither the engine nor the disk has it."""
        now = self._clock.monotonic()
        if change is Change.DROP:
            self._others.dropped(selector, now, now)
        await self._to_engine.say(selector, change, in_touch=self.in_touch)

    # ---- beside the listeners

    async def stop(self) -> None:
        """Begin no further round. The client of the engine can take a cancellation for a failure of its own."""
        self._stopping = True
        self._to_engine.stop()

    async def close(self) -> None:
        """Close what `run` has opened, after a last try to say what is unsaid."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._to_engine.write_firm()
        await self._engine.close()

    async def run(self) -> None:
        """Listen to the others and write behind, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load())
            group.create_task(self._listen())
            group.create_task(self._keep_position())
            group.create_task(self._to_engine.run())

    async def _load(self) -> None:
        """What an earlier process had to say, its name, and what it has heard."""
        while True:
            try:
                await self._membership.load()
                epoch, position = await self._journal.heard()
                if epoch and not self.contact.epoch:
                    self.contact.resume(epoch, position, self._clock.monotonic())
                    self._heard = epoch, position
                    self._resuming = True
                self._named.set()
                return await self._to_engine.load()
            except DiskError:
                await asyncio.sleep(1.0)

    async def _keep_position(self) -> None:
        """What was heard at the last time is on disk before the position is."""
        kept = "", 0
        while True:
            if self._heard[0] and self._heard != kept:
                with contextlib.suppress(DiskError):  # said by the store
                    heard = self._heard
                    await self._persist()
                    await self._journal.hear(*heard)
                    kept = heard
            await asyncio.sleep(KEPT_EVERY if self._heard[0] else AGAIN)
            if not (self._resuming or self._purging or self._unreadable or self.contact.lag):
                self._heard = self.contact.epoch, self.contact.position

    async def _listen(self) -> None:
        renewal = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMED_WITHIN):
                await self._named.wait()
        while not self._stopping:
            try:
                renewal = await self._hear(renewal)
                await self._engine.wait_for_message(self.contact.position)
            except EngineError as error:
                self._note(str(error))
                await asyncio.sleep(AGAIN)
            except Exception as error:  # noqa: BLE001 - a defect of ours: out of touch, as with any other failure
                self._emit(Crashed("shared memory", error))
                await asyncio.sleep(AGAIN)

    async def _hear(self, renewal: Renewal | None) -> Renewal | None:
        await self._catch_up()
        sent_at = self._clock.monotonic()
        batch = await self._membership.beat(self.contact.position, renewal)
        taken = self.contact.take(batch, sent_at, self._clock.monotonic())
        if taken.to_be_said_again or self._resuming:
            self._to_engine.repeat()
        if taken.lost:
            self._heard = self.contact.epoch, self.contact.position
            self._missed_changes = True
        if taken.lost or self._resuming:
            self._to_engine.hurry()
            if self.orders is not None:
                self.orders.lost()
            if taken.lost and self._was_in_touch:
                self._note(taken.lost)
        await self._carry_out_all(taken.messages, batch.now_ms)
        await self._catch_up()
        self._others.after_loading()
        self._resuming = self._resuming and self.contact.lag > 0
        self._note("")
        if await self._membership.beaten(batch.epoch) and self.orders is not None:
            self.orders.lost()  # what was said under the old name may count for the other shard
        return taken.renewal

    async def _catch_up(self) -> None:
        """What was said with another key, before all had a new one, is left out."""
        if self._missed_changes:
            now_ms, changes = await self._engine.changes()
            await self._carry_out_all([each for each in changes if self._sealer.has_sealed(each[1])], now_ms)
            self._missed_changes = False

    async def _carry_out_all(self, messages: Iterable[tuple[int, bytes]], now_ms: int) -> None:
        begun = self._clock.monotonic()
        for at_ms, content in messages:
            await self._carry_out(content, at_ms, now_ms)
            if self._clock.monotonic() - begun > AT_A_STRETCH:
                await asyncio.sleep(0)
                begun = self._clock.monotonic()

    async def _carry_out(self, content: bytes, at_ms: int, now_ms: int) -> None:
        if not content:
            return
        try:
            document, attached = self._sealer.hear(content)
            if document.get("from") == self._member:
                return
            self._unreadable = False
            match document.get("kind"):
                case "deny":
                    every = self._policy_for()(Endpoint.VALIDATE_ACCESS, str(document.get("room"))).deny.fresh
                    settled_ms = done_ms(document, at_ms)
                    self._others.restricted(document, attached, settled_ms, now_ms, self._clock.monotonic(), every)
                case "change":
                    # The memory is changed in the first step of the task; a slow disk is not waited for.
                    now, (selector, change) = self._clock.monotonic(), self._others.change_of(document)
                    at = now - max(0, now_ms - done_ms(document, at_ms)) / 1000
                    if change is Change.DROP:
                        self._others.dropped(selector, at, now)
                    purging = asyncio.ensure_future(self._purge(selector, change, at))
                    self._purging.add(purging)
                    purging.add_done_callback(self._purging.discard)
                    await asyncio.sleep(0)
                case "order" | "outcome" if self.orders is not None and not self._resuming:
                    self.orders.heard(document, now_ms)
        except Forged:
            self._unreadable = True
            self._from_engine.forged()
            self.contact.missed(self._clock.monotonic())
        except Exception as error:  # noqa: BLE001 - a defect of ours: the messages behind this one count all the same
            self._emit(Crashed("shared memory", error))
            self.contact.missed(self._clock.monotonic())

    def _note(self, why_not: str) -> None:
        now_in_touch = self.in_touch
        if now_in_touch != self._was_in_touch and (now_in_touch or why_not):
            self._was_in_touch = now_in_touch
            self._emit(SharedChanged(now_in_touch, "" if now_in_touch else why_not))
