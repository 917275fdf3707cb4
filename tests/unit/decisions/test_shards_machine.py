"""Every history of several sidecars with one shared memory, on the pure core, the cache, and a model of the engine.

Sidecars are cut off and come back, questions are under way while others are denied or kicked, and the engine restarts
empty, falls back to an old copy of its data, loses messages, answers with what it said before, or has its clock set.
`SHARDS_STEPS=100000` makes as many steps.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sidecar.core.breaker import Permit
from sidecar.core.contact import STEP, UNHEARD, Batch, Contact
from sidecar.core.decision_body import strictness
from sidecar.core.engine_clock import EngineClock
from sidecar.core.fences import PARTS, Standing, moved, scopes, standing
from sidecar.core.model import Entry, Key, Lifetimes, Query, Replied, Verdict
from sidecar.core.policy import Act, settle
from sidecar.core.sealed import Found, Kept, Sealer, change_message, usable
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.changes import Changes
from sidecar.decisions.others import Others, take
from sidecar.decisions.view import look
from tests.unit.builders import a_key, a_policy
from tests.unit.decisions.engine_model import Data, EngineModel

STEP_COUNT = 80
SETTINGS = settings(
    max_examples=max(100, int(os.environ.get("SHARDS_STEPS", "0")) // STEP_COUNT),
    stateful_step_count=STEP_COUNT,
    deadline=None,
)

KEYS = [a_key("standup", "jid ann@example.org"), a_key("standup", 'id "bob"')]
POLICY = a_policy(Lifetimes(12, 3, 60), Lifetimes(3, 0, 60))
EVERY = POLICY.deny.fresh
SEALER = Sealer(b"secret")
SHARDS = range(2)


class Story(NamedTuple):
    """A sidecar does not hear for a moment, and what happens meanwhile."""

    deaf: int
    known_to: str
    """Who has an allow before."""
    change: Change | str
    """What takes somebody away, if anything does."""
    trouble: str
    """Of the engine, after this or before it (`failover`, when all is said to a new epoch which the deaf one has not
    met); or `replaced`: in place of the deaf one, another sidecar starts, which knows nothing."""
    under_way: bool
    """Whether the backend is being asked by the deaf one."""
    more: bool
    """Whether there is another message afterwards."""
    cut: bool
    """Whether the other one is cut off afterwards."""
    up: bool
    """Whether the backend answers afterwards."""


STORIES = [
    Story(*each)  # type: ignore[arg-type]
    for each in product(
        SHARDS,
        ("both", "the other", "nobody"),
        ("", "deny", "lobby", Change.DROP, Change.REVOKE),
        ("", "old copy", "restart", "emptied", "evicted", "trimmed", "back", "forth", "replaced", "failover"),
        *((False, True),) * 4,
    )
]


@dataclass(frozen=True)
class Word:
    """What the backend said, between two instants of the world's clock."""

    key: Key
    level: int
    """0: allowed; 1: in the lobby; 2: denied."""
    asked: float


@dataclass
class Denied:
    """A deny, a lobby, a kick or a purge: less strict answers to what was asked before `at` are out of date."""

    key: Key
    at: float
    asked: float = 0.0
    said_at: float = float("inf")
    """When the engine acknowledged it."""
    changed_in: str = ""
    """The epoch of the engine that has it among the changes of the last day."""
    known_to: set[int] = field(default_factory=set)
    level: int = 2
    strictly: bool = True
    """Known to a sidecar, it is never masked. A purge for safety only is."""


@dataclass
class Call:
    key: Key
    asked: float
    level: int
    found: Found | None


