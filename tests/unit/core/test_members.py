"""Which shards may have rooms is remembered by each sidecar, for as long as the engine would remember it."""

from __future__ import annotations

import pytest

from sidecar.core.members import ALONE, AWAY, HERE, Member, Members, Process

OWN = Process(2_000, "own", "aaaa")
OTHER = Process(1_000, "other", "aaaa")
YOUNGER = Process(3_000, "younger", "aaaa")
STRANGER = Process(1_000, "stranger", "bbbb")


def a_member(shard: str, age: float = 0.0, process: Process | None = OTHER) -> Member:
    return Member(shard, age, process)


def test_a_shard_that_the_engine_has_forgotten_is_missing_and_away() -> None:
    members = Members(OWN)
    members.beat("e1", 2, 100.0)
    members.take("e1", [a_member("here"), a_member("there")], 100.0)
    members.beat("e2", 1, 101.0)
    assert members.missing([a_member("here")]) == {"there": HERE}


def test_a_shard_that_has_been_away_for_long_is_not_missing() -> None:
    members = Members(OWN)
    members.beat("e1", 1, 100.0)
    members.take("e1", [a_member("here"), a_member("gone", AWAY - 10)], 100.0)
    for second in range(1, 10):
        members.beat("e1", 1, 100.0 + second)
    assert members.missing([a_member("here")]).keys() == {"gone"}
    members.beat("e1", 1, 111.0)
    assert not members.missing([a_member("here")])


def test_the_time_in_which_the_engine_was_not_heard_does_not_count_because_all_were_away() -> None:
    members = Members(OWN)
    members.beat("e1", 2, 100.0)
    members.take("e1", [a_member("here"), a_member("there")], 100.0)
    members.beat("e1", 1, 100.0 + 10 * AWAY)
    assert members.missing([a_member("here")]) == {"there": HERE}


def test_a_shard_that_an_earlier_process_knew_is_missing_and_away() -> None:
    members = Members(OWN)
    members.recall(["there"])
    members.beat("e1", 1, 1e6)
    assert members.missing([a_member("here")]) == {"there": HERE}
    members.take("e1", [a_member("here"), a_member("there", HERE)], 1e6)
    assert members.shards == {"here", "there"}


def test_what_is_recalled_after_the_first_beat_is_given_to_the_engine_before_it_knows_all() -> None:
    members = Members(OWN)
    members.beat("e1", 1, 100.0)
    members.take("e1", [a_member("here")], 100.0)
    members.recall(["here", "there"])
    assert members.complete_in(101.0) == ""
    assert members.beat("e1", 1, 101.0)
    assert members.missing([a_member("here")]).keys() == {"there"}


def test_an_epoch_knows_all_shards_only_after_they_were_read_in_it() -> None:
    members = Members(OWN)
    assert members.complete_in(100.0) == ""
    assert members.beat("e1", 1, 100.0)
    assert members.complete_in(100.0) == ""
    members.take("e1", [], 100.0)
    assert members.complete_in(101.0) == "e1"


def test_after_a_pause_it_is_not_known_whether_the_engine_still_knows_all_shards() -> None:
    members = Members(OWN)
    members.beat("e1", 1, 100.0)
    members.take("e1", [], 100.0)
    assert members.complete_in(100.1 + HERE) == ""
    assert members.beat("e1", 1, 101.0 + HERE)
    assert members.complete_in(101.0 + HERE) == ""


def test_all_names_are_read_at_times_and_when_there_are_more_or_fewer() -> None:
    members = Members(OWN)
    members.beat("e1", 2, 100.0)
    members.take("e1", [], 100.0)
    assert not members.beat("e1", 2, 101.0)
    assert members.beat("e1", 3, 102.0)
    members.take("e1", [], 102.0)
    assert next(second for second in range(103, 140) if members.beat("e1", 3, second)) == 132


def test_sidecars_with_another_fingerprint_are_counted_while_they_are_there() -> None:
    members = Members(OWN)
    members.beat("e1", 3, 100.0)
    there = [a_member("a"), a_member("b", process=STRANGER), a_member("c", process=None)]
    members.take("e1", [*there, a_member("away", HERE + 1, STRANGER)], 100.0)
    assert members.strangers == 1


def beats(members: Members, *before: Process | None) -> list[bool]:
    found = []
    for second, process in enumerate(before):
        found.append(members.has_older_namesake(process, 100.0 + second))
        members.beat("e1", 1, 100.0 + second)
    return found


@pytest.mark.parametrize(
    "before", [[None, OWN, OWN], [OTHER, OWN, OWN], [OTHER, OTHER, OWN, OWN], [OTHER, OWN, YOUNGER]]
)
def test_a_restart_is_no_second_process_with_this_name(before: list[Process | None]) -> None:
    assert not any(beats(Members(OWN), *before))


def test_of_two_processes_with_one_name_the_younger_notices_it() -> None:
    assert beats(Members(OWN), OTHER, OTHER, OTHER) == [False, False, True]
    assert beats(Members(OWN), None, OTHER, OWN, OTHER) == [False, False, False, True]
    assert not any(beats(Members(OWN), OWN, YOUNGER, YOUNGER, YOUNGER))


@pytest.mark.parametrize("another", [OTHER, YOUNGER])
def test_who_may_share_a_name_with_another_does_not_say_that_a_room_is_nowhere(another: Process) -> None:
    members = Members(OWN)
    beats(members, another, OWN)
    members.take("e1", [a_member("here")], 101.0)
    assert not members.complete_in(100.0 + ALONE - 0.1)
    assert members.complete_in(100.0 + ALONE) == "e1"
    beats(members, OWN, another)
    assert not members.complete_in(102.0)


@pytest.mark.parametrize("text", ["", "one two", "x y z", "1 2 3 4"])
def test_a_text_that_is_no_process_is_none(text: str) -> None:
    assert Process.of(text) is None


def test_a_process_is_read_as_it_was_written() -> None:
    assert Process.of(OWN.text) == OWN


def test_names_that_could_not_be_read_when_one_came_are_read_at_the_next_beat() -> None:
    members = Members(OWN)
    members.beat("e1", 1, 100.0)
    members.take("e1", [a_member("here")], 100.0)
    assert members.beat("e1", 2, 101.0)
    assert members.beat("e1", 2, 102.0)
    members.take("e1", [a_member("here"), a_member("there")], 102.0)
    assert not members.beat("e1", 2, 103.0)
