"""What an operator is told about the engine of the shared memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.core.engine_facts import RIGHTS, EngineFacts, Examined, access_rule, cause, judge

GOOD = EngineFacts("Redis", (7, 0, 15), "master", 1, 1, True, True, "volatile-ttl", 10**9)
ROOT = Path(__file__).parents[3]


def problems(examined: Examined) -> list[tuple[str, str]]:
    """State and advice of all that is not good."""
    found = judge(examined, "sidecar", "prosody-sidecar", 0.02)
    return [(each.state, each.advice) for each in found if each.state != "ok"]


def test_of_one_sidecar_alone_it_is_said_what_to_compare_and_of_none_or_several_nothing() -> None:
    ((state, advice),) = problems(Examined(GOOD, members=1, database=3))
    assert state == "unwise"
    assert all(name in advice for name in ("shared.url", "shared.namespace"))
    assert not problems(Examined(GOOD, members=0)) + problems(Examined(GOOD, members=2))
    found = [each.found for each in judge(Examined(GOOD, members=1, database=3), "sidecar", "tenant-a", 0.02)]
    assert "1 sidecar uses namespace tenant-a in database 3 now" in found


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert not problems(Examined(GOOD))
    assert not problems(Examined(GOOD._replace(program="Valkey", version=(8, 1, 1))))
    assert not problems(Examined(GOOD._replace(append_only=False)))


@pytest.mark.parametrize(
    ("other", "state", "advice"),
    [
        ({"version": (6, 2, 7)}, "failed", "install Redis 7.0"),
        ({"program": "Valkey", "version": (7, 1, 9)}, "failed", "install Valkey 7.2"),
        ({"role": "slave"}, "failed", "must lead to the primary"),
        ({"replicas": 0, "good_replicas": None}, "unwise", "add a replica"),
        ({"good_replicas": None}, "unwise", "min-replicas-to-write 1"),
        ({"good_replicas": 0}, "unwise", "refuse all writes"),
        ({"eviction": "allkeys-lru"}, "unwise", "volatile-ttl or noeviction"),
        ({"append_only": False, "snapshots": False}, "unwise", "appendonly yes"),
    ],
)
def test_each_thing_that_it_says_and_is_wrong_is_named_with_what_to_do(
    other: dict[str, object], state: str, advice: str
) -> None:
    ((found, said),) = problems(Examined(GOOD._replace(**other)))  # type: ignore[arg-type]
    assert found == state
    assert advice in said


@pytest.mark.parametrize(
    ("examined", "state", "advice"),
    [
        (Examined(GOOD, forbidden=("hgetall",)), "failed", "ACL SETUSER sidecar"),
        (Examined(GOOD, unknown=("evalsha",)), "failed", "renames these commands"),
        (Examined(GOOD, foreign=("{prosody-sidecar}:stream",)), "failed", "shared.namespace"),
        (Examined(GOOD, refusal="OutOfMemoryError: command not allowed"), "failed", "raise maxmemory"),
        (Examined(GOOD, refusal="ResponseError: NOREPLICAS Not enough"), "failed", "min-replicas-to-write"),
        (Examined(GOOD, refusal="ResponseError: MISCONF Redis is"), "failed", "room on its disk"),
        (Examined(GOOD, refusal="ClusterDownError: Hash slot not served"), "failed", "cluster-enabled no"),
        (Examined(GOOD, refusal="MovedError: 1 127.0.0.1:1"), "failed", "no cluster"),
        (Examined(GOOD, latency=0.03), "unwise", "nearer"),
        (Examined(None, forbidden=("info", "time"), latency=None), "failed", "+info +time"),
    ],
)
def test_each_thing_that_it_refuses_is_named_with_what_to_do(examined: Examined, state: str, advice: str) -> None:
    ((found, said),) = problems(examined)
    assert found == state
    assert advice in said


def test_a_script_that_fails_for_a_reason_that_is_known_already_is_not_said_twice() -> None:
    for why in (Examined(GOOD._replace(role="slave")), Examined(GOOD, ("hset",)), Examined(GOOD, (), ("evalsha",))):
        assert len(problems(why._replace(refusal="ReadOnlyError: it fails"))) == 1


def test_a_right_that_is_missing_is_named() -> None:
    found = judge(Examined(GOOD, forbidden=("hgetall",)), "ann", "x", 1)
    (rights,) = (each for each in found if each.state == "failed")
    assert rights.found == "user ann may not run: hgetall"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ResponseError: DB index is out of range", "/0"),
        ("NoPermissionError: this user has no permissions to run the 'select' command", "ACL SETUSER"),
        ("AuthenticationError: Authentication required.", "shared.password_file"),
        ("AuthenticationError: AUTH <password> called without any password configured", "remove shared.password_file"),
        ("AuthenticationError: invalid username-password pair or user is disabled.", "compare them"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for 'a'", "another name"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "shared.ca_file"),
        ("InvalidResponse: Protocol Error: b'HTTP/1.1 400 Bad Request'", "another program"),
        ("ConnectionError: Error 104 while writing to socket.", ""),
    ],
)
def test_the_error_of_one_that_cannot_be_used_leads_to_its_cause(error: str, advice: str) -> None:
    assert advice in cause(error, access_rule("sidecar", "x"))
    assert bool(cause(error, "")) == bool(advice)


def test_the_rights_are_those_that_the_script_uses_and_the_page_names() -> None:
    script = (ROOT / "sidecar/shared/script.lua").read_text()
    used = {command.lower() for command in re.findall(r'redis\.call\("(\w+)"', script)}
    assert used - {"xinfo"} <= {*RIGHTS, "info"}
    assert access_rule("sidecar", "prosody-sidecar") in (ROOT / "docs/shards.md").read_text()
