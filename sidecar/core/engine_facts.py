"""What the engine of the shared memory says about itself, and what of it is wrong or not advisable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
"""The first versions that have all that is needed."""

RIGHTS = (
    *("evalsha", "script|load", "info", "time", "ping", "select"),
    *("get", "set", "exists", "del", "pttl", "pexpire"),
    *("hget", "hset", "hmget", "hdel", "hexists", "hgetall"),
    *("xadd", "xrange", "xread", "xinfo|stream"),
    *("zadd", "zcount", "zrangebyscore", "zremrangebyscore"),
)
"""The commands that are used, as an ACL of the engine names them."""


def access_rule(user: str, namespace: str) -> str:
    """The command that gives a user of the engine all that is needed, and no more."""
    return f"ACL SETUSER {user} on >PASSWORD ~{{{namespace}}}:* {' '.join(f'+{right}' for right in RIGHTS)}"


class EngineFacts(NamedTuple):
    """What was found."""

    program: str
    version: tuple[int, ...]
    role: str
    replicas: int
    good_replicas: int | None
    """Replicas that count for `min-replicas-to-write`; None: it is not set."""
    append_only: bool
    snapshots: bool | None
    """None: the user may not read it."""
    eviction: str
    memory_limit: int
    """Bytes; 0: none."""
    forbidden: tuple[str, ...] = ()
    """Commands that the user may not run, or not with the keys of this namespace."""
    latency: float = 0.0
    """Seconds of a read, the median."""


class Finding(NamedTuple):
    """One thing that was examined."""

    state: Literal["ok", "unwise", "failed"]
    found: str
    advice: str = ""


def judge(facts: EngineFacts, user: str, namespace: str, patience: float) -> Iterator[Finding]:
    """Everything that an operator should know. `patience`: seconds that a question waits for the engine."""
    yield _version(facts)
    yield _role(facts)
    yield _rights(facts.forbidden, user, namespace)
    yield _replicas(facts)
    yield _eviction(facts)
    yield _persistence(facts)
    yield _latency(facts.latency, patience)


def _version(facts: EngineFacts) -> Finding:
    oldest = OLDEST[facts.program]
    found = f"{facts.program} {_dotted(facts.version)}"
    if facts.version[: len(oldest)] < oldest:
        return Finding("failed", f"{found} is too old", f"install {facts.program} {_dotted(oldest)} or newer")
    return Finding("ok", found)


def _role(facts: EngineFacts) -> Finding:
    if facts.role != "master":
        advice = "shared.url must lead to the primary, also after a failover; ask who runs the engine for its address"
        return Finding("failed", "this is a replica, which takes no writes", advice)
    return Finding("ok", "it is the primary")


def _rights(forbidden: Sequence[str], user: str, namespace: str) -> Finding:
    if forbidden:
        advice = f"an administrator of the engine runs: {access_rule(user, namespace)}"
        return Finding("failed", f"user {user} may not run: {', '.join(forbidden)}", advice)
    return Finding("ok", f"user {user} has all rights that are needed")


def _replicas(facts: EngineFacts) -> Finding:
    is_set = facts.good_replicas is not None
    found = f"replicas: {facts.replicas}; min-replicas-to-write is {'' if is_set else 'not '}set"
    if is_set and not facts.good_replicas:
        advice = "until a replica is there, the engine may refuse all writes: start it, and see its log"
        return Finding("unwise", f"{found}, but no replica follows closely enough", advice)
    if not facts.replicas:
        return Finding("unwise", found, "add a replica: without one, what was said is lost with the engine")
    if not is_set:
        advice = (
            "set min-replicas-to-write 1: without it, both halves of a network partition take writes, and what one of "
            "them took is lost"
        )
        return Finding("unwise", found, advice)
    return Finding("ok", found)


def _eviction(facts: EngineFacts) -> Finding:
    limit = f"maxmemory {facts.memory_limit:,} bytes" if facts.memory_limit else "no maxmemory"
    found = f"{limit}, maxmemory-policy {facts.eviction}"
    if facts.eviction.startswith("allkeys"):
        advice = (
            "set maxmemory-policy volatile-ttl or noeviction: this one also removes the stream and the fences, and "
            "then all sidecars ask the backend again"
        )
        return Finding("unwise", found, advice)
    return Finding("ok", found)


def _persistence(facts: EngineFacts) -> Finding:
    if facts.append_only:
        return Finding("ok", "it writes an append-only file")
    if facts.snapshots is None:
        return Finding("ok", "no append-only file; whether it saves snapshots cannot be read")
    if facts.snapshots:
        return Finding("ok", "it saves snapshots: after a crash, all that is newer is said again")
    advice = "set appendonly yes: now a restart begins with nothing, and the backend gets more questions until then"
    return Finding("unwise", "nothing is written to disk", advice)


def _latency(seconds: float, patience: float) -> Finding:
    found = f"a read takes {seconds * 1000:.1f} ms"
    if seconds >= patience:
        advice = f"a question waits {patience * 1000:.0f} ms for it and no longer; use an engine that is nearer"
        return Finding("unwise", found, advice)
    return Finding("ok", found)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
