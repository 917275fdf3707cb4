"""The parts of the benchmark that need no other program than ours run through, and what fails is named."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import answering, checks, herd, idle, paced, rates
from bench.asking import ask
from bench.backend import PREFIX
from bench.link import press_link
from bench.paced import is_complete
from bench.peers import EMPTY, LINK, LISTENER, OURS, PEERS, Place, Server
from bench.peers.place import serving
from bench.sample import Failure, Measured, Sample, WentWrong


def of(measured: list[Measured], figure: str) -> dict[str, float]:
    """By program; the parts here have one case and one round."""
    return {each.who: each.value for each in measured if isinstance(each, Sample) and each.figure == figure}


@asynccontextmanager
async def broken(place: Place) -> AsyncIterator[Server]:
    """A program that ends at once."""
    async with serving(place, "broken", "/bin/sh", "-c", "echo no port for you; exit 1") as server:
        yield server


async def test_a_program_that_does_not_start_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PEERS, "broken", broken)
    monkeypatch.setattr(idle, "ROWS", ("broken", OURS))
    measured = [each async for each in idle.measure(1, True, print)]
    assert of(measured, "RSS MB")[OURS] > 10
    assert of(measured, "answers after s")[OURS] > 0.05
    (failure,) = (each for each in measured if isinstance(each, Failure))
    assert failure.who == "broken"
    assert "no port for you" in failure.why


async def test_a_program_with_wrong_answers_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PROXIES", (OURS, EMPTY))
    measured = [each async for each in checks.measure(1, True, print)]
    assert [type(each) for each in measured] == [Sample, Sample, Sample, Failure]
    assert "deny" in next(each.why for each in measured if isinstance(each, Failure))


async def test_decisions_are_measured_over_the_link() -> None:
    async with answering.warm(LINK) as work:
        figures = press_link(work.peer, answering.BODIES, 0.3, at_once=8)
    assert figures.per_second > 10
    assert 0 < figures.p50 <= figures.p99 <= figures.longest
    assert figures.cpu > 1e-6


async def test_the_listener_answers_without_a_decision() -> None:
    async with answering.warm(LISTENER) as work:
        reply = await ask(work.peer.port, f"{PREFIX}/validate-access", answering.QUESTIONS[0])
    assert reply.document == {"allowed": True}


@pytest.mark.parametrize("who", [LINK, OURS])
async def test_decisions_are_measured_at_a_fixed_rate(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "KEEPS_UP", 10.0)  # seconds, for a busy machine
    samples = [each async for each in rates.kept_up(who, 0, (50,), print, seconds=0.5)]
    assert {each.case for each in samples} == {"50 a second"}
    assert of(list(samples), "p50 ms")[who] > 0.05


async def test_a_rate_that_a_program_does_not_keep_up_with_has_no_figures() -> None:
    assert [each async for each in rates.kept_up(LINK, 0, (5_000_000,), print, seconds=0.2)] == []


@pytest.mark.parametrize("who", [LINK, OURS])
async def test_a_meeting_begins_over_the_link_and_over_http(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herd, "USERS", 20)
    meeting = herd.Meeting(False, 0.1, 10, (who,))
    figures = {each.figure: each.value async for each in herd.met("few", meeting, who, 0)}
    assert figures["refused"] == 0
    assert figures["validate-access at the backend"] == 20
    assert figures["room-created at the backend"] == 1
    assert 0.2 <= figures["last in s"] < 10  # ten at a time


def test_parts_that_run_one_by_one_are_together_in_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(idle, "ROWS", (EMPTY,))
    for part in ("disk", "idle", "disk"):
        assert bench.main([part, "--quick", "--into", str(tmp_path)]) == 0
    known = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert list(known) == ["idle", "disk"]
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("### Start, and while nobody asks") == page.count("### Events, on disk") == 1
    assert "s  disk, round 1" in capsys.readouterr().out


def test_a_response_is_complete_with_its_last_byte() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"
    assert [is_complete(response[:length]) for length in (10, len(response) - 1, len(response))] == [False, False, True]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n"
    assert [is_complete(chunked[:-7]), is_complete(chunked)] == [False, True]
    with pytest.raises(WentWrong, match="503"):
        is_complete(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")


async def test_a_port_that_another_program_has_taken_is_noticed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Place(tmp_path, taken.getsockname()[1], 1)
        with pytest.raises(WentWrong, match="another program has taken port"):
            async with serving(place, "idle", "/bin/sleep", "60"):
                pass
