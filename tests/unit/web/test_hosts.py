"""The MUC components that are heard: how long ago, and how many names are kept."""

from __future__ import annotations

import pytest

from sidecar.web.hosts import LONG, MOST, MOST_OVER_HTTP, Hosts
from tests.unit.disk import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hosts(clock: FakeClock) -> Hosts:
    return Hosts(clock)


def test_a_component_is_not_silent_while_one_of_its_links_is_up(hosts: Hosts, clock: FakeClock) -> None:
    first, second = hosts.linked("conference.a"), hosts.linked("conference.a")
    clock.boottime += 100
    hosts.left(first)
    clock.boottime += 50
    assert hosts.silence() == {"conference.a": 0}
    hosts.left(second)
    clock.boottime += 7
    assert hosts.silence() == {"conference.a": 7}


def test_a_question_over_http_ends_the_silence_of_its_component_alone(hosts: Hosts, clock: FakeClock) -> None:
    for name in ("conference.a", "conference.b"):
        hosts.left(hosts.linked(name))
    clock.boottime += 60
    hosts.asked_over_http('"standup@conference.b"')
    clock.boottime += 1
    assert hosts.silence() == {"conference.a": 61, "conference.b": 1}


def test_only_a_component_that_had_a_link_is_missed(hosts: Hosts, clock: FakeClock) -> None:
    hosts.left(hosts.linked("conference.a"))
    hosts.asked_over_http('"standup@conference.b"')
    clock.boottime += LONG
    assert hosts.gone() == []
    clock.boottime += 1
    (sentence,) = hosts.gone()
    assert sentence.startswith(
        "prosody: the module on conference.a had a link, and nothing was heard of it for 5.0 min"
    )
    hosts.linked("conference.a")
    assert hosts.gone() == []


def test_names_from_outside_do_not_grow_without_end(hosts: Hosts) -> None:
    for number in range(1_000):
        hosts.asked_over_http(f'"standup@made-up-{number}"')
    assert len(hosts.silence()) == MOST_OVER_HTTP
    for number in range(1_000):
        hosts.left(hosts.linked(f"conference.{number}"))
    assert len(hosts.silence()) == MOST
    assert "conference.0" in hosts.silence()


@pytest.mark.parametrize(
    "room_jid", [None, '""', '"standup@"', "1", "[]", f'"a@{"x" * 300}"', '"a@x\\u0001"', '"a@\\""']
)
def test_what_names_no_component_is_left_out(hosts: Hosts, room_jid: str | None) -> None:
    hosts.asked_over_http(room_jid)
    assert hosts.silence() == {}
