"""Every fault of a backend x every age of an answer x both endpoints, against the product's own tables."""

from __future__ import annotations

import asyncio

import pytest
from rich.console import Console

from sidecar.core.breaker import Permit
from sidecar.core.model import Kind
from sidecar.core.policy import PLANS, Freshness
from tests.rig.faults import LOST, RESPONSES, Fault
from tests.system.faults import Question, Row, Way, acceptable, as_table, matrix, questions


@pytest.fixture(scope="module")
def rows() -> dict[Fault, Row]:
    """The whole matrix, measured once."""
    return {row.fault: row for row in asyncio.run(matrix(list(Fault)))}


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
def test_users_get_what_the_tables_say_while_the_backend_fails_so(rows: dict[Fault, Row], fault: Fault) -> None:
    assert rows[fault].judge() == []


def test_the_matrix_is_printed(rows: dict[Fault, Row], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        console = Console(width=150, highlight=False)
        console.print()
        console.print(as_table(list(rows.values())))
    assert len(rows) == len(Fault)


def test_the_matrix_asks_about_every_state_on_both_endpoints() -> None:
    asked = {(question.state, question.kind) for question in questions()}
    states = {state for state, _ in PLANS}
    assert {permit for _, permit in PLANS} == set(Permit)
    assert asked >= {(state, Kind.DECISION) for state in states}
    assert asked >= {(state, Kind.CONFIG) for state in states - {Freshness.SUSPECT}}


def test_every_fault_has_a_class() -> None:
    answered = {Fault.NONE, Fault.SLOW_HEAD}
    assert {fault for fault in Fault if fault not in LOST and fault not in RESPONSES} == answered


def test_a_known_answer_is_never_left_to_the_policy_and_an_unknown_one_never_to_memory() -> None:
    for fault in set(Fault) - {Fault.NONE, Fault.SLOW_HEAD}:
        for state in Freshness:
            known = Question(state, Kind.DECISION).known
            assert acceptable(Question(state, Kind.DECISION), fault) == {Way.MEMORY if known else Way.POLICY}
