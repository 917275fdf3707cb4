"""`check --online` and `doctor`: tests the engine that several sidecars share.

reachable, password -> version -> role -> rights -> keys -> script -> replicas -> eviction -> persistence -> latency

An engine that cannot be reached gets one line of plain text, to find out what is there instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from sidecar.cli.probe import Step
from sidecar.config.ca_file import check_engine_ca
from sidecar.config.credentials import read_token
from sidecar.config.models import Shared
from sidecar.core.contact import PATIENCE
from sidecar.core.engine_facts import access_rule, cause, judge
from sidecar.daemon.shared import open_engine
from sidecar.errors import EngineError, StartError

NAME = "engine"

WITHIN = 2.0
"""Seconds for each thing that is tried with an engine that cannot be reached."""


async def look_at_engine(shared: Shared, environ: Mapping[str, str], new_text: Callable[[int], str]) -> list[Step]:
    """Each finding is a step; no step if no engine is used. `new_text(n)` gives n random bytes in hex."""
    if shared.url is None:
        return []
    try:
        check_engine_ca(shared)
        password = read_token("shared-password", shared.password_file, environ)
        engine = open_engine(shared, password, new_text)
    except StartError as error:
        return [Step(NAME, "failed", str(error), "run it with sudo, or correct what is named here")]
    user = unquote(urlsplit(shared.url).username or "default")
    try:
        examined = await engine.examine()
    except EngineError as error:
        advice = cause(str(error), access_rule(user, shared.namespace)) or await _what_is_there(shared.url)
        return [Step(NAME, "failed", f"{_address(shared.url)} cannot be used: {error}", advice)]
    finally:
        await engine.close()
    return [Step(NAME, *finding) for finding in judge(examined, user, shared.namespace, PATIENCE)]


def _address(url: str) -> str:
    place = urlsplit(url)
    return f"{place.hostname}:{place.port or 6379}"


async def _what_is_there(url: str) -> str:
    """What to do, from what the port does with a line of plain text, and with a handshake of TLS."""
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 6379
    try:
        said = await _says(host, port)
    except ConnectionRefusedError:
        return "nothing listens there: check that the engine runs, that this is its port, and its setting bind"
    except TimeoutError:
        return "no connection: check that the machine runs, and that no firewall drops the connection"
    except (OSError, UnicodeError):  # the second: no name of a host can be like this
        return f"check the name in shared.url, and run on this machine: getent hosts {host}"
    match place.scheme, said:
        case "rediss", "+PONG" | "-NOAUTH Authentication required.":
            return "the engine has no TLS on this port: write the port that has (tls-port), or redis:// in shared.url"
        case _, said if said.startswith("-"):
            return f"the engine refuses the connection: {said[1:200]}"
        case "redis", "" if await _has_tls(host, port):
            return "this port has TLS: write rediss:// in shared.url"
        case _:
            return "it accepts connections, but does not answer as an engine does; see its log, and check the port"


async def _has_tls(host: str, port: int) -> bool:
    """Whether a handshake succeeds. Nothing is sent on this connection, so no certificate has to be right."""
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(WITHIN):
            _, writer = await asyncio.open_connection(host, port, ssl=unchecked)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def _says(host: str, port: int) -> str:
    """The first line that the port answers; empty if it closes the connection, or says nothing. Raises OSError."""
    async with asyncio.timeout(WITHIN):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(WITHIN):
            writer.write(b"PING\r\n")
            return (await reader.readline()).decode(errors="replace").strip()
    except (OSError, TimeoutError, ValueError):
        return ""
    finally:
        writer.transport.abort()
