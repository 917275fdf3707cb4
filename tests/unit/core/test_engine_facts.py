"""What an operator is told about the engine of the shared memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.core.engine_facts import RIGHTS, EngineFacts, access_rule, judge

GOOD = EngineFacts("Redis", (7, 0, 15), "master", 1, 1, True, True, "volatile-ttl", 10**9, latency=0.001)
ROOT = Path(__file__).parents[3]


def problems(facts: EngineFacts) -> list[tuple[str, str]]:
    """State and advice of all that is not good."""
    found = judge(facts, "sidecar", "prosody-sidecar", 0.02)
    return [(each.state, each.advice) for each in found if each.state != "ok"]


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert not problems(GOOD)
    assert not problems(GOOD._replace(program="Valkey", version=(8, 1, 1)))
    assert not problems(GOOD._replace(append_only=False))


@pytest.mark.parametrize(
    ("other", "state", "advice"),
    [
        ({"version": (6, 2, 7)}, "failed", "install Redis 7.0"),
        ({"program": "Valkey", "version": (7, 1, 9)}, "failed", "install Valkey 7.2"),
        ({"role": "slave"}, "failed", "must lead to the primary"),
        ({"forbidden": ("hgetall",)}, "failed", "ACL SETUSER sidecar"),
        ({"replicas": 0, "good_replicas": None}, "unwise", "add a replica"),
        ({"good_replicas": None}, "unwise", "min-replicas-to-write 1"),
        ({"good_replicas": 0}, "unwise", "refuse all writes"),
        ({"eviction": "allkeys-lru"}, "unwise", "volatile-ttl or noeviction"),
        ({"append_only": False, "snapshots": False}, "unwise", "appendonly yes"),
        ({"latency": 0.03}, "unwise", "nearer"),
    ],
)
def test_each_thing_that_is_wrong_is_named_with_what_to_do(other: dict[str, object], state: str, advice: str) -> None:
    ((found, said),) = problems(GOOD._replace(**other))  # type: ignore[arg-type]
    assert found == state
    assert advice in said


def test_a_right_that_is_missing_is_named() -> None:
    (rights,) = (each for each in judge(GOOD._replace(forbidden=("hgetall",)), "ann", "x", 1) if each.state == "failed")
    assert rights.found == "user ann may not run: hgetall"


def test_the_rights_are_those_that_the_script_uses_and_the_page_names() -> None:
    script = (ROOT / "sidecar/shared/script.lua").read_text()
    used = {command.lower() for command in re.findall(r'redis\.call\("(\w+)"', script)}
    assert used - {"xinfo"} <= {*RIGHTS, "info"}
    assert access_rule("sidecar", "prosody-sidecar") in (ROOT / "docs/shards.md").read_text()
