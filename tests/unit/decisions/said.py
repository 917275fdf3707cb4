"""What may be answered: a model that knows what the backend said, who heard of it, and what orders took away.

It shares nothing with the code that it judges. All instants are seconds of the loop, whatever clocks are set to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.unit.builders import ALLOW_LIFETIMES, CONFIG_LIFETIMES, DENY_LIFETIMES

HAIR = 0.05
"""Seconds by which readings of the clock may differ from the loop's time."""

BESIDE = 0.3
"""Seconds. An answer that waits so long for the disk does not have what happens meanwhile."""

CALL = 4.0
"""No call takes longer, and no answer."""


@dataclass(frozen=True)
class Limits:
    """For how long an answer may be used: fresh, and in an outage."""

    fresh: float
    stale: float

    @property
    def total(self) -> float:
        return self.fresh + self.stale


def limits(verdict: str, header: str, allow: Limits) -> Limits:
    """What the policy and the header of an answer leave."""
    given = {"deny": Limits(DENY_LIFETIMES.fresh, DENY_LIFETIMES.stale_if_error), "config": CONFIG}.get(verdict, allow)
    match header:
        case "no-store":
            return Limits(0, 0)
        case "max-age=1":
            return Limits(min(1, given.fresh), given.stale)
        case "must-revalidate":
            return Limits(given.fresh, 0)
    return given


ALLOW = Limits(ALLOW_LIFETIMES.fresh, ALLOW_LIFETIMES.stale_if_error)
CONFIG = Limits(CONFIG_LIFETIMES.fresh, CONFIG_LIFETIMES.stale_if_error)


@dataclass(eq=False)
class Word:
    """What the backend has said."""

    life: int
    room: str
    user: str
    """Empty: it is the room's config."""
    guest: bool
    asked_for_all: bool
    """The question was asked for all guests of the room."""
    verdict: str
    """allow, lobby, moderator, deny; config, gone."""
    header: str
    asked: float
    said: float
    number: int
    """In a config, so that each is another one. In a decision: of the config that came along, or 0."""
    usable: Limits
    heard: float | None = None
    """When somebody first got it as an answer that must survive a crash."""

    @property
    def for_all_guests(self) -> bool:
        return self.asked_for_all and self.header != "private" and self.verdict in ("allow", "deny")

    def is_usable(self, at: float, policy: Limits) -> bool:
        return at - self.asked <= min(self.usable.total, policy.total if self.verdict != "deny" else 1e9) + HAIR


@dataclass(frozen=True)
class Order:
    """What was taken away from memory."""

    life: int
    at: float
    kind: str
    """drop, revoke, suspect."""
    room: str
    user: str | None
    config_only: bool
    durable: bool

    def means(self, word: Word) -> bool:
        if word.room != self.room or (self.config_only and word.user):
            return False
        return self.user is None or word.user == self.user or (self.user == "guest" and word.for_all_guests)


@dataclass
class Question:
    """One that was answered."""

    life: int
    room: str
    user: str
    guest: bool
    begun: float
    ended: float
    policies: list[Limits]
    """Of allows, from its begin to its end."""
    may_let_in: bool
    """Whether `on_unavailable: allow` was in force in that time."""


