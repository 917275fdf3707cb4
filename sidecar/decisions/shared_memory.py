"""The memory that several sidecars share: read on a miss, written behind, heard of in a stream.

recall    engine.read -> cache      before the backend is asked, for at most 20 ms
learned   denied   to_say           queues: what was learned is written by `run`, and nobody waits for it
listen    engine.beat -> contact, others -> cache
                      -> orders     what other shards say about orders (control/shards.py)

The engine has no authority. Whatever it does, the questions are answered as without it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sidecar.clock import Clock
from sidecar.core.contact import PATIENCE, Contact, Trust
from sidecar.core.fences import PARTS, moved, scopes
from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict
from sidecar.core.policy import TOMBSTONE, PolicyFor
from sidecar.core.sealed import Forged, Found, Kept, Sealer, ToKeep, has_password, masked, usable
from sidecar.core.selection import Change, Made, Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.needs import Engine, Orders
from sidecar.decisions.others import Others, take
from sidecar.decisions.single_flight import Call, Pending, SingleFlight
from sidecar.decisions.to_say import Journal, ToSay
from sidecar.errors import DiskError, EngineError
from sidecar.facts import Crashed, Emit, SharedAsked, SharedChanged

LATE = 0.01
"""Seconds by which this process may be late without being called so."""

AT_ONCE = 16
"""Answers that are written at a time: on a long way, each takes as long as a message there and back."""

TOGETHER = 0.05
"""Seconds for which answers wait for each other, to be written together."""

SAY_WITHIN = 1.0
"""Seconds an order waits for the engine, while this sidecar is in touch."""

AGAIN = 0.5
"""Seconds between two tries to reach the engine."""

NAMED_WITHIN = 2.0
"""Seconds to wait for a slow disk before this shard shows itself under another name."""

MOST_LEARNED = 2_000
"""Answers that may wait to be written; with more, the oldest are left out: another shard asks for them."""

PRIVATE_FOR = 86_400.0
"""Seconds for which all sidecars remember that the guests of a room share no answer."""


@dataclass(frozen=True, slots=True)
class _Learned:
    key: Key
    entry: Entry | None
    found: Found | None


@dataclass(frozen=True, slots=True)
class _Denied:
    key: Key
    entry: Entry
    found: Found | None
    every: float
    again: bool = False


class SharedMemory:
    """One sidecar's part of it. `run` must run beside it."""

    def __init__(
        self,
        cache: Cache,
        engine: Engine,
        sealer: Sealer,
        policy_for: Callable[[], PolicyFor],
        asked_about: Callable[[str], Iterable[Key]],
        purge: Callable[[Selector, Change], Awaitable[Any]],
        member: str,
        journal: Journal,
        clock: Clock,
        emit: Emit,
    ) -> None:
        """`asked_about`: the keys of a room that the backend is being asked about; `purge` changes the memory of this
        sidecar alone, and raises nothing; `member` names this process."""
        self.orders: Orders | None = None
        self.shard = member
        """The name of this shard, which outlives the process as soon as it was read from disk."""
        self.contact = cache.contact = Contact()
        self._cache = cache
        self._engine = engine
        self._sealer = sealer
        self._policy_for = policy_for
        self._purge = purge
        self._member = member
        self._journal = journal
        self._to_say = ToSay(journal, clock, self._change)
        self._clock = clock
        self._emit = emit
        self._others = Others(cache, sealer, asked_about)
        self._reads: SingleFlight[Key, Found | None] = SingleFlight(lambda error: emit(Crashed("shared memory", error)))
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._trust = Trust()
        self._attempt: Call[Found | None] | None = None
        self._wake = asyncio.Event()
        self._learned: dict[Key, _Learned] = {}
        self._denied: dict[Key, _Denied] = {}
        self._named = asyncio.Event()
        self._repeat_wanted = False
        self._was_in_touch: bool | None = None
        self._stopping = False
        self._purging: set[asyncio.Future[Any]] = set()

    # ---- for operators

    @property
    def members(self) -> int:
        """Sidecars that share the memory now, this one included."""
        return self._engine.members

    @property
    def replicas(self) -> int:
        """Replicas of the engine."""
        return self._engine.replicas

    def document(self) -> dict[str, Any]:
        """What `status` shows."""
        return {
            "in_touch": self.in_touch,
            "members": self.members,
            "replicas": self.replicas,
            "behind": self.contact.lag,
            "unsaid": self.unsaid,
        }

    # ---- for questions

    @property
    def in_touch(self) -> bool:
        """Whether this sidecar knows what the others say."""
        return self.contact.in_touch(self._clock.monotonic())

    @property
    def unsaid(self) -> int:
        """Denies and changes that the engine has not acknowledged yet."""
        return len(self._denied) + len(self._to_say)

    @property
    def engine_ms(self) -> int | None:
        """The engine's clock, as far as it is known: Unix milliseconds."""
        return self.contact.engine_ms(self._clock.monotonic()) if self.contact.epoch else None

    @property
    def everywhere(self) -> bool:
        """Whether the engine has all changes that were made here."""
        return not self._to_say

    async def recall(self, key: Key) -> Found | None:
        """Bring what the others know about a key into the cache. None: the engine was not asked, or is too slow.

        Many questions at once wait for their turn, since more reads at once than connections would all be too late.
        """
        async with self._turns:
            until = self._clock.monotonic() + PATIENCE
            call = self._reads.get(key) or await self._start(key, until)
            return None if call is None else await self._result(call, until)

    async def _start(self, key: Key, until: float) -> Call[Found | None] | None:
        """Ask the engine, unless it is left alone. A try whether it works again is for all questions that come
        meanwhile."""
        now = self._clock.monotonic()
        if not self._trust.allows(now):
            if self._attempt is None or self._attempt.task.done():
                return None
            await self._attempt.within(until - now)
            now = self._clock.monotonic()
            if not self._trust.allows(now):
                return None
        call = self._reads.get(key) or self._reads.start(key, now, self._read(key))
        if self._trust.is_trying:
            self._attempt = call
        return call

    async def _result(self, call: Call[Found | None], until: float) -> Found | None:
        found = await call.within(until - self._clock.monotonic())
        now = self._clock.monotonic()
        if isinstance(found, Pending) and now > until + LATE:
            found = await _after_what_is_ready(call)
        if isinstance(found, Pending):
            self._trust.bad(now)  # at once, so that those who wait for their turn need not wait for this engine
            return None
        return found

    async def _read(self, key: Key) -> Found | None:
        name, begun = self._sealer.key(key), self._clock.monotonic()
        try:
            found = await self._engine.read(name, self._scopes(key))
        except EngineError:
            self._trust.bad(self._clock.monotonic())
            self._emit(SharedAsked("failed"))
            return None
        now = self._clock.monotonic()
        if now - begun <= PATIENCE + LATE:
            self._trust.good()
        if found.content is None:
            self._emit(SharedAsked("miss"))
            return found
        try:
            kept = self._sealer.unpack(name, found.content)
        except Forged:
            self._trust.bad(now, forged=True)
            self._emit(SharedAsked("forged"))
            return None
        touch = self.contact.in_touch(now) and found.epoch == self.contact.epoch
        entry = usable(kept, found, now, in_touch=touch)
        if entry is None:
            self._emit(SharedAsked("outdated"))
        else:
            take(self._cache, key, entry)
            self._emit(SharedAsked("suspect" if entry.suspect else "hit"))
        return found

    def learned(self, key: Key, entry: Entry, found: Found | None) -> None:
        """The backend has answered. `found`: what the engine said before it was asked."""
        if entry.verdict is Verdict.DENY:
            every = self._policy_for()(key.endpoint, key.room).deny.fresh
            self._denied[key] = _Denied(key, entry, found, every)
            self._wake.set()
        elif has_password(entry.body):
            self._learn(_Learned(key, None, None))
        elif found is not None:
            self._learn(_Learned(key, entry, found))

    def separate_guests(self, shared: Key, asked_at: float) -> None:
        """The backend says that the guests of a room share no answer."""
        entry = Entry(Verdict.PRIVATE, b"", asked_at, self._clock.monotonic(), Lifetimes(0, 0, PRIVATE_FOR))
        self._denied[shared] = _Denied(shared, entry, None, 0.0)
        self._wake.set()

    def withdraw(self, key: Key) -> None:
        """The backend says that what it answered earlier is not to be remembered."""
        self._learn(_Learned(key, None, None))

    def _learn(self, learned: _Learned) -> None:
        if not self._learned:
            asyncio.get_running_loop().call_later(TOGETHER, self._wake.set)
        self._learned.pop(learned.key, None)
        self._learned[learned.key] = learned
        if len(self._learned) > MOST_LEARNED:
            del self._learned[next(iter(self._learned))]

    async def say(self, selector: Selector, change: Change) -> None:
        """An operator or an order has taken something away here; the engine is waited for a moment. Raises DiskError if
        neither the engine nor the disk has it."""
        await self._to_say.add(selector, change, self._wake.set, SAY_WITHIN if self.in_touch else 0)

    # ---- beside the listeners

    async def stop(self) -> None:
        """Begin no further round. The client of the engine can take a cancellation for a failure of its own."""
        self._stopping = True

    async def close(self) -> None:
        """Close what `run` has opened, after a last try to say what is unsaid."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._write_firm()
        await self._engine.close()

    async def run(self) -> None:
        """Listen to the others and write behind, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load())
            group.create_task(self._listen())
            group.create_task(self._write())

    async def _load(self) -> None:
        """What an earlier process had to say, and its name."""
        while not self._to_say.loaded:
            try:
                self.shard = await self._journal.name(self._member)
                self._named.set()
                await self._to_say.load()
            except DiskError:
                await asyncio.sleep(1.0)
        self._wake.set()

    async def _listen(self) -> None:
        renew = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMED_WITHIN):
                await self._named.wait()
        while not self._stopping:
            try:
                renew = await self._hear(renew)
                await self._engine.wait_for_message(self.contact.position)
            except EngineError as error:
                self._note(str(error))
                await asyncio.sleep(AGAIN)
            except Exception as error:  # noqa: BLE001 - a defect of ours: out of touch, as with any other failure
                self._emit(Crashed("shared memory", error))
                await asyncio.sleep(AGAIN)

    async def _hear(self, renew: str) -> str:
        sent_at = self._clock.monotonic()
        batch = await self._engine.beat(self.contact.position, self.shard, renew)
        taken = self.contact.take(batch, sent_at, self._clock.monotonic())
        if taken.to_be_said_again:
            self._repeat_wanted = True
        if taken.lost:
            self._wake.set()
            if self.orders is not None:
                self.orders.lost()
            if self._was_in_touch:
                self._note(taken.lost)
        for at_ms, content in taken.messages:
            await self._carry_out(content, at_ms, batch.now_ms)
        self._note("")
        return batch.epoch if taken.renew else ""

    async def _carry_out(self, content: bytes, at_ms: int, now_ms: int) -> None:
        if not content:
            return
        try:
            document, attached = self._sealer.hear(content)
            if document.get("from") == self._member:
                return
            match document.get("kind"):
                case "deny":
                    every = self._policy_for()(Endpoint.VALIDATE_ACCESS, str(document.get("room"))).deny.fresh
                    self._others.denied(document, attached, at_ms, now_ms, self._clock.monotonic(), every)
                case "change":
                    # The memory is changed in the first step of the task; a slow disk is not waited for.
                    purging = asyncio.ensure_future(self._purge(*self._others.change_of(document)))
                    self._purging.add(purging)
                    purging.add_done_callback(self._purging.discard)
                    await asyncio.sleep(0)
                case "order" | "outcome" if self.orders is not None:
                    self.orders.heard(document, attached, now_ms)
        except Forged:
            self._trust.bad(self._clock.monotonic(), forged=True)
            self._emit(SharedAsked("forged"))

    def _repeat(self) -> None:
        """The engine may have lost what was said: say all of it that still counts, once all of it has been read from
        disk."""
        if not (self._cache.denies_known and self._to_say.loaded):
            return
        self._repeat_wanted = False
        now = self._clock.monotonic()
        for key, entry in self._cache.items():
            if entry.verdict is Verdict.DENY and now - entry.asked_at < entry.lifetimes.total:
                every = self._policy_for()(key.endpoint, key.room).deny.fresh
                self._denied.setdefault(key, _Denied(key, entry, None, every, again=True))
        self._to_say.repeat(self.contact.epoch)

    def _note(self, why_not: str) -> None:
        now_in_touch = self.in_touch
        if now_in_touch != self._was_in_touch and (now_in_touch or why_not):
            self._was_in_touch = now_in_touch
            self._emit(SharedChanged(now_in_touch, "" if now_in_touch else why_not))

    async def _write(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._repeat_wanted:
                    self._repeat()
                await self._write_firm()
                if not self._repeat_wanted:  # what came since this round began is no repeat
                    self.contact.joined()
                await self._write_learned()
            except EngineError:
                await asyncio.sleep(AGAIN)
                self._wake.set()
            except Exception as error:  # noqa: BLE001 - a defect of ours: what is written behind is only a copy
                self._emit(Crashed("shared memory", error))
                await asyncio.sleep(AGAIN)

    async def _write_firm(self) -> None:
        """Changes and denies, until the engine has them."""
        await self._to_say.write()
        await _all(AT_ONCE, map(self._bring, list(self._denied.values())))

    async def _bring(self, denied: _Denied) -> None:
        await self._write_deny(denied)
        if self._denied.get(denied.key) is denied:
            del self._denied[denied.key]

    async def _change(self, changes: Sequence[Made]) -> str:
        """Bring changes to the engine, in order; returns its epoch."""
        return await self._engine.change([self._as_said(made) for made in changes])

    def _as_said(self, made: Made) -> tuple[str, list[str], bytes]:
        document = {**masked(made.selector, made.change, self._sealer), "from": self._member}
        labels = [self._sealer.digest(scope) for scope in moved(made.selector)]
        return PARTS[made.change], labels, self._sealer.say(document)

    async def _write_deny(self, denied: _Denied) -> None:
        key, entry = denied.key, denied.entry
        name, labels = self._sealer.key(key), self._scopes(key)
        lifetimes = entry.lifetimes
        now = self._clock.monotonic()
        left = lifetimes.total - (now - entry.asked_at)
        found = denied.found or await self._engine.read(name, labels, patient=True)
        asked_for_ms, settled_for_ms = (round((now - at) * 1000) for at in (entry.asked_at, entry.settled_at))
        asked_ms = found.now_ms if denied.found else found.now_ms - asked_for_ms
        body = TOMBSTONE if has_password(entry.body) and entry.verdict is Verdict.DENY else entry.body
        kept = Kept(entry.verdict, body, found.epoch, asked_ms, lifetimes, found.fences)
        content = self._sealer.pack(name, kept)
        document = {"kind": "deny", "room": key.room, "key": name, "from": self._member}
        await self._engine.deny(
            name,
            labels,
            entry.verdict.value,
            asked_for_ms,
            settled_for_ms,
            max(1000, round(left * 1000)),
            content,
            round(denied.every * 1000),
            self._sealer.say(document, content),
            again=denied.again,
        )

    async def _write_learned(self) -> None:
        """A few of them: what comes without end must not delay a deny, or being in touch again."""
        batch = list(islice(self._learned.values(), AT_ONCE))
        now = self._clock.monotonic()
        if answers := [answer for each in batch if (answer := self._to_keep(each, now)) is not None]:
            await self._engine.keep(answers)
        for each in batch:
            if each.entry is None:
                await self._engine.withdraw(self._sealer.key(each.key))
            if self._learned.get(each.key) is each:
                del self._learned[each.key]
        if self._learned:
            self._wake.set()

    def _to_keep(self, learned: _Learned, now: float) -> ToKeep | None:
        """None: it is withdrawn, or has expired."""
        key, entry, found = learned.key, learned.entry, learned.found
        if entry is None or found is None or (left := entry.lifetimes.total - (now - entry.asked_at)) <= 0:
            return None
        name = self._sealer.key(key)
        kept = Kept(entry.verdict, entry.body, found.epoch, found.now_ms, entry.lifetimes, found.fences)
        return ToKeep(
            name,
            self._scopes(key),
            entry.verdict.value,
            found.epoch,
            found.fences,
            found.now_ms,
            round(left * 1000),
            self._sealer.pack(name, kept),
        )

    def _scopes(self, key: Key) -> list[str]:
        return [self._sealer.digest(scope) for scope in scopes(key)]


async def _all(at_once: int, works: Iterable[Awaitable[None]]) -> None:
    """Do all, so many at a time, each to its end; then raise the first error."""
    waiting = iter(works)
    while batch := list(islice(waiting, at_once)):
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


async def _after_what_is_ready(call: Call[Found | None]) -> Found | Pending | None:
    """The result, if it has arrived and this process was only too late to read it. Nothing more is waited for."""
    for _ in range(20):
        if call.task.done():
            break
        await asyncio.sleep(0)
    return await call.within(0)
