"""wrk: as many requests as possible from one core, with or without kept connections."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.backend import PREFIX
from bench.peers import Server
from bench.program import CLIENT_CORE
from bench.sample import WentWrong

AT_ONCE = 32
SCRIPT = Path(__file__).with_name("load.lua")

Connections = Literal["keep", "close"]


@dataclass(frozen=True, slots=True)
class Crowd:
    """The users in the requests: their number, and how many are in each room. `body` is a request in which
    %ROOM% and %USER% are replaced by numbers."""

    body: dict[str, Any]
    users: int
    in_a_room: int = 10
    order: Literal["in turn", "random"] = "in turn"
    """`random`: each request is made when it is sent. That takes those who ask longer, so it suits one at a time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of one run; times are seconds. `cpu` is the server's CPU time for one request."""

    per_second: float
    cpu: float
    p50: float
    p99: float
    longest: float


async def press(
    server: Server, crowd: Crowd, connections: Connections, seconds: float, at_once: int = AT_ONCE
) -> Figures:
    """Send requests for this time; raises WentWrong if one answer is missing or not 200."""
    url = f"http://127.0.0.1:{server.port}{PREFIX}/validate-access"
    command = (
        "taskset", "--cpu-list", str(CLIENT_CORE), "wrk", "--threads", "1", "--connections", str(at_once),
        "--duration", f"{max(1, round(seconds))}s", "--script", str(SCRIPT), url,
        "--", json.dumps(crowd.body), str(crowd.users), str(crowd.in_a_room), connections, crowd.order,
    )  # fmt: skip
    before = server.cpu_seconds()
    wrk = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        output, _ = await asyncio.wait_for(wrk.communicate(), seconds + 30)
    finally:
        if wrk.returncode is None:
            wrk.kill()
            await wrk.wait()
    used = server.cpu_seconds() - before
    found = json.loads(output.splitlines()[-1])
    if found["broken"] or found["bad"] or not found["requests"]:
        raise WentWrong(f"not all answers were 200: {found}")
    requests = found["requests"]
    return Figures(requests / found["seconds"], used / requests, found["p50"], found["p99"], found["longest"])
