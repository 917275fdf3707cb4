"""What the engine is to have: written behind, so that no answer waits for it.

learned                  allows and configs: a copy, which another shard can ask for itself; the oldest are left out
restrictions, changes    what takes something away: until the engine has it, and again to another epoch of it
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from sidecar.clock import Clock
from sidecar.core.contact import Contact
from sidecar.core.decision_body import restricts
from sidecar.core.fences import PARTS, moved
from sidecar.core.model import Entry, Key, Lifetimes, Verdict
from sidecar.core.policy import LOBBY_TOMBSTONE, TOMBSTONE, PolicyFor
from sidecar.core.sealed import Found, Kept, Sealer, ToKeep, change_message, has_password
from sidecar.core.selection import Change, Made, Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.needs import Engine
from sidecar.decisions.to_say import Journal, ToSay
from sidecar.errors import EngineError
from sidecar.facts import Crashed, Emit

AT_ONCE = 16
"""Answers that are written at a time: on a long way, each takes as long as a message there and back."""

TOGETHER = 0.05
"""Seconds for which answers wait for each other, to be written together."""

SAY_WITHIN = 1.0
"""Seconds an order waits for the engine, while this sidecar is in touch."""

AGAIN = 0.5
"""Seconds between two tries to reach the engine."""

MOST_LEARNED = 2_000
"""Answers that may wait to be written; with more, the oldest are left out: another shard asks for them."""

MOST_RESTRICTIONS = 30_000
"""Restrictions that may wait for an engine that is away; with more, those are left out that this sidecar has forgotten
itself, as it does with what is about made-up rooms."""

PRIVATE_FOR = 86_400.0
"""Seconds for which all sidecars remember that the guests of a room share no answer."""


@dataclass(frozen=True, slots=True)
class _Learned:
    key: Key
    entry: Entry | None
    found: Found | None


@dataclass(frozen=True, slots=True)
class _Restriction:
    """A deny, an allow that leads to the lobby, or that the guests of a room are separate."""

    key: Key
    entry: Entry
    found: Found | None
    every: float
    again: bool = False


class ToEngine:
    """The queues. `run` must run beside them."""

    def __init__(
        self,
        cache: Cache,
        engine: Engine,
        sealer: Sealer,
        contact: Contact,
        policy_for: Callable[[], PolicyFor],
        member: str,
        journal: Journal,
        clock: Clock,
        emit: Emit,
    ) -> None:
        """`member` names this process."""
        self._cache = cache
        self._engine = engine
        self._sealer = sealer
        self._contact = contact
        self._policy_for = policy_for
        self._member = member
        self._clock = clock
        self._emit = emit
        self._changes = ToSay(journal, clock, self._change)
        self._restrictions: dict[Key, _Restriction] = {}
        self._learned: dict[Key, _Learned] = {}
        self._wake = asyncio.Event()
        self._repeat_wanted = False
        self._stopping = False

    @property
    def unsaid(self) -> int:
        """Restrictions and changes that the engine has not acknowledged yet."""
        return len(self._restrictions) + len(self._changes)

    @property
    def everywhere(self) -> bool:
        """Whether the engine has all changes that were made here."""
        return not self._changes

    def learned(self, key: Key, entry: Entry, found: Found | None) -> None:
        """The backend has answered. `found`: what the engine said before it was asked."""
        if restricts(entry.verdict, entry.body):
            self._restrict(_Restriction(key, _without_password(entry), found, self._every(key)))
        elif has_password(entry.body):
            self._learn(_Learned(key, None, None))
        elif found is not None:
            self._learn(_Learned(key, entry, found))

    def separate_guests(self, shared: Key, asked_at: float) -> None:
        """The backend says that the guests of a room share no answer."""
        entry = Entry(Verdict.PRIVATE, b"", asked_at, self._clock.monotonic(), Lifetimes(0, 0, PRIVATE_FOR))
        self._restrict(_Restriction(shared, entry, None, 0.0))

    def _restrict(self, restriction: _Restriction) -> None:
        self._restrictions[restriction.key] = restriction
        self._wake.set()
        if len(self._restrictions) > MOST_RESTRICTIONS:
            for _ in range(2):  # two looks for each that comes: there are no more than the cache has
                oldest = self._restrictions.pop(next(iter(self._restrictions)))
                if self._counts(oldest):
                    self._restrictions[oldest.key] = oldest

    def _counts(self, restriction: _Restriction) -> bool:
        """Whether this sidecar itself has not forgotten it."""
        entry = self._cache.get(restriction.key)
        if restriction.entry.verdict is Verdict.PRIVATE:
            return self._cache.guests_are_separate(restriction.key.room)
        return entry is not None and restricts(entry.verdict, entry.body)

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

    async def say(self, selector: Selector, change: Change, *, in_touch: bool) -> None:
        """An operator or an order has taken something away here; an engine that is in touch is waited for a moment.
        Raises DiskError if neither the engine nor the disk has it."""
        await self._changes.add(selector, change, self._wake.set, SAY_WITHIN if in_touch else 0)

    def _every(self, key: Key) -> float:
        return self._policy_for()(key.endpoint, key.room).deny.fresh

    def _matters_for(self, key: Key, entry: Entry, now: float) -> float:
        """Seconds for which a restriction still counts: also when it is no answer any more, as long as another shard
        could use an allow from before it."""
        allow = self._policy_for()(key.endpoint, key.room).allow
        return max(entry.lifetimes.total - (now - entry.asked_at), allow.total - (now - entry.settled_at))

    def repeat(self) -> None:
        """The engine may have lost what was said."""
        self._repeat_wanted = True

    def hurry(self) -> None:
        """This sidecar is in touch again as soon as all has been said."""
        self._wake.set()

    # ---- beside the listeners

    async def load(self) -> None:
        """Read the changes of an earlier process, once. Raises DiskError."""
        if not self._changes.loaded:
            await self._changes.load()
            self._wake.set()

    def stop(self) -> None:
        """Begin no further round."""
        self._stopping = True

    async def run(self) -> None:
        """Write, until cancelled or stopped."""
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._repeat_wanted:
                    self._repeat()
                await self.write_firm()
                if not self._repeat_wanted:  # what came since this round began is no repeat
                    self._contact.joined()
                await self._write_learned()
            except EngineError:
                await asyncio.sleep(AGAIN)
                self._wake.set()
            except Exception as error:  # noqa: BLE001 - a defect of ours: what is written behind is only a copy
                self._emit(Crashed("shared memory", error))
                await asyncio.sleep(AGAIN)

    def _repeat(self) -> None:
        """The engine may have lost what was said: say all of it that still counts, once all of it has been read from
        disk."""
        if not (self._cache.denies_known and self._changes.loaded):
            return
        self._repeat_wanted = False
        now = self._clock.monotonic()
        for key, entry in self._cache.items():
            if restricts(entry.verdict, entry.body) and self._matters_for(key, entry, now) > 0:
                again = _Restriction(key, _without_password(entry), None, self._every(key), again=True)
                self._restrictions.setdefault(key, again)
        self._changes.repeat(self._heard_in(self._contact.epoch))

    async def write_firm(self) -> None:
        """Changes and restrictions, until the engine has them. Raises EngineError."""
        await self._changes.write()
        await _all(AT_ONCE, map(self._bring, list(self._restrictions.values())))

    async def _bring(self, restriction: _Restriction) -> None:
        if await self._write_restriction(restriction):
            await self._write_restriction(replace(restriction, found=None, again=False))
        if self._restrictions.get(restriction.key) is restriction:
            del self._restrictions[restriction.key]

    async def _change(self, changes: Sequence[Made]) -> str:
        """Bring changes to the engine, in order; returns who has heard them."""
        return self._heard_in(await self._engine.change([self._as_said(made) for made in changes]))

    def _heard_in(self, epoch: str) -> str:
        """Who has heard what was said: those of this epoch that have the same key."""
        return f"{epoch} {self._sealer.fingerprint}"

    def _as_said(self, made: Made) -> tuple[str, list[str], bytes]:
        document = {**change_message(made.selector, made.change, self._sealer), "from": self._member}
        if made.at is not None:
            document |= self._done(self._clock.monotonic() - made.at)
        elif made.epoch:
            document |= self._done(max(0.0, self._clock.wall() - made.made_at))
        # else an earlier process has made it and never said it: the clock may have been set since, so it counts as new
        labels = [self._sealer.digest(scope) for scope in moved(made.selector)]
        return PARTS[made.change], labels, self._sealer.say(document)

    def _done(self, seconds_ago: float) -> dict[str, int]:
        """When something was done, on the engine's clock: signed, so that it cannot be said again as if it were new."""
        now_ms = self._contact.engine_ms(self._clock.monotonic())
        return {} if now_ms is None else {"at": now_ms - round(seconds_ago * 1000)}

    async def _write_restriction(self, restriction: _Restriction) -> bool:
        """Returns whether it has the fences of another epoch, so that it does not hold for a reader."""
        key, entry = restriction.key, restriction.entry
        name, labels = self._sealer.key(key), self._sealer.scopes(key)
        now = self._clock.monotonic()
        left = self._matters_for(key, entry, now)
        found = restriction.found or await self._engine.read(name, labels, patient=True)
        asked_for_ms, settled_for_ms = (round((now - at) * 1000) for at in (entry.asked_at, entry.settled_at))
        asked_ms = found.now_ms if restriction.found else found.now_ms - asked_for_ms
        kept = Kept(entry.verdict, entry.body, found.epoch, asked_ms, entry.lifetimes, found.fences)
        content = self._sealer.pack(name, kept)
        done = self._done(now - entry.settled_at)
        document = {"kind": "deny", "room": key.room, "key": name, "from": self._member, **done}
        epoch = await self._engine.deny(
            name,
            labels,
            "lobby" if entry.verdict is Verdict.ALLOW else entry.verdict.value,
            asked_for_ms,
            settled_for_ms,
            max(1000, round(left * 1000)),
            content,
            round(restriction.every * 1000),
            self._sealer.say(document, content),
            again=restriction.again,
        )
        return epoch != found.epoch

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
            self._sealer.scopes(key),
            entry.verdict.value,
            found.epoch,
            found.fences,
            found.now_ms,
            round(left * 1000),
            self._sealer.pack(name, kept),
        )


def _without_password(entry: Entry) -> Entry:
    """What may be shared of a restriction. An allow without its password is no answer any more."""
    if entry.verdict is Verdict.PRIVATE or not has_password(entry.body):
        return entry
    if entry.verdict is Verdict.DENY:
        return entry._replace(body=TOMBSTONE)
    return entry._replace(body=LOBBY_TOMBSTONE, lifetimes=Lifetimes(0, 0, 0))


async def _all(at_once: int, works: Iterable[Awaitable[None]]) -> None:
    """Do all, so many at a time, each to its end; then raise the first error."""
    waiting = iter(works)
    while batch := list(islice(waiting, at_once)):
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
