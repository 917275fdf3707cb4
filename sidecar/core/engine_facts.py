"""What the engine of the shared memory says about itself, and what of it is wrong or not advisable.

judge     it answers: each thing that was examined
cause     it cannot be reached: what to do about it
"""

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
    """What an engine says about itself."""

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


class Examined(NamedTuple):
    """What was found out about one."""

    facts: EngineFacts | None
    """None: it refuses to say anything about itself."""
    forbidden: tuple[str, ...] = ()
    """Commands that the user may not run, or not with the keys of this namespace."""
    unknown: tuple[str, ...] = ()
    """Commands that the engine does not have."""
    foreign: tuple[str, ...] = ()
    """Keys that hold something of another type."""
    refusal: str = ""
    """Why the script cannot be run; empty: it can."""
    latency: float | None = 0.0
    """Seconds of a read, the median; None: the engine refuses it."""
    members: int | None = None
    """Sidecars that have been there in the last seconds; None: the engine refuses it."""
    database: int = 0
    """Its number."""


class Finding(NamedTuple):
    """One thing that was examined."""

    state: Literal["ok", "unwise", "failed"]
    found: str
    advice: str = ""


def judge(examined: Examined, user: str, namespace: str, patience: float) -> Iterator[Finding]:
    """Everything that an operator should know. `patience`: seconds that a question waits for the engine."""
    facts = examined.facts
    if facts is not None:
        yield _version(facts)
        yield _role(facts)
    yield _rights(examined.forbidden, user, namespace)
    if examined.unknown:
        yield _unknown(examined.unknown)
    yield from map(_foreign, examined.foreign)
    if not (examined.forbidden or examined.unknown or (facts is not None and facts.role != PRIMARY)):
        yield _script(examined.refusal)
    if facts is not None:
        yield _replicas(facts)
        yield _eviction(facts)
        yield _persistence(facts)
    if examined.latency is not None:
        yield _latency(examined.latency, patience)
    if examined.members is not None:
        yield _members(examined.members, namespace, examined.database)


PRIMARY = "master"
"""The role, as an engine names it."""


def _version(facts: EngineFacts) -> Finding:
    oldest = OLDEST[facts.program]
    found = f"{facts.program} {_dotted(facts.version)}"
    if facts.version[: len(oldest)] < oldest:
        return Finding("failed", f"{found} is too old", f"install {facts.program} {_dotted(oldest)} or newer")
    return Finding("ok", found)


def _role(facts: EngineFacts) -> Finding:
    if facts.role != PRIMARY:
        advice = "shared.url must lead to the primary, also after a failover; ask who runs the engine for its address"
        return Finding("failed", "this is a replica, which takes no writes", advice)
    return Finding("ok", "it is the primary")


def _rights(forbidden: Sequence[str], user: str, namespace: str) -> Finding:
    if forbidden:
        advice = f"an administrator of the engine runs: {access_rule(user, namespace)}"
        return Finding("failed", f"user {user} may not run: {', '.join(forbidden)}", advice)
    return Finding("ok", f"user {user} has all rights that are needed")


def _unknown(unknown: Sequence[str]) -> Finding:
    found = f"the engine does not have: {', '.join(unknown)}"
    advice = "its configuration renames these commands, or it is a service that lacks them; use one that has them all"
    return Finding("failed", found, advice)


def _foreign(key: str) -> Finding:
    advice = (
        "another program uses it: choose another shared.namespace for the sidecars, the same for all, or delete the key"
    )
    return Finding("failed", f"the key {key} holds something that no sidecar has written", advice)


def _script(refusal: str) -> Finding:
    if not refusal:
        return Finding("ok", "it carries out what a sidecar does, and writes")
    return Finding("failed", f"it does not carry out what a sidecar does: {refusal}", _after(refusal, _REFUSALS))


_REFUSALS = (
    ("OutOfMemory", "its memory is full: raise maxmemory, or remove what other programs keep there"),
    ("NOREPLICAS", "fewer replicas follow than min-replicas-to-write says: start them, or lower it"),
    ("ReadOnly", "shared.url must lead to the primary, also after a failover"),
    ("MISCONF", "it cannot write its file: see its log, and make room on its disk"),
    ("ClusterDown", "it is a node of a cluster that does not work; a sidecar needs no cluster: set cluster-enabled no"),
    ("Moved", "it is a node of a cluster, and these keys are on another node; use an engine that is no cluster"),
    ("BUSY", "it is busy with the script of another program; see its log"),
)
"""What is in the refusal of an engine, and what to do then."""


def cause(error: str, rule: str) -> str:
    """What to do about an engine that cannot be used at all. Empty if the error does not say enough. `rule`: the
    command that gives the user all rights."""
    return _after(error, (("permissions", f"an administrator of the engine runs: {rule}"), *_CAUSES))


_CAUSES = (
    ("DB index", "shared.url ends with the number of a database that the engine does not have; write /0, or no number"),
    ("SELECT is not allowed", "it is a node of a cluster, which has the database 0 only; write /0 in shared.url"),
    (
        "without any password",
        "it has no password for the user default: name the right user in shared.url (redis://USER@HOST), or remove "
        "shared.password_file",
    ),
    ("Authentication required", "write its password into shared.password_file, and the user into shared.url"),
    (
        "username-password",
        "the user is in shared.url, the password in shared.password_file: compare them with its ACL. A replica that "
        "was promoted needs the user too: it does not get users from its primary",
    ),
    ("not valid for", "its certificate is for another name: write that name in shared.url, or get one for this name"),
    ("certificate has expired", "renew the certificate of the engine"),
    ("CERTIFICATE_VERIFY", "name the CA of the engine in shared.ca_file"),
    (
        "ALERT_CERTIFICATE_REQUIRED",
        "it wants a certificate of its clients, and a sidecar has none: tls-auth-clients no",
    ),
    ("InvalidResponse", "another program answers there; write the port of the engine in shared.url"),
    ("Loading", "it reads its file from disk, which ends by itself; check again"),
)


def _after(error: str, known: Sequence[tuple[str, str]]) -> str:
    return next((advice for text, advice in known if text in error), "")


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


def _members(members: int, namespace: str, database: int) -> Finding:
    """The commonest mistake is that each shard has an engine, a database or a namespace of its own."""
    sidecars = "1 sidecar uses" if members == 1 else f"{members or 'no'} sidecars use"
    found = f"{sidecars} namespace {namespace} in database {database} now"
    if members == 1:
        advice = (
            "if there are more shards: shared.url, with the number at its end, and shared.namespace must be the same "
            "on all machines; run this check on each, and compare this line"
        )
        return Finding("unwise", found, advice)
    return Finding("ok", found)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
