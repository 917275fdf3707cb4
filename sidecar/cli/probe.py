"""`check --online`: tests the path to the backend step by step, and at the first failure says what to do.

DNS -> TCP -> TLS -> the secret -> latency -> what helps in an outage
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import statistics
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from sidecar.backend.client import Backend, Target
from sidecar.clock import Clock, SystemClock
from sidecar.config.models import Settings
from sidecar.config.policies import policies_from
from sidecar.core.durations import span
from sidecar.core.model import CacheControl, Endpoint, Key, Misconfigured, Outcome, Query, Rejected, Replied
from sidecar.core.policy import useless_in_an_outage

ROOM = "prosody-sidecar-check"
"""The room asked about. `validate-access` changes nothing at a backend, whatever the room."""

TRIES = 5
SOON = 21
"""Days. A certificate that expires earlier gets a warning."""


@dataclass(frozen=True, slots=True)
class Step:
    """One tested step."""

    name: str
    state: Literal["ok", "unwise", "failed"]
    found: str
    advice: str = ""

    @property
    def good(self) -> bool:
        """Whether the next step can be tested."""
        return self.state != "failed"


async def look(settings: Settings, target: Target, clock: Clock | None = None) -> list[Step]:
    """Test each step until one fails."""
    clock = clock or SystemClock()
    url = urlsplit(target.url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    steps = [await _names(host, port, target, clock)]
    if steps[-1].good:
        steps.append(await _connects(host, port, target, clock))
    if steps[-1].good and url.scheme == "https":
        steps.append(await _is_trusted(host, port, target, clock))
    if steps[-1].good:
        steps += await _answers(settings, target, clock)
    return steps


async def _names(host: str, port: int, target: Target, clock: Clock) -> Step:
    begun = clock.monotonic()
    try:
        async with asyncio.timeout(10):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (TimeoutError, OSError, UnicodeError) as error:
        advice = f"check backend.url, and run on this machine: getent hosts {host}"
        return Step("DNS", "failed", f"{host} has no address: {_short(error)}", advice)
    addresses = sorted({str(each[4][0]) for each in found})
    took = clock.monotonic() - begun
    if took > target.connect_timeout:
        advice = "a slow name server makes new connections slow; check the servers in /etc/resolv.conf"
        return Step("DNS", "unwise", f"{host} is {', '.join(addresses)}, but it took {_ms(took)}", advice)
    return Step("DNS", "ok", f"{host} is {', '.join(addresses)} ({_ms(took)})")


async def _connects(host: str, port: int, target: Target, clock: Clock) -> Step:
    begun = clock.monotonic()
    try:
        async with asyncio.timeout(target.connect_timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        found = f"no connection to port {port} within {target.connect_timeout:g} s (backend.connect_timeout)"
        return Step(
            "TCP", "failed", found, "check whether the machine runs, and whether a firewall drops the connection"
        )
    except OSError as error:
        advice = "check that the meeting service runs, and that this is its port"
        return Step("TCP", "failed", f"no connection to port {port}: {_short(error)}", advice)
    took = clock.monotonic() - begun
    await _close(writer)
    return Step("TCP", "ok", f"port {port} answers ({_ms(took)})")


async def _is_trusted(host: str, port: int, target: Target, clock: Clock) -> Step:
    context = target.tls or ssl.create_default_context()
    begun = clock.monotonic()
    try:
        async with asyncio.timeout(max(5.0, target.connect_timeout)):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return Step(
            "TLS", "failed", f"the certificate is not trusted: {error.verify_message}", _how_to_fix(error, host)
        )
    except (TimeoutError, OSError) as error:
        advice = "check that this port uses TLS; if it uses plain http, write http:// in backend.url"
        return Step("TLS", "failed", f"no TLS: {_short(error)}", advice)
    took = clock.monotonic() - begun
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = connection.getpeercert() or {}
    version = connection.version()
    await _close(writer)
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    days = (ends.timestamp() - clock.wall()) / 86_400
    found = f"{version}, signed by {_issuer(certificate)}, valid for {days:.0f} more days ({_ms(took)})"
    if days < SOON:
        return Step("TLS", "unwise", found, f"it expires on {ends:%Y-%m-%d}; renew it, or check why it was not renewed")
    return Step("TLS", "ok", found)


def _how_to_fix(error: ssl.SSLCertVerificationError, host: str) -> str:
    match error.verify_code:
        case 10:
            return "it has expired: renew it on the backend"
        case 62 | 64:
            return f"it is for another name: write that name in backend.url, or use a certificate for {host}"
        case 18 | 19:
            return "it is self-signed: use a certificate of a CA on the backend, or trust this one with backend.ca_file"
        case 20 | 21:
            return "its CA is not known: let the backend send the whole chain, or name the CA in backend.ca_file"
        case _:
            return f"to see the chain, run: openssl s_client -connect {host}:443 -showcerts"


def _issuer(certificate: object) -> str:
    parts = certificate.get("issuer", ()) if isinstance(certificate, dict) else ()
    names = {key: value for group in parts for key, value in group}
    return str(names.get("organizationName") or names.get("commonName") or "a CA without a name")


async def _answers(settings: Settings, target: Target, clock: Clock) -> list[Step]:
    deadline = settings.endpoints.validate_access.deadline
    took: list[float] = []
    said = CacheControl()
    async with Backend(target, clock) as backend:
        for _ in range(TRIES):
            begun = clock.monotonic()
            outcome = await backend.ask(_question(begun), deadline)
            took.append(clock.monotonic() - begun)
            if not isinstance(outcome, Replied | Rejected):
                return [_refused(outcome, target)]
            said = outcome.cache_control
    return [await _insists(target, deadline, clock), _latency(settings, took), _in_an_outage(settings, said)]


def _question(now: float) -> Query:
    body = {"roomName": ROOM, "userJid": "check@prosody-sidecar.invalid", "userName": "check", "timestamp": 0}
    key = Key(Endpoint.VALIDATE_ACCESS, ROOM, subject="jid check@prosody-sidecar.invalid")
    return Query(key, json.dumps(body).encode(), now)


def _refused(outcome: Outcome, target: Target) -> Step:
    reason = getattr(outcome, "reason", "no answer")
    if isinstance(outcome, Misconfigured):
        if target.secret is None:
            return Step(
                "secret",
                "failed",
                f"{reason}; no secret is sent",
                "set backend.secret_file to the file with the secret",
            )
        advice = "the two secrets are different: compare them, also spaces and line ends at the end"
        return Step("secret", "failed", f"{reason}", advice)
    status = getattr(outcome, "status", None)
    advice = f"to see the answer, run: curl -i --json '{{}}' {target.url}/validate-access"
    if status == 404:
        advice = "check the path in backend.url; the endpoint's name is appended to it"
    return Step("answer", "failed", f"validate-access was not answered: {reason}", advice)


async def _insists(target: Target, deadline: float, clock: Clock) -> Step:
    """Whether the backend also answers a request without the secret."""
    if target.secret is None:
        found = "no secret is sent, and the backend still answers"
        return Step("secret", "unwise", found, "let the backend require one, or every client that reaches it can ask")
    async with Backend(replace(target, secret=None), clock) as stranger:
        outcome = await stranger.ask(_question(clock.monotonic()), deadline)
    if isinstance(outcome, Replied | Rejected):
        advice = "let the backend check X-Webhook-Secret, or every client that reaches it can ask"
        return Step("secret", "unwise", "accepted, but the backend also answers without it", advice)
    return Step("secret", "ok", "accepted, and a request without it is refused")


def _latency(settings: Settings, took: list[float]) -> Step:
    median, worst = statistics.median(took), max(took)
    found = f"median {_ms(median)}, longest {_ms(worst)}, of {len(took)} requests"
    endpoint = settings.endpoints.validate_access
    if worst >= settings.breaker.slow_after:
        advice = f"calls above breaker.slow_after ({settings.breaker.slow_after:g} s) count as failed; make it faster"
        return Step("latency", "unwise", found, advice)
    if median >= endpoint.answer_within:
        advice = (
            f"above answer_within ({endpoint.answer_within:g} s), cached answers are used; make the backend faster, "
            "or raise answer_within"
        )
        return Step("latency", "unwise", found, advice)
    return Step("latency", "ok", found)


def _in_an_outage(settings: Settings, said: CacheControl) -> Step:
    """Whether the answers can be kept for an outage. The answer here is most often a deny, but a framework sends the
    same headers with all answers."""
    policy = policies_from(settings)(Endpoint.VALIDATE_ACCESS, ROOM)
    forbids = useless_in_an_outage(policy, said)
    if not forbids:
        return Step(
            "outage", "ok", f"nothing in the answer shortens allow.stale_if_error ({span(policy.allow.stale_if_error)})"
        )
    found = f"the answer must not be cached (Cache-Control: {forbids}): in an outage, no known user will be let in"
    advice = (
        "write backend.cache_control: ignore, or let the backend send the answers without this header "
        "(Spring Security: headers.cacheControl().disable()); if only its denies have it, all is well"
    )
    return Step("outage", "unwise", found, advice)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (TimeoutError, OSError):
        return  # the test was only whether it opens


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"


def _short(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:200] or type(error).__name__