@dataclass
class Said:
    """Everything that counts."""

    words: list[Word] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    trouble_at: float = -1e9
    """When something was last wrong with the backend, the disk or the process."""
    disk_failed_at: float = -1e9
    ended: dict[int, float] = field(default_factory=dict)
    """When each life ended."""
    rebooted: set[int] = field(default_factory=set)
    """Lives that began with a clock that was wrong, or after a power failure."""

    # ---- a decision

    def judge(self, question: Question, allowed: bool, by_policy: bool, document: dict[str, Any]) -> Iterator[str]:
        """What is wrong with an answer."""
        words = [word for word in self.words if word.room == question.room and self._is_about(word, question)]
        if question.ended - question.begun > CALL:
            yield f"it took {question.ended - question.begun} s"
        if allowed:
            yield from self._judge_allow(question, words, by_policy, document)
        else:
            yield from self._judge_deny(question, words, by_policy)
        yield from self._judge_configuration(question, document)
        self._note(question, words, allowed, by_policy, document)

    def _is_about(self, word: Word, question: Question) -> bool:
        if word.user == question.user:
            return True
        return bool(word.user) and question.guest and word.for_all_guests

    def _judge_allow(
        self, question: Question, words: list[Word], by_policy: bool, document: dict[str, Any]
    ) -> Iterator[str]:
        lobby, moderator = document.get("requireLobby") is True, document.get("isModerator") is True
        for against, verdicts in (("deny", ("allow", "lobby", "moderator")), ("lobby", ("allow", "moderator"))):
            if against == "lobby" and lobby:
                continue
            own = any(word.user == question.user and not word.for_all_guests for word in words)
            counting = (w for w in words if w.verdict == against and (w.user == question.user or not own))
            last = max((w.said for w in counting if self._counts(w, question)), default=None)
            if last is not None and not any(w.verdict in verdicts and w.asked >= last - HAIR for w in words):
                yield f"let in in spite of a {against} at {last}"
        if by_policy:
            if not question.may_let_in:
                yield "let in by a policy that does not let in"
            if lobby and not any(word.verdict == "lobby" for word in words):
                yield "the policy sends to a lobby that nobody asked for"
            return
        verdict = "lobby" if lobby else "moderator" if moderator else "allow"
        if not any(self._is_basis(word, question, words, verdict) for word in words):
            yield f"nothing that the backend said lets in like that ({verdict})"

    def _judge_deny(self, question: Question, words: list[Word], by_policy: bool) -> Iterator[str]:
        if not by_policy:
            if not any(w.verdict == "deny" and self._may_answer(w, question) for w in words):
                yield "denied, but the backend did not say so"
            return
        if question.begun - self.trouble_at > 10:
            yield "refused, but the backend was well"
        newest = max(words, key=lambda word: word.asked, default=None)
        denied = any(word.verdict == "deny" for word in words)
        if newest and not denied and self._is_remembered(newest, question):
            yield "refused, but the last answer was an allow that is remembered"

    def _is_remembered(self, word: Word, question: Question) -> bool:
        """Whether an allow is certainly in memory, at least as a stale answer."""
        if word.verdict == "deny" or any(order.at >= word.asked - HAIR for order in self.orders if order.means(word)):
            return False
        policy = Limits(0, min(limits.total for limits in question.policies) - 2 * HAIR)
        ended = self.ended.get(word.life, 1e9)
        survives = word.said + 1 < ended and self.disk_failed_at < word.asked and not self._was_rebooted(word, question)
        known = word.said < question.begun and (word.life == question.life or survives)
        stale = question.ended - word.asked < min(word.usable.total - 2 * HAIR, policy.total)
        alone = word.user == question.user and not any(w.said > word.said for w in self._of_guests(question))
        return known and stale and word.usable.stale > 0 and (alone or not question.guest)

    def _of_guests(self, question: Question) -> list[Word]:
        return [word for word in self.words if word.guest and word.room == question.room and question.guest]

    def _was_rebooted(self, word: Word, question: Question) -> bool:
        return any(life in self.rebooted for life in range(word.life + 1, question.life + 1))

    def _is_basis(self, word: Word, question: Question, words: list[Word], verdict: str) -> bool:
        """Whether an answer that lets in like that may rest on this word."""
        if word.verdict != verdict or not self._may_answer(word, question):
            return False
        if any(self._overtakes(other, word, question) for other in words):
            return False
        return not any(
            order.means(word) and order.kind != "suspect" and self._order_counts(order, question)
            for order in self.orders
            if word.asked < order.at - HAIR
        )

    def _may_answer(self, word: Word, question: Question) -> bool:
        """Whether it is recent enough: it came during the question, or memory may still use it."""
        if question.begun - HAIR <= word.said <= question.ended + HAIR:
            return True
        if word.user != question.user and self._guests_are_separate(question):
            return False
        return word.said <= question.ended and any(word.is_usable(question.ended, each) for each in question.policies)

    def _guests_are_separate(self, question: Question) -> bool:
        """Whether one guest certainly has no answer of another: one was for somebody alone."""
        if any(order.room == question.room and order.user is None for order in self.orders):
            return False
        return any(
            not word.for_all_guests and word.said < question.begun and word.life == question.life
            for word in self._of_guests(question)
        )

    def _overtakes(self, newer: Word, older: Word, question: Question) -> bool:
        """Whether a later answer to the same user makes this one useless, also if it came back from the disk."""
        if newer.user != older.user or newer.asked <= older.asked + HAIR:
            return False
        if older.verdict == "lobby" and newer.asked <= older.said + HAIR:
            return False  # nobody knows which of the two the backend decided first: the stricter one counts
        if newer.life == question.life:
            return newer.said < question.ended - BESIDE
        less = newer.verdict in ("deny", "lobby") or older.verdict == "moderator" or newer.header == "no-store"
        return less and newer.verdict != older.verdict and self._is_durable(newer)

    # ---- what counts in which life

    def _counts(self, word: Word, question: Question) -> bool:
        """Whether a deny or a lobby is certainly known: it was said in this life, or heard in an earlier one."""
        for order in self.orders:
            if order.kind == "drop" and order.means(word) and word.said <= order.at + HAIR:
                return False
        if word.life == question.life:
            return word.said < question.begun - HAIR
        return self._is_durable(word)

    def _is_durable(self, word: Word) -> bool:
        return word.heard is not None and not word.asked - 2 < self.disk_failed_at

    def _order_counts(self, order: Order, question: Question) -> bool:
        return order.at < question.ended - BESIDE and (order.durable or order.life == question.life)

    def _note(
        self, question: Question, words: list[Word], allowed: bool, by_policy: bool, document: dict[str, Any]
    ) -> None:
        """Which words this answer has let somebody hear. What was let in by policy says nothing."""
        if by_policy and (allowed or not question.may_let_in):
            return
        lobby, moderator = document.get("requireLobby") is True, document.get("isModerator") is True
        verdict = ("lobby" if lobby else "moderator" if moderator else "allow") if allowed else "deny"
        for word in words:
            fits = word.verdict == verdict and word.life == question.life and word.said <= question.ended
            if fits and word.heard is None and (verdict == "deny" or word.user == question.user):
                word.heard = question.ended

    # ---- a room's config

    def judge_config(self, question: Question, document: dict[str, Any] | None, by_policy: bool) -> Iterator[str]:
        """What is wrong with a config; None: there was none."""
        if document is None:
            if by_policy and question.begun - self.trouble_at > 10:
                yield "no config, but the backend was well"
            return
        yield from self._judge_number(question, document["number"])

    def _judge_configuration(self, question: Question, document: dict[str, Any]) -> Iterator[str]:
        if "configuration" in document:
            yield from self._judge_number(question, document["configuration"]["number"])

    def _judge_number(self, question: Question, number: int) -> Iterator[str]:
        (word,) = [word for word in self.words if word.number == number]
        # A backend that sends configs along with decisions may answer nothing else, or 404, to `room-created`.
        kept = [each for each in self._configs(question.room) if each.number and each.header != "no-store"]
        newer = [
            other.number or other.verdict
            for other in (kept if word.user else self._configs(question.room))
            if other.asked > word.asked + HAIR and other.said < question.ended - BESIDE and other.life == question.life
        ]
        if newer:
            yield f"an older config ({number}, not {newer})"
        if any(
            order.kind == "drop"
            and (order.room, order.user) == (question.room, None)
            and word.asked < order.at - HAIR
            and self._order_counts(order, question)
            for order in self.orders
        ):
            yield f"a config ({number}) that was taken away"

    def _configs(self, room: str) -> Iterable[Word]:
        return (word for word in self.words if word.room == room and (word.number or word.verdict == "gone"))