class Shard:
    """One sidecar, without anything that waits."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.offset = 1000.0 * (number + 1)
        self.reachable = True
        self.cache = Cache(Limits())
        self.contact = self.cache.contact = Contact()
        self.calls: list[Call] = []
        self.others = Others(self.cache, SEALER, lambda room: [c.key for c in self.calls if c.key.room == room])
        self.said: list[tuple[Denied, bytes, int, Selector | None, Change | None]] = []


class ShardsMachine(RuleBasedStateMachine):
    """What may happen, and what must be true of each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.engine = EngineModel()
        self.shards = [Shard(number) for number in SHARDS]
        self.words: list[Word] = []
        self.settings_of_the_clock = 0
        self.denied: list[Denied] = []
        self.save()
        self.batches: list[Batch] = []

    @initialize()
    def everybody_listens(self) -> None:
        for number in SHARDS:
            self.listen(number)

    # ---- the world

    @rule(seconds=st.sampled_from([0.01, 0.4, 1.0, 2.5, 6.0]), deaf=st.sampled_from([None, None, *SHARDS]))
    def time_passes(self, seconds: float, deaf: int | None) -> None:
        self.now += seconds
        self.engine.now_ms += round(seconds * 1000)
        for number in SHARDS:
            if number != deaf:
                self.listen(number)

    @rule(number=st.sampled_from(SHARDS), reachable=st.booleans())
    def a_cable_is_pulled(self, number: int, reachable: bool) -> None:
        self.shards[number].reachable = reachable

    @rule(trouble=st.sampled_from(["saved", "old copy", "restart", "emptied", "evicted", "trimmed", "back", "forth"]))
    def the_engine_has_trouble(self, trouble: str) -> None:
        engine = self.engine
        match trouble:
            case "":
                pass
            case "saved":
                self.save()
            case "old copy":
                self.restore()
            case "restart":
                engine.become(engine.data)
            case "emptied":
                engine.data = Data()
            case "evicted":
                engine.data.fences.clear()
            case "trimmed":
                engine.trim(0)
            case _:
                self.settings_of_the_clock += 1
                # A clock that is set in the very second of a new epoch is not noticed.
                while any(shard.contact.epoch != engine.beat(0).epoch for shard in self.shards if shard.reachable):
                    for number in SHARDS:
                        self.listen(number)
                engine.now_ms += -20_000 if trouble == "back" else 20_000
                for number in SHARDS:  # each reads the clock once a second
                    self.listen(number)

    def save(self) -> None:
        self.copy, self.copied_at = self.engine.copy_of_data(), self.settings_of_the_clock

    def restore(self) -> None:
        """Not a copy from before the clock was set, to an engine that was emptied since: nobody knows any more by how
        much it was set."""
        then, now = (EngineClock.of(data.generation).name for data in (self.copy, self.engine.data))
        if then == now or self.copied_at == self.settings_of_the_clock:
            self.engine.become(self.copy)

    @rule(story=st.sampled_from(STORIES))
    def a_sidecar_is_deaf_while_things_happen(self, story: Story) -> None:
        """What would be rare at random: somebody is taken away unheard, then the engine has trouble."""
        deaf, known_to, change, trouble, under_way, more, cut, up = story
        other, silent = self.shards[1 - deaf], self.shards[deaf]
        other.reachable = silent.reachable = True
        key = a_key(f"room {len(self.words)} {len(self.denied)}", "jid ann@example.org")
        for number in {"both": SHARDS, "the other": [other.number], "nobody": []}[known_to]:
            self.somebody_joins(number, key, up=True, level=0, at_once=True)
        if under_way:
            self.somebody_joins(deaf, key, up=True, level=0, at_once=False)
        self.save()
        self.now += 0.4
        self.engine.now_ms += 400
        if trouble == "failover":
            self.the_engine_has_trouble("emptied")
            self.listen(other.number)
        if isinstance(change, Change):
            self.somebody_is_kicked(other.number, key, change)
        elif change:
            self.somebody_is_restricted(other.number, key, 2 if change == "deny" else 1)
        if under_way:
            self.the_backend_answers(deaf, latest=True)
        if trouble == "replaced":
            self.start_another(deaf, key)
        elif trouble != "failover":
            self.the_engine_has_trouble(trouble)
        if more:
            self.somebody_is_kicked(other.number, KEYS[0], Change.DROP)
        other.reachable = not cut
        for _ in range(22 if trouble == "back" else 6):  # until the clock is where it was
            self.time_passes(1.0, None)
        if trouble == "replaced":
            self.shards[deaf].cache.changes = Changes()  # as after a minute: what is in the engine must say it
        self.somebody_joins(deaf, key, up, level=0, at_once=True)
        other.reachable = True

    def start_another(self, number: int, key: Key) -> None:
        """The engine tells it all that was said there about this key."""
        self.shards[number] = Shard(number)
        for denied in self.denied:
            if denied.key == key and denied.said_at <= self.now:
                denied.known_to.add(number)

    def somebody_is_restricted(self, number: int, key: Key, level: int) -> None:
        """The backend is asked, whatever is remembered."""
        shard = self.shards[number]
        shard.calls.append(Call(key, self.now, level, found=None))
        self.answered(shard, -1)

    # ---- listening

    @rule(number=st.sampled_from(SHARDS))
    def listen(self, number: int) -> None:
        shard = self.shards[number]
        if shard.reachable:
            batch = self.engine.beat(shard.contact.position)
            self.batches.append(batch)
            self.hear(shard, batch)

    @rule(number=st.sampled_from(SHARDS), data=st.data())
    def the_engine_repeats_itself(self, number: int, data: st.DataObject) -> None:
        self.hear(self.shards[number], data.draw(st.sampled_from(self.batches[-8:])))

    def hear(self, shard: Shard, batch: Batch) -> None:
        now = self.now + shard.offset
        taken = shard.contact.take(batch, now, now)
        if taken.renewal and shard.reachable:
            self.engine.beat(0, renewal=taken.renewal)
        for at_ms, content in taken.messages:
            if content:
                document, attached = SEALER.hear(content)
                self.carry_out(shard, document, attached, at_ms, batch.now_ms)
        if taken.lost and shard.reachable:
            self.catch_up(shard)
            for each in shard.said if taken.to_be_said_again else ():
                self.say(shard, *each, again=True)
            shard.contact.joined()

    def catch_up(self, shard: Shard) -> None:
        """On what was taken away before this sidecar came to this epoch."""
        for at_ms, content in self.engine.changes():
            document, _ = SEALER.hear(content)
            at = self.now + shard.offset - (self.engine.now_ms - at_ms) / 1000
            shard.cache.purge(at, *shard.others.change_of(document))
        if not self.settings_of_the_clock:  # else their ages may be wrong
            epoch = self.engine.beat(0).epoch
            for denied in self.denied:
                if denied.changed_in == epoch:
                    denied.known_to.add(shard.number)

    def carry_out(self, shard: Shard, document: dict[str, object], attached: bytes, at_ms: int, now_ms: int) -> None:
        now = self.now + shard.offset
        if document["kind"] == "deny":
            shard.others.restricted(document, attached, at_ms, now_ms, now, EVERY)
        else:
            shard.cache.purge(now, *shard.others.change_of(document))
        number = document["number"]
        assert isinstance(number, int)
        self.denied[number].known_to.add(shard.number)

    # ---- asking

    @rule(seconds=st.sampled_from([0.4, 2.5, 5.5]), key=st.sampled_from(KEYS), up=st.booleans())
    def everybody_joins_after_a_while(self, seconds: float, key: Key, up: bool) -> None:
        self.time_passes(seconds, None)
        for number in SHARDS:
            self.somebody_joins(number, key, up, level=0, at_once=True)

    @rule(
        number=st.sampled_from(SHARDS),
        key=st.sampled_from(KEYS),
        up=st.sampled_from([True, True, True, False]),
        level=st.sampled_from([0, 0, 1, 2]),
        at_once=st.sampled_from([True, True, False]),
    )
    def somebody_joins(self, number: int, key: Key, up: bool, level: int, at_once: bool) -> None:
        shard, now = self.shards[number], self.now + self.shards[number].offset
        permit = Permit.CLOSED if up else Permit.OPEN
        view = look(shard.cache, key, POLICY, now, permit)
        found = None
        if view.plan.act is not Act.ANSWER and shard.reachable:
            name = SEALER.key(key)
            found = self.engine.read(name, [SEALER.digest(scope) for scope in scopes(key)])
            if found.content is not None:
                touch = shard.contact.in_touch(now) and found.epoch == shard.contact.epoch
                entry = usable(SEALER.unpack(name, found.content), found, now, in_touch=touch)
                if entry is not None:
                    take(shard.cache, key, entry)
            view = look(shard.cache, key, POLICY, now, permit)
        if view.plan.act is Act.ANSWER:
            self.check(shard, key, view.entry, up)
            self.check_age(view.entry, up)
        elif view.plan.act is Act.ASK:
            shard.calls.append(Call(key, self.now, level, found))
            if at_once:
                self.answered(shard, len(shard.calls) - 1)

    def check(self, shard: Shard, key: Key, entry: Entry | None, up: bool) -> None:
        assert entry is not None
        if entry.verdict is not Verdict.ALLOW:
            return
        word = self.words[json.loads(entry.body)["n"]]
        assert word.level == strictness(entry)
        for denied in self.denied:
            outdated = word.level < denied.level and word.asked < denied.at - 0.002
            if denied.key == key and outdated and not self.lifted(denied):
                known = shard.number in denied.known_to and denied.strictly
                assert not known, "let in although this sidecar knows that he is to stay out"
                assert not (up and self.now > denied.said_at + UNHEARD + 0.01), "let in although it was said long ago"

    def check_age(self, entry: Entry | None, up: bool) -> None:
        """What is remembered is not used for longer than it may be, whatever the clock of the engine does."""
        if entry is not None and entry.verdict is Verdict.ALLOW:
            limits = POLICY.allow
            longest = limits.fresh + limits.stale_while_revalidate if up else limits.total
            age = self.now - self.words[json.loads(entry.body)["n"]].asked
            assert age <= longest + STEP + 0.01, "used for longer than it may be"

    def lifted(self, denied: Denied) -> bool:
        """Whether the backend has let this one in after all, to a question that was asked later."""
        later = (word for word in self.words if word.key == denied.key and word.asked >= denied.at)
        return any(word.level < denied.level for word in later)

    @rule(number=st.sampled_from(SHARDS), latest=st.booleans())
    def the_backend_answers(self, number: int, latest: bool) -> None:
        if self.shards[number].calls:
            self.answered(self.shards[number], -1 if latest else 0)

    def answered(self, shard: Shard, index: int) -> None:
        call = shard.calls.pop(index)
        key, now = call.key, self.now + shard.offset
        self.words.append(Word(key, call.level, call.asked))
        verdict = Verdict.DENY if call.level == 2 else Verdict.ALLOW
        body = b'{"requireLobby":%s,"n":%d}' % (b"true" if call.level == 1 else b"false", len(self.words) - 1)
        asked_at = call.asked + shard.offset
        outcome = Replied(200, body, verdict)
        if shard.cache.changes.outdate(key, asked_at):
            return  # the resolver asks again
        settled = settle(now, Query(key, b"", asked_at), asked_at, shard.cache.get(key), outcome, POLICY)
        if settled.reply is not None and settled.reply.verdict is Verdict.ALLOW:
            self.check(shard, key, Entry(Verdict.ALLOW, settled.reply.body, asked_at, now, POLICY.allow), up=False)
        if settled.store is None or not shard.cache.put(key, settled.store):
            return
        if settled.denied:
            shard.cache.suspect(key.room, now, EVERY)
        if call.level:
            self.restrict(shard, key, settled.store, call)
        elif shard.reachable and call.found is not None:
            self.keep(key, settled.store, call.found)

    def keep(self, key: Key, entry: Entry, found: Found) -> None:
        name = SEALER.key(key)
        labels = [SEALER.digest(scope) for scope in scopes(key)]
        kept = Kept(entry.verdict, entry.body, found.epoch, found.now_ms, entry.lifetimes, found.fences)
        content = SEALER.pack(name, kept)
        if self.engine.keep(name, labels, "allow", found.epoch, found.fences, found.now_ms, content) == "kept":
            fences = [self.engine.data.fences[label] for label in labels]
            assert standing(Verdict.ALLOW, found.fences, fences) is Standing.HOLDS, "kept although it was taken away"

    def restrict(self, shard: Shard, key: Key, entry: Entry, call: Call) -> None:
        denied = Denied(key, self.now, call.asked, level=call.level)
        denied.known_to.add(shard.number)
        self.denied.append(denied)
        said = (denied, entry.body, len(self.denied) - 1, None, None)
        shard.said.append(said)
        if shard.reachable:
            self.say(shard, *said)

    @rule(
        number=st.sampled_from(SHARDS),
        key=st.sampled_from(KEYS),
        change=st.sampled_from([Change.DROP, Change.REVOKE, Change.SUSPECT]),
    )
    def somebody_is_kicked(self, number: int, key: Key, change: Change) -> None:
        shard, now = self.shards[number], self.now + self.shards[number].offset
        name = "ann@example.org" if "ann" in str(key.subject) else "bob"
        selector = Selector(key.room, name)
        shard.cache.purge(now, selector, change)
        denied = Denied(key, self.now, strictly=change is not Change.SUSPECT)
        denied.known_to.add(number)
        self.denied.append(denied)
        said = (denied, b"", len(self.denied) - 1, selector, change)
        shard.said.append(said)
        if shard.reachable:
            self.say(shard, *said)

    def say(
        self,
        shard: Shard,
        denied: Denied,
        body: bytes,
        number: int,
        selector: Selector | None,
        change: Change | None,
        *,
        again: bool = False,
    ) -> None:
        """To the engine, which is reachable."""
        if selector is not None and change is not None:
            labels = [SEALER.digest(scope) for scope in moved(selector)]
            content = SEALER.say({**change_message(selector, change, SEALER), "number": number})
            self.engine.change(PARTS[change], labels, content)
            denied.changed_in = self.engine.beat(0).epoch
        else:
            name, labels = SEALER.key(denied.key), [SEALER.digest(scope) for scope in scopes(denied.key)]
            found = self.engine.read(name, labels)
            asked_for, settled_for = (round((self.now - at) * 1000) for at in (denied.asked, denied.at))
            verdict, lifetimes = (Verdict.DENY, POLICY.deny) if denied.level == 2 else (Verdict.ALLOW, POLICY.allow)
            kept = Kept(verdict, body, found.epoch, found.now_ms - asked_for, lifetimes, found.fences)
            content = SEALER.pack(name, kept)
            document = {"kind": "deny", "room": denied.key.room, "key": name, "number": number}
            said = SEALER.say(document, content)
            label = "deny" if verdict is Verdict.DENY else "lobby"
            every = int(EVERY * 1000)
            self.engine.deny(name, labels[1], label, asked_for, settled_for, every, content, said, again=again)
        denied.said_at = min(denied.said_at, self.now)


def tell_all() -> None:
    """Every story, each to its own machine."""
    for story in STORIES:
        machine = ShardsMachine()
        machine.everybody_listens()
        machine.a_sidecar_is_deaf_while_things_happen(story)


def test_every_story_ends_well() -> None:
    tell_all()


TestShards = ShardsMachine.TestCase
TestShards.settings = SETTINGS
