"""The connections to the backend: nothing that comes on one reaches a question that it does not belong to."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.backend import pool
from sidecar.backend.client import Backend, Target
from sidecar.core.model import Failure, Outcome, Rejected, Replied, Unavailable
from tests.rig.raw import RawBackend, http
from tests.unit.builders import a_query, make_certificate
from tests.unit.disk import FakeClock

ANN, MALLORY = {"user": "ann"}, {"user": "mallory"}


def by_user(question: dict[str, Any]) -> bytes:
    """Ann may come in and Mallory may not; each answer names the one who asked."""
    return http(decision_of(question["user"]))


def decision_of(user: str) -> dict[str, Any]:
    return {"allowed": user == "ann", "reason": None, "meetingTitle": user}


@pytest.fixture(params=["http", "https"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RawBackend]:
    tls = None
    if request.param == "https":
        make_certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with RawBackend(by_user, host="localhost" if tls else "127.0.0.1", tls=tls) as raw:
        yield raw


@pytest.fixture
async def backend(service: RawBackend, tmp_path: Path) -> AsyncIterator[Backend]:
    certificate = tmp_path / "cert.pem"
    trust = ssl.create_default_context(cafile=str(certificate)) if certificate.exists() else None
    async with Backend(Target(service.url, tls=trust), FakeClock()) as client:
        yield client


async def ask(backend: Backend, question: dict[str, Any]) -> Outcome:
    return await backend.ask(a_query()._replace(body=json.dumps(question).encode()), 5.0)


def title(outcome: Outcome) -> object:
    assert isinstance(outcome, Replied | Rejected), outcome
    return json.loads(outcome.body)["meetingTitle"]


async def turns_of_the_loop(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_questions_share_a_connection(backend: Backend, service: RawBackend) -> None:
    assert [title(await ask(backend, who)) for who in (ANN, MALLORY, ANN)] == ["ann", "mallory", "ann"]
    assert service.connections == [0, 0, 0]


@pytest.mark.parametrize("read", [True, False], ids=["read", "still in the kernel"])
@pytest.mark.parametrize(
    "unasked",
    [by_user(ANN), by_user(ANN)[:40], b"H", b"garbage", b"HTTP/1.1 408 Request Timeout\r\n\r\n"],
    ids=["an answer", "half an answer", "a byte", "garbage", "408"],
)
async def test_a_connection_with_data_that_comes_unasked_is_not_used_again(
    backend: Backend, service: RawBackend, unasked: bytes, read: bool
) -> None:
    assert title(await ask(backend, ANN)) == "ann"
    service.write_unasked(unasked)
    await turns_of_the_loop(10 if read else 0)
    assert title(await ask(backend, MALLORY)) == "mallory"
    assert service.connections == [0, 1]


async def test_the_time_of_an_answer_ends_when_it_arrives_and_not_when_it_is_read(
    backend: Backend, service: RawBackend
) -> None:
    loop = asyncio.get_running_loop()

    def then_this_process_is_late(question: dict[str, Any]) -> bytes:
        loop.call_soon(time.sleep, 0.4)  # before the event loop reads the answer
        return by_user(question)

    def after_a_while(question: dict[str, Any]) -> bytes:
        loop.call_later(0.3, service.write_unasked, by_user(question))
        return b""

    begun = loop.time()
    service.answer = then_this_process_is_late
    outcome = await ask(backend, ANN)
    assert outcome.took is not None
    assert outcome.took < 0.2 < 0.4 <= loop.time() - begun
    service.answer = after_a_while
    outcome = await ask(backend, ANN)
    assert outcome.took is not None
    assert outcome.took > 0.25


async def test_a_connection_that_the_backend_has_closed_is_not_used_again(
    backend: Backend, service: RawBackend
) -> None:
    assert title(await ask(backend, ANN)) == "ann"
    service.open[0].close()
    await turns_of_the_loop()
    assert title(await ask(backend, MALLORY)) == "mallory"


async def test_a_second_answer_is_for_nobody_wherever_the_network_cuts_it() -> None:
    answer, second = by_user(MALLORY), by_user(ANN)
    async with RawBackend(lambda _: b"") as service, Backend(Target(service.url), FakeClock()) as backend:
        for cut in range(len(second) + 1):
            service.answer = lambda _, cut=cut: answer + second[:cut]  # type: ignore[misc]
            first = await ask(backend, MALLORY)
            service.write_unasked(second[cut:])
            service.answer = by_user
            assert isinstance(first, Unavailable) or title(first) == "mallory"
            assert title(await ask(backend, MALLORY)) == "mallory"
            assert service.connections[-1] != service.connections[-2] or cut == len(second)


async def test_of_an_answer_that_is_longer_than_it_says_nothing_is_left_for_the_next(
    backend: Backend, service: RawBackend
) -> None:
    service.answer = lambda _: http(decision_of("ann"), length=20)
    assert isinstance(await ask(backend, ANN), Unavailable)
    service.answer = by_user
    assert title(await ask(backend, MALLORY)) == "mallory"
    assert service.connections == [0, 1]


async def test_an_answer_to_nothing_on_a_new_connection_is_not_used() -> None:
    async with RawBackend(by_user) as service, Backend(Target(service.url), FakeClock()) as backend:
        service.greeting = by_user(ANN)
        outcome = await ask(backend, MALLORY)
    assert isinstance(outcome, Unavailable)
    assert (outcome.failure, outcome.reason) == (
        Failure.UNSENT,
        "the backend closed a new connection, or sent data on it, before it was asked",
    )


async def test_of_200_broken_answers_none_reaches_the_other_user() -> None:
    draw = random.Random(7)
    wrong: list[str] = []
    answered = 0
    async with RawBackend(by_user) as service, Backend(Target(service.url), FakeClock()) as backend:
        for number in range(200):
            user, other = draw.sample(["ann", "mallory"], 2)
            mine, others = http(decision_of(user)), http(decision_of(other))
            sort = draw.choice(["whole", "late", "doubled", "longer", "cut", "split"])
            cut = draw.randrange(len(mine))
            now, later = {
                "whole": (mine, b""),
                "late": (mine, others),
                "doubled": (mine + others, b""),
                "longer": (mine + others[cut:], b""),
                "cut": (mine[:cut], None),
                "split": (mine + others[:cut], others[cut:]),
            }[sort]
            service.answer = lambda _, now=now: now  # type: ignore[misc]
            asked = asyncio.ensure_future(ask(backend, {"user": user, "number": number}))
            if later is None:
                while len(service.asked) == 0 or service.asked[-1][2].get("number") != number:
                    await asyncio.sleep(0)
                await turns_of_the_loop(2)
                service.open[service.connections[-1]].close()
            outcome = await asked
            if later:
                service.write_unasked(later)
                await turns_of_the_loop(draw.randrange(3))
            if isinstance(outcome, Replied | Rejected):
                answered += 1
                if title(outcome) != user:
                    wrong.append(f"{number} {sort} {cut}: {user} got {outcome.body!r}")
    assert wrong == []
    assert answered > 100


async def test_two_users_at_the_same_time_get_their_own_answers(backend: Backend, service: RawBackend) -> None:
    draw = random.Random(8)
    service.answer = lambda question: by_user(question) + by_user(ANN)[: draw.choice([0, 0, 0, 1, 30, 200])]
    for _ in range(50):
        users = [draw.choice([ANN, MALLORY]) for _ in range(2)]
        outcomes = await asyncio.gather(*(ask(backend, who) for who in users))
        for who, outcome in zip(users, outcomes, strict=True):
            assert isinstance(outcome, Unavailable) or title(outcome) == who["user"]


async def test_a_connection_has_a_longest_age(
    backend: Backend, service: RawBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(backend, ANN)
    monkeypatch.setattr(pool, "OLDEST_CONNECTION", 0.0)
    await ask(backend, ANN)
    assert service.connections == [0, 1]


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-{number}: v" for number in range(498)],
        ["Content-Security-Policy: " + "a" * 60_000],
        [f"X-{number}: " + "a" * 1000 for number in range(60)],
    ],
    ids=["500 headers", "one of 60 kB", "60 of 1 kB"],
)
async def test_long_headers_are_read(backend: Backend, service: RawBackend, headers: list[str]) -> None:
    service.answer = lambda question: http(decision_of(question["user"]), headers=headers)
    assert (title(await ask(backend, ANN)), title(await ask(backend, MALLORY))) == ("ann", "mallory")


@pytest.mark.parametrize(
    "headers",
    [
        ["X: " + "a" * 2 * pool.HEAD_LIMIT],
        ["X: " + "a" * 1000] * 500,
        [f"X-{number}: v" for number in range(pool.HEADERS_LIMIT)],
    ],
    ids=["one too long", "too long together", "too many"],
)
async def test_headers_without_end_are_not_read_and_the_reason_says_so(
    backend: Backend, service: RawBackend, headers: list[str]
) -> None:
    service.answer = lambda _: http(decision_of("ann"), headers=headers)
    outcome = await ask(backend, ANN)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "the headers of the answer are over 131072 bytes, or more than 1000"


# --- the backend's name ------------------------------------------------------------------------------------------


class Dns:
    """The machine's resolver, which knows one name."""

    def __init__(self) -> None:
        self.address = "127.0.0.2"
        self.lookups = 0

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        assert host == "backend.test"
        self.lookups += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    machine = Dns()
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        return machine.getaddrinfo(host, port) if host == "backend.test" else known(host, port, family, type, proto)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return machine


