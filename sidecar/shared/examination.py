"""What `check --online` and `doctor` find out about an engine: each command that is needed is tried, then the script.

All that is written has names of its own, and is removed at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from sidecar.core.engine_facts import EngineFacts, Examined

KEY = object()
"""In place of a key in a try."""

_TRIES: dict[str, tuple[Any, ...]] = {
    "evalsha": ("EVALSHA", "0" * 40, 0),
    "script|load": ("SCRIPT LOAD", "return 1"),
    "info": ("INFO", "server"),
    "time": ("TIME",),
    "ping": ("PING",),
    "select": ("SELECT", 0),
    "set": ("SET", KEY, "", "PX", 1000),  # for a second there is a key, of another type than what follows is for
    "get": ("GET", KEY),
    "exists": ("EXISTS", KEY),
    "pttl": ("PTTL", KEY),
    "pexpire": ("PEXPIRE", KEY, 1000),
    "hget": ("HGET", KEY, "f"),
    "hset": ("HSET", KEY, "f", ""),
    "hmget": ("HMGET", KEY, "f"),
    "hdel": ("HDEL", KEY, "f"),
    "hexists": ("HEXISTS", KEY, "f"),
    "hgetall": ("HGETALL", KEY),
    "xadd": ("XADD", KEY, "*", "f", ""),
    "xrange": ("XRANGE", KEY, "-", "+", "COUNT", 1),
    "xread": ("XREAD", "COUNT", 1, "STREAMS", KEY, "0"),
    "xinfo|stream": ("XINFO STREAM", KEY),
    "zadd": ("ZADD", KEY, 1, "m"),
    "zcount": ("ZCOUNT", KEY, 0, 1),
    "zrangebyscore": ("ZRANGEBYSCORE", KEY, 0, 1),
    "zremrangebyscore": ("ZREMRANGEBYSCORE", KEY, 0, 1),
    "del": ("DEL", KEY),
}
"""A command for each right, by its name."""

_TYPES: dict[str, tuple[Any, ...]] = {
    "generation": ("GET", KEY),
    "stream": ("XINFO STREAM", KEY),
    "members": ("ZCOUNT", KEY, 0, 1),
    "processes": ("HEXISTS", KEY, "f"),
    "orders": ("HEXISTS", KEY, "f"),
    "changes": ("ZCOUNT", KEY, 0, 1),
}
"""A command that reads each of the keys that all sidecars use, and fails if it is of another type."""

_OF_THE_SCRIPT = ("check:generation", "check:stream", "check:answer", "check:fence")


async def examine(client: Redis, key_of: Callable[[str], str], script: str) -> Examined:
    """What the engine says about itself, and what it refuses. Raises what the client raises if it cannot be reached."""
    await _connect(client)
    latency = await _latency(client)
    said = await _said(client)
    forbidden, unknown = await _refused(client, key_of("check"))
    return Examined(
        said, forbidden, unknown, await _foreign(client, key_of), await _why_not(client, key_of, script), latency
    )


async def _connect(client: Redis) -> None:
    """Raises what the engine refuses before any command: the password, the database, the right to select one."""
    try:
        await client.ping()
    except ResponseError as error:
        if "'ping'" not in str(error).lower():
            raise


async def _latency(client: Redis) -> float | None:
    """Seconds of a read, the median of five; None: the engine refuses it."""
    now, took = asyncio.get_running_loop().time, []
    try:
        for _ in range(5):
            begun = now()
            await client.time()
            took.append(now() - begun)
    except ResponseError:
        return None
    return sorted(took)[2]


async def _said(client: Redis) -> EngineFacts | None:
    """None: the engine refuses to say it."""
    try:
        said = dict(await client.info("everything"))
    except ResponseError:
        return None
    with suppress(ResponseError):  # it is not among the rights: only the advice is better with it
        said["save"] = (await client.config_get("save"))["save"]
    return _facts(said)


def _facts(said: dict[str, Any]) -> EngineFacts:
    is_valkey = said.get("server_name") == "valkey" or "valkey_version" in said
    version = str(said["valkey_version" if is_valkey and "valkey_version" in said else "redis_version"])
    return EngineFacts(
        program="Valkey" if is_valkey else "Redis",
        version=tuple(int(part) for part in version.split(".")[:3] if part.isdecimal()),
        role=str(said["role"]),
        replicas=int(said.get("connected_slaves", 0)),
        # It is said only where it is set, and then as the number of replicas that count.
        good_replicas=int(said["min_slaves_good_slaves"]) if "min_slaves_good_slaves" in said else None,
        append_only=bool(int(said.get("aof_enabled", 0))),
        snapshots=bool(said["save"]) if "save" in said else None,
        eviction=str(said.get("maxmemory_policy", "unknown")),
        memory_limit=int(said.get("maxmemory", 0)),
    )


async def _refused(client: Redis, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rights that the user lacks, and the commands that the engine does not have. Each is tried, most of them in a
    way that does nothing."""
    forbidden, unknown = [], []
    for right, words in _TRIES.items():
        try:
            await _run(client, words, key)
        except NoPermissionError:
            forbidden.append(right)
        except ResponseError as error:
            if str(error).startswith("unknown "):
                unknown.append(right)
    await _remove(client, key)
    return tuple(forbidden), tuple(unknown)


async def _foreign(client: Redis, key_of: Callable[[str], str]) -> tuple[str, ...]:
    """The keys that hold something else than a sidecar writes there."""
    found = []
    for name, words in _TYPES.items():
        try:
            await _run(client, words, key_of(name))
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                found.append(key_of(name))
    return tuple(found)


async def _why_not(client: Redis, key_of: Callable[[str], str], script: str) -> str:
    """Why the script cannot be run; empty if it can. It reads an answer that is not there, and writes as it does with
    an engine that is empty."""
    keys = [key_of(name) for name in _OF_THE_SCRIPT]
    try:
        await client.evalsha(str(await client.script_load(script)), len(keys), *keys, "read", "check")
    except ResponseError as error:
        return f"{type(error).__name__}: {str(error).partition(' script: ')[0]}"
    finally:
        await _remove(client, *keys)
    return ""


async def _run(client: Redis, words: tuple[Any, ...], key: str) -> None:
    await client.execute_command(*(key if word is KEY else word for word in words))  # type: ignore[no-untyped-call]


async def _remove(client: Redis, *keys: str) -> None:
    with suppress(ResponseError):  # then nothing could be written either
        await client.delete(*keys)
