"""What the script in the engine does, in Python: a model for tests without an engine."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.core.contact import Batch
from sidecar.core.engine_clock import EngineClock, Renewal
from sidecar.core.fences import MISSING, Fence, Vector
from sidecar.core.sealed import Found

DRIFT = 1000
RESTRICTS = ("deny", "lobby", "private")


@dataclass
class Kept:
    verdict: str
    settled_ms: int
    asked_ms: int
    content: bytes
    epoch: str


@dataclass
class Room:
    """When a fence was last replaced because of a deny, and whether it has to be again."""

    at: int = 0
    waiting: bool = False
    every: int = 0


@dataclass
class Data:
    """What the engine holds."""

    generation: str = ""
    first: int = 0
    stream: list[tuple[int, bytes]] = field(default_factory=list)
    entries: dict[str, Kept] = field(default_factory=dict)
    fences: dict[str, Fence] = field(default_factory=dict)
    denied: dict[str, Room] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    """By name: when each was heard of."""
    processes: dict[str, str] = field(default_factory=dict)
    changes: dict[bytes, int] = field(default_factory=dict)
    """By message: when it was said."""
    orders: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    """By id: the number, until when, and what was said."""
    absent: dict[str, set[str]] = field(default_factory=dict)


class EngineModel:
    """One engine."""

    def __init__(self) -> None:
        self.data = Data()
        self.run = 1
        self.now_ms = 1_000_000
        self._nonces = 0

    def copy_of_data(self) -> Data:
        return copy.deepcopy(self.data)

    def nonce(self) -> str:
        self._nonces += 1
        return f"n{self._nonces}"

    def become(self, data: Data) -> None:
        """A restart, a restored backup, or a promoted replica."""
        self.data = copy.deepcopy(data)
        self.run += 1

    def trim(self, keep: int) -> None:
        cut = max(0, len(self.data.stream) - keep)
        self.data.first += cut
        del self.data.stream[:cut]

    def beat(self, position: int, most: int = 3, renewal: Renewal | None = None) -> Batch:
        epoch = self._epoch()
        if renewal is not None and renewal.epoch == epoch:
            clock = EngineClock.of(epoch)
            self.data.generation = f"{clock.name}+{clock.set_back_ms + renewal.set_back_ms}"
            epoch = self._epoch()
        first, stream = self.data.first, self.data.stream
        numbered = [(first + index, *each) for index, each in enumerate(stream) if first + index > position]
        return Batch(epoch, self.now_ms, self._tail(), tuple(numbered[:most]))

    def read(self, name: str, scopes: Sequence[str]) -> Found:
        epoch = self._epoch()
        nonce = self.nonce()
        fences = tuple(self._fence(scope, nonce) for scope in scopes)
        kept = self.data.entries.get(name)
        content, settled_ms = (kept.content, kept.settled_ms) if kept else (None, 0)
        return Found(epoch, self.now_ms, fences, content, settled_ms)

    def keep(
        self, name: str, scopes: Sequence[str], verdict: str, epoch: str, vector: Vector, asked_ms: int, content: bytes
    ) -> str:
        """An allow or a config."""
        if epoch != self._epoch():
            return "epoch"
        nonce = self.nonce()
        if tuple(self._fence(scope, nonce) for scope in scopes) != vector:
            return "fences"
        kept = self.data.entries.get(name)
        if kept is not None:
            if kept.verdict == "private" or (kept.verdict in RESTRICTS and kept.settled_ms >= asked_ms):
                return "denied"
            if kept.asked_ms > asked_ms:
                return "older"
        self.data.entries[name] = Kept(verdict, self.now_ms, asked_ms, content, epoch)
        return "kept"

    def deny(
        self,
        name: str,
        room: str,
        verdict: str,
        asked_for_ms: int,
        settled_for_ms: int,
        every: int,
        content: bytes,
        said: bytes,
        *,
        again: bool = False,
    ) -> str:
        """A deny, a lobby, or that guests are separate."""
        epoch = self._epoch()
        asked_ms, settled_ms = self.now_ms - asked_for_ms, self.now_ms - settled_for_ms
        kept = self.data.entries.get(name)
        is_allow = kept is not None and kept.verdict not in ("deny", "private")
        if kept is not None and is_allow and kept.epoch == epoch and kept.asked_ms > settled_ms:
            return "older"
        if kept is not None and kept.verdict == "private" and verdict != "private":
            return "older"
        if kept is not None and kept.verdict == "deny" and verdict == "lobby" and kept.settled_ms >= asked_ms:
            kept.settled_ms = max(kept.settled_ms, settled_ms)
            self._say(said, settled_ms)
            return "stricter"
        is_known = kept is not None and kept.epoch == epoch and kept.verdict == verdict
        if again and is_known and kept is not None and kept.settled_ms + DRIFT >= settled_ms:
            kept.settled_ms = max(kept.settled_ms, settled_ms)
            return "known"
        self.data.entries[name] = Kept(verdict, settled_ms, asked_ms, content, epoch)
        if verdict == "deny":
            self._denied(room, every)
        self._say(said, settled_ms)
        return "kept"

    def withdraw(self, name: str) -> None:
        self.data.entries.pop(name, None)

    def order(self, order_id: str, left_ms: int, said: bytes) -> None:
        self._epoch()
        number = self.data.orders[order_id][0] if order_id in self.data.orders else self._tail() + 1
        self.data.orders[order_id] = (number, self.now_ms + left_ms, said)
        self.data.absent.pop(order_id, None)
        self._say(said, self.now_ms)

    def show(self, member: str, process: str) -> str:
        """The part of a beat that shows who is there; returns the process that was there before."""
        before = self.data.processes.get(member, "")
        self.data.members[member], self.data.processes[member] = self.now_ms, process
        return before

    def present(self, ages_ms: Mapping[str, int]) -> dict[str, tuple[int, str]]:
        """All members: the age, and the process."""
        self._epoch()
        for member, age_ms in ages_ms.items():
            at = self.now_ms - age_ms
            self.data.members[member] = max(at, self.data.members.get(member, at))
        known = self.data.members.items()
        return {member: (self.now_ms - at, self.data.processes.get(member, "")) for member, at in known}

    def outcome(self, order_id: str, said: bytes, absent_at: str, complete_in: str) -> str:
        epoch = self._epoch()
        if order_id not in self.data.orders:
            return "over"
        if absent_at and complete_in != epoch:
            return "incomplete"
        if absent_at:
            absent = self.data.absent.setdefault(order_id, set())
            absent.add(absent_at)
            if not absent >= self.data.members.keys():
                return "waits"
        self._say(said, self.now_ms)
        return "said"

    def over(self, order_id: str) -> None:
        self.data.orders.pop(order_id, None)
        self.data.absent.pop(order_id, None)

    def orders(self) -> list[bytes]:
        self._epoch()
        self.data.orders = {each: order for each, order in self.data.orders.items() if order[1] >= self.now_ms}
        return [said for _, _, said in sorted(self.data.orders.values())]

    def change(self, part: str, scopes: Iterable[str], said: bytes) -> None:
        self._epoch()
        for scope in scopes:
            if scope in self.data.fences:
                self.data.fences[scope] = self.data.fences[scope]._replace(**{part: self.nonce()})
        self.data.changes[said] = self.now_ms
        self._say(said, self.now_ms)

    def changes(self) -> list[tuple[int, bytes]]:
        """Those of the last day, oldest first."""
        self._epoch()
        return sorted((at_ms, said) for said, at_ms in self.data.changes.items())

    def _epoch(self) -> str:
        if not self.data.generation:
            self.data.generation = self.nonce()
            self.data.first, self.data.stream = 1, [(self.now_ms, b"")]
        return f"{self.run}-{self.data.generation}"

    def _tail(self) -> int:
        return self.data.first + len(self.data.stream) - 1

    def _say(self, said: bytes, at_ms: int) -> None:
        self.data.stream.append((at_ms, said))

    def _fence(self, scope: str, nonce: str) -> Fence:
        fence = self.data.fences.setdefault(scope, Fence(nonce, nonce, nonce, nonce))
        waits = self.data.denied.get(scope)
        if waits is not None and waits.waiting and self.now_ms - waits.at >= waits.every:
            fence = self.data.fences[scope] = fence._replace(denied=nonce)
            self.data.denied[scope] = Room(self.now_ms, waiting=False, every=waits.every)
        return fence

    def _denied(self, room: str, every: int) -> None:
        fence = self.data.fences.get(room, MISSING)
        if fence is MISSING:
            return
        last = self.data.denied.get(room)
        if last is None or self.now_ms - last.at >= every:
            self.data.fences[room] = fence._replace(denied=self.nonce())
            self.data.denied[room] = Room(self.now_ms, waiting=False, every=every)
        else:
            self.data.denied[room] = Room(last.at, waiting=True, every=every)