async def test_a_refused_connection_forgets_the_address_at_once(dns: Dns) -> None:
    async with RawBackend(by_user, host="127.0.0.2") as old, RawBackend(by_user, host="127.0.0.3") as new:
        await new.stop()
        new.port = old.port
        await new.listen()
        async with Backend(Target(f"http://backend.test:{old.port}/w"), FakeClock()) as backend:
            await ask(backend, ANN)
            await old.stop()
            await turns_of_the_loop()
            dns.address = "127.0.0.3"
            outcomes = [await ask(backend, ANN) for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] in ([Unavailable, Replied, Replied], [Replied, Replied, Replied])
    assert len(new.asked) >= 2


async def test_dns_is_not_asked_for_each_question(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OLDEST_CONNECTION", 0.0)
    async with (
        RawBackend(by_user, host="127.0.0.2") as service,
        Backend(Target(f"http://backend.test:{service.port}/w"), FakeClock()) as backend,
    ):
        for _ in range(5):
            await ask(backend, ANN)
    assert (len(set(service.connections)), dns.lookups) == (5, 1)


async def test_what_follows_a_long_answer_is_for_nobody(backend: Backend, service: RawBackend) -> None:
    service.answer = lambda _: http(decision_of("ann") | {"x": "y" * 900_000}) + by_user(ANN)
    assert title(await ask(backend, ANN)) == "ann"
    service.answer = by_user
    assert title(await ask(backend, MALLORY)) == "mallory"
    assert service.connections == [0, 1]
