"""Every history of the real resolver, cache, write-behind and file: questions under way, a backend that contradicts
itself, is slow or away, orders, kills, power failures, reboots with wrong clocks, a disk that is slow or fails.

The same histories each time; `HISTORIES_STEPS=100000` makes as many steps at random.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.core.model import GUEST, Answer, Failure, Lifetimes, Outcome, Query, Source, Unavailable
from sidecar.core.policy import OnUnavailable
from sidecar.core.selection import Change, Selector
from sidecar.errors import DiskError
from tests.unit.builders import a_config_policy, a_policy
from tests.unit.decisions.life import Life, Machine
from tests.unit.decisions.said import CALL, Limits, Order, Question, Said, Word, limits
from tests.unit.harness import CONFIG, DECISION, REFUSED, RESET, allow, broken, config, deny, rejected
from tests.unit.virtual import VirtualLoop

STEP_COUNT = 60
STEPS = int(os.environ.get("HISTORIES_STEPS", "0"))
SETTINGS = settings(
    max_examples=max(30, STEPS // STEP_COUNT),
    stateful_step_count=STEP_COUNT,
    derandomize=not STEPS,
    phases=[phase for phase in Phase if not STEPS or phase is not Phase.shrink],  # it takes minutes
)

ROOMS = st.sampled_from(["standup", "standup", "retro"])
USERS = ["ann@example.org", "bob@example.org"]
GUESTS = ["g1@guest.example.org", "g2@guest.example.org"]
WHO = st.sampled_from(USERS + GUESTS)
TAKES = st.sampled_from([0.0, 0.0, 0.1, 0.7, 2.5, 3.6])
HEADERS = ["", "", "", "no-store", "max-age=1", "must-revalidate"]
THEN = st.sampled_from([0.001, 0.001, 0.3, 1.0, 5.0, 16.0])
"""Seconds that pass."""
ORDERS = ["drop", "revoke", "suspect"]
SHORT = Lifetimes(15, 0, 60)
"""Of allows, in the other policy: what is remembered is soon expired."""


@dataclass(frozen=True)
class Plan:
    """What the backend says to one question, if it is asked."""

    says: str
    takes: float
    header: str
    brings_config: bool


DECISIONS = st.builds(
    Plan,
    st.sampled_from(["allow", "allow", "allow", "moderator", "lobby", "deny", "deny", "junk", "reset"]),
    TAKES,
    st.sampled_from(["private", *HEADERS]),
    st.sampled_from([False, False, True]),
)
CONFIGS = st.builds(
    Plan,
    st.sampled_from(["config", "config", "config", "gone", "junk"]),
    TAKES,
    st.sampled_from(HEADERS),
    st.just(value=False),
)
EVE = Plan("deny", 0.0, "", brings_config=False)


class Histories(RuleBasedStateMachine):
    """What may happen; each answer is judged when it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="histories-", dir=memory if memory.is_dir() else None))
        self.said = Said()
        self.plans: dict[int, Plan] = {}
        self.numbers = itertools.count(1)
        self.backend = "well"
        self.policy = a_policy()
        self.policies = [(0.0, self.policy)]
        self.lives = 0
        self.wrong: list[str] = []
        self.trace: list[str] = []
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Some steps of the loop; what waits goes on waiting until the next ones."""
        self.loop.run_until_complete(work)

    async def begin(self) -> None:
        self.machine = Machine(self.folder)
        await self.start()

    async def start(self) -> None:
        self.lives += 1
        self.said.trouble_at = self.now
        self.life = Life(self.machine, self.answer, self.policy, a_config_policy())
        await self.life.writer.denies_read(1.0)

    @property
    def now(self) -> float:
        return self.loop.time()

    def teardown(self) -> None:
        async def end() -> None:
            await asyncio.sleep(CALL + 1)
            await self.life.kill()

        self.run(end())
        self.loop.close()
        shutil.rmtree(self.folder)
        self.assert_nothing_is_wrong()

    # ---- the backend

    async def answer(self, query: Query, patience: float) -> Outcome:
        asked, number = self.now, json.loads(query.body)["timestamp"]
        plan, life = self.plans[number], self.lives
        failure = {"away": REFUSED, "failing": broken()}.get(self.backend)
        if failure is not None:
            self.said.trouble_at = self.now
            return failure
        takes = CALL if self.backend == "hanging" else plan.takes
        if takes > 1 or plan.says in ("junk", "reset"):
            self.said.trouble_at = self.now
        await asyncio.sleep(min(takes, patience))
        if takes >= patience:
            self.said.trouble_at = self.now
            return Unavailable("no complete answer", Failure.TIMEOUT)
        if plan.says in ("junk", "reset"):
            return RESET if plan.says == "reset" else broken()
        number = next(self.numbers)
        self.note(query, plan, asked, number, life)
        return outcome(plan, number)

    def note(self, query: Query, plan: Plan, asked: float, number: int, life: int) -> None:
        is_config = query.key.endpoint is CONFIG
        with_config = (is_config and plan.says == "config") or (plan.brings_config and plan.says != "deny")
        allow_limits = Limits(self.policy.allow.fresh, self.policy.allow.stale_if_error)
        word = Word(
            life,
            query.key.room,
            "" if is_config else query.caller,
            query.caller in GUESTS,
            query.key.subject == GUEST,
            plan.says,
            plan.header,
            asked,
            self.now,
            number if with_config else 0,
            limits(plan.says, plan.header, allow_limits),
        )
        self.said.words.append(word)
        self.log(f"backend: {word}")

    # ---- questions

    @rule(room=ROOMS, who=WHO, plan=DECISIONS, then=THEN)
    def somebody_wants_in(self, room: str, who: str, plan: Plan, then: float) -> None:
        self.run(self.begins(self.wants_in(room, who, self.planned(plan)), then))

    @rule(room=ROOMS, plan=CONFIGS, then=THEN)
    def a_room_is_created(self, room: str, plan: Plan, then: float) -> None:
        self.run(self.begins(self.wants_config(room, self.planned(plan)), then))

    @rule(
        room=ROOMS,
        who=WHO,
        slow=DECISIONS,
        quick=DECISIONS,
        kind=st.sampled_from([None, None, *ORDERS]),
        then=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def a_slow_answer_comes_after_something_else(
        self, room: str, who: str, slow: Plan, quick: Plan, kind: str | None, then: float
    ) -> None:
        """After an order, or after somebody else was denied; and after a later answer, unless that one waits."""
        self.run(self.begins(self.wants_in(room, who, self.planned(replace(slow, takes=3.0))), 0.3))
        if kind is None:
            self.run(self.begins(self.wants_in(room, "eve@example.org", self.planned(EVE)), 0.3))
        else:
            self.run(self.order(room, GUEST if who in GUESTS else who, kind))
        self.time_passes(then)
        self.run(self.begins(self.wants_in(room, who, self.planned(replace(quick, takes=0.1))), 4.0))

    def planned(self, plan: Plan) -> int:
        """The number of the question to which this is the answer."""
        number = next(self.numbers)
        self.plans[number] = plan
        self.log(f"{number}: {plan}")
        return number

    async def begins(self, question: Coroutine[Any, Any, None], then: float) -> None:
        self.life.does(self.until_answered(question))
        await asyncio.sleep(then)

    async def until_answered(self, question: Coroutine[Any, Any, None]) -> None:
        try:
            await question
        except Exception as error:  # noqa: BLE001 - nobody waits for this task
            self.wrong.append(repr(error))

    async def wants_in(self, room: str, who: str, number: int) -> None:
        fields: dict[str, Any] = {"guest": True} if who in GUESTS else {}
        query = self.life.harness.query(DECISION, roomName=room, userJid=f"{who}/x", timestamp=number, **fields)
        question, answer = await self.asks(query, room, who)
        by_policy = answer.source is Source.POLICY
        self.report(
            question, answer, self.said.judge(question, answer.allowed is True, by_policy, json.loads(answer.body))
        )

    async def wants_config(self, room: str, number: int) -> None:
        query = self.life.harness.query(CONFIG, roomName=room, timestamp=number)
        question, answer = await self.asks(query, room, "")
        document = json.loads(answer.body) if answer.status == 200 else None
        self.report(question, answer, self.said.judge_config(question, document, answer.source is Source.POLICY))

    async def asks(self, query: Query, room: str, who: str) -> tuple[Question, Answer]:
        begun, life = self.now, self.lives
        answer = self.life.resolver.at_once(query.key) or await self.life.resolver.resolve(query)
        policies = [
            policy
            for (since, policy), until in zip(
                self.policies, [*(at for at, _ in self.policies[1:]), float("inf")], strict=True
            )
            if since <= self.now and until >= begun
        ]
        allows = [Limits(policy.allow.fresh, policy.allow.stale_if_error) for policy in policies]
        may_let_in = any(policy.on_unavailable is OnUnavailable.ALLOW for policy in policies)
        return Question(life, room, who, who in GUESTS, begun, self.now, allows, may_let_in), answer

    def report(self, question: Question, answer: Answer, problems: Any) -> None:
        self.log(f"answer: {question} {answer.source} {answer.body!r}")
        self.wrong += [f"{problem}: {question} {answer} {answer.body!r}" for problem in problems]

    # ---- what goes on meanwhile

    @rule(seconds=st.sampled_from([0.05, 0.3, 0.3, 1.0, 4.0, 16.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.log(f"{seconds} s pass")
        self.run(asyncio.sleep(seconds))

    @rule(state=st.sampled_from(["well", "well", "away", "failing", "hanging"]))
    def the_backend_is(self, state: str) -> None:
        self.backend, self.said.trouble_at = state, self.now
        self.log(f"the backend is {state}")

    @rule(lifetimes=st.sampled_from([None, SHORT]), lets_in=st.booleans())
    def an_operator_reloads(self, lifetimes: Lifetimes | None, lets_in: bool) -> None:
        then = OnUnavailable.ALLOW if lets_in else OnUnavailable.REFUSE
        self.policy = a_policy(on_unavailable=then) if lifetimes is None else a_policy(lifetimes, on_unavailable=then)
        self.life.harness.decision = self.policy
        self.policies.append((self.now, self.policy))
        self.log(f"reload: {self.policy}")

    @rule(room=ROOMS, user=st.sampled_from([None, *USERS, GUEST]), kind=st.sampled_from(ORDERS))
    def an_order_comes(self, room: str, user: str | None, kind: str) -> None:
        self.log(f"order: {kind} {room} {user}")
        self.run(self.order(room, user, kind))

    async def order(self, room: str, user: str | None, kind: str) -> None:
        if kind == "revoke" and user is None:
            return
        config_only, at = kind == "suspect" and user is None, self.now
        endpoint = CONFIG if config_only else DECISION if kind == "revoke" else None
        self.said.orders.append(Order(self.lives, at, kind, room, user, config_only, durable=False))
        try:
            await self.life.resolver.purge(Selector(room, user, endpoint=endpoint), Change[kind.upper()])
        except DiskError:
            self.said.trouble_at = self.now
        else:
            self.said.orders.append(Order(self.lives, at, kind, room, user, config_only, durable=True))

    # ---- processes, disks and clocks

    @rule(how=st.sampled_from(["killed", "killed", "stopped"]))
    def the_sidecar_is(self, how: str) -> None:
        self.log(f"the sidecar is {how}")
        self.run(self.restarts(how))

    async def restarts(self, how: str) -> None:
        await (self.life.kill() if how == "killed" else self.life.stop())
        self.said.ended[self.lives] = self.now
        await self.start()

    @rule(
        wall=st.sampled_from([None, None, "right", "1970"]), power=st.booleans(), later=st.sampled_from([0.0, 3700.0])
    )
    def everybody_comes_after_a_restart_in_an_outage(self, wall: str | None, power: bool, later: float) -> None:
        self.the_backend_is("away")
        if wall is None:
            self.the_sidecar_is("killed")
        else:
            self.the_machine_boots(5.0, wall, power)
        self.time_passes(later)
        for room, who in itertools.product(("standup", "retro"), USERS + GUESTS):
            self.run(self.begins(self.wants_in(room, who, self.planned(EVE)), 0.001))
        self.the_backend_is("well")

    @rule(off_for=st.sampled_from([5.0, 100.0]), wall=st.sampled_from(["right", "1970", "ahead"]), power=st.booleans())
    def the_machine_boots(self, off_for: float, wall: str, power: bool) -> None:
        self.log(f"reboot after {off_for} s, clock {wall}, power failure {power}")
        self.run(self.boots(off_for, wall, power))

    async def boots(self, off_for: float, wall: str, power: bool) -> None:
        await (self.life.kill() if power else self.life.stop())
        self.said.ended[self.lives] = self.now
        if power:
            self.machine.cut_the_power()
        await asyncio.sleep(off_for)
        self.machine.disk_fails, self.machine.disk_takes = False, 0.0
        self.machine.boots({"right": 1.7e9, "1970": -self.now, "ahead": 1.7e9 + 86_400}[wall])
        self.said.rebooted.add(self.lives + 1)
        await self.start()

    @rule(state=st.sampled_from(["well", "well", "slow", "failing"]))
    def the_disk_is(self, state: str) -> None:
        self.log(f"the disk is {state}")
        if self.machine.disk_fails or state == "failing":
            self.said.disk_failed_at = self.now + 2.0  # until it is tried again
        self.machine.disk_fails = state == "failing"
        self.machine.disk_takes = 0.005 if state == "slow" else 0.0

    # ---- what must be true

    def log(self, line: str) -> None:
        self.trace.append(f"{self.now:.2f} {line}")

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.machine.disk_fails:
            self.said.disk_failed_at = self.now
        self.assert_nothing_is_wrong()

    def assert_nothing_is_wrong(self) -> None:
        wrong = [*self.wrong, *map(repr, self.life.crashes())]
        assert not wrong, "\n".join([*self.trace[-100:], *wrong])


def outcome(plan: Plan, number: int) -> Outcome:
    more: dict[str, Any] = {"configuration": {"number": number}} if plan.brings_config else {}
    match plan.says:
        case "deny":
            return deny(cache_control=plan.header)
        case "config":
            return config(plan.header, number=number)
        case "gone":
            return rejected()
        case "lobby":
            return allow(plan.header, requireLobby=True, **more)
        case "moderator":
            return allow(plan.header, isModerator=True, **more)
    return allow(plan.header, **more)


TestHistories = Histories.TestCase
TestHistories.settings = SETTINGS
