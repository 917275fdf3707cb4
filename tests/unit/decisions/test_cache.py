"""What is remembered, what falls off the end, what an operator purges, and when a room's allows are suspect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.model import ANSWERS, Entry, Key, Lifetimes, Verdict
from sidecar.core.selection import Change, Selector, named
from sidecar.decisions.cache import Cache, Limits
from tests.unit.builders import LOBBY, a_config_key, a_key, an_entry

NEVER = float("-inf")


def a_cache(allows: int = 10, denies: int = 10, configs: int = 10) -> Cache:
    """An empty cache."""
    return Cache(Limits(allows, denies, configs))


def contents(cache: Cache) -> dict[Key, Verdict]:
    """What a cache holds."""
    return {key: entry.verdict for key, entry in cache.items()}


# ---- keys and entries


def test_what_was_put_is_what_one_gets() -> None:
    cache = a_cache()
    assert cache.put(a_key(), an_entry())
    assert cache.get(a_key()) == an_entry()
    assert len(cache) == cache.count(Verdict.ALLOW) == 1


def test_an_unknown_key_is_a_miss() -> None:
    assert a_cache().get(a_key()) is None
    assert a_cache().get(a_config_key()) is None


def test_a_room_config_and_a_decision_of_one_room_do_not_meet() -> None:
    cache = a_cache()
    cache.put(a_config_key(), an_entry(Verdict.CONFIG))
    cache.put(a_key(), an_entry())
    assert contents(cache) == {a_config_key(): Verdict.CONFIG, a_key(): Verdict.ALLOW}


@pytest.mark.parametrize(("first", "second"), [(Verdict.ALLOW, Verdict.DENY), (Verdict.DENY, Verdict.ALLOW)])
def test_an_allow_and_a_deny_take_each_others_place(first: Verdict, second: Verdict) -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry(first))
    cache.put(a_key(), an_entry(second))
    assert contents(cache) == {a_key(): second}
    assert len(cache) == 1


def test_an_entry_is_kept_however_old_it_is() -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry(asked_at=-1e9, lifetimes=Lifetimes(0, 0, 0)))
    assert cache.get(a_key()) is not None


@pytest.mark.parametrize("key", [a_key(), a_config_key()])
def test_what_was_dropped_is_gone(key: Key) -> None:
    cache = a_cache()
    cache.put(key, an_entry(Verdict.CONFIG if key == a_config_key() else Verdict.DENY))
    cache.drop(key)
    assert cache.get(key) is None


# ---- bounds


def test_many_denied_users_evict_nothing_but_denies() -> None:
    cache = a_cache(allows=2, denies=3, configs=2)
    friends = {a_key(subject="jid ann@example.org"): Verdict.ALLOW, a_config_key(): Verdict.CONFIG}
    for key, verdict in friends.items():
        cache.put(key, an_entry(verdict))
    for number in range(1000):
        cache.put(a_key(f"made-up {number}", f"jid {number}@example.org"), an_entry(Verdict.DENY))
    assert friends.items() <= contents(cache).items()
    assert cache.count(Verdict.DENY) == 3


def test_a_flood_of_made_up_rooms_pushes_out_nothing_but_configs() -> None:
    cache = a_cache(configs=3)
    cache.put(a_key(), an_entry())
    for number in range(100):
        cache.put(a_config_key(f"made-up {number}"), an_entry(Verdict.CONFIG))
    assert cache.count(Verdict.CONFIG) == 3
    assert cache.get(a_key()) is not None


def test_what_was_used_least_lately_is_pushed_out_first() -> None:
    cache = a_cache(allows=2)
    cache.put(a_key("old"), an_entry())
    cache.put(a_key("new"), an_entry())
    cache.get(a_key("old"))
    cache.put(a_key("newest"), an_entry())
    assert set(contents(cache)) == {a_key("old"), a_key("newest")}


def test_looking_at_everything_is_no_use_of_it() -> None:
    cache = a_cache(allows=2)
    cache.put(a_key("old"), an_entry())
    cache.put(a_key("new"), an_entry())
    cache.get(a_key("old"))
    assert len(list(cache.items())) == 2
    cache.put(a_key("newest"), an_entry())
    assert set(contents(cache)) == {a_key("old"), a_key("newest")}


def test_who_has_to_wait_in_the_lobby_is_an_allow_with_a_place_of_its_own() -> None:
    cache = a_cache(allows=2)
    waits = a_key(subject="jid bob@example.org")
    cache.put(waits, an_entry())
    cache.put(waits, an_entry(body=LOBBY))
    for number in range(10):
        cache.put(a_key("large", f"jid {number}@example.org"), an_entry())
    assert cache.get(waits) == an_entry(body=LOBBY)
    assert len(cache) == cache.count(Verdict.ALLOW) == 3
    cache.put(waits, an_entry())
    assert len(cache) == cache.count(Verdict.ALLOW) == 2
    assert cache.get(waits) == an_entry()


def test_who_only_waits_in_the_lobbies_of_made_up_rooms_brings_none_of_them_into_use() -> None:
    cache = a_cache(denies=3)
    banned, waits = a_key(subject="jid mallory@example.org"), a_key(subject="jid bob@example.org")
    cache.put(a_key(), an_entry())
    cache.put(banned, an_entry(Verdict.DENY))
    cache.put(waits, an_entry(body=LOBBY))
    for number in range(1000):
        cache.put(a_key(f"made-up {number}"), an_entry(body=LOBBY))
        cache.put(a_key(f"another {number}"), an_entry(Verdict.DENY))
    assert contents(cache).items() >= {banned: Verdict.DENY, waits: Verdict.ALLOW}.items()
    assert cache.count(Verdict.ALLOW) == 4


def test_what_was_restored_for_the_lobby_is_not_taken_for_an_allow() -> None:
    cache = a_cache(allows=1)
    rows = [(a_key("a"), an_entry(body=LOBBY)), (a_key("b"), an_entry()), (a_key("c"), an_entry())]
    assert cache.restore_all(rows) == []
    assert cache.restore_all([(a_key("a"), an_entry())]) == [a_key("a")]
    assert dict(cache.items()) == dict(rows[:1] + rows[2:])


def test_a_deny_and_a_config_of_a_room_in_use_outlive_a_flood_of_made_up_rooms() -> None:
    cache = a_cache(denies=3, configs=3)
    banned = a_key(subject="jid mallory@example.org")
    cache.put(banned, an_entry(Verdict.DENY))
    cache.put(a_config_key(), an_entry(Verdict.CONFIG))
    cache.put(a_key(), an_entry())
    for number in range(1000):
        cache.put(a_key(f"made-up {number}", "jid mallory@example.org"), an_entry(Verdict.DENY))
        cache.put(a_config_key(f"made-up {number}"), an_entry(Verdict.CONFIG))
    assert cache.get(banned) is not None
    assert cache.get(a_config_key()) is not None
    assert (cache.count(Verdict.DENY), cache.count(Verdict.CONFIG)) == (3, 3)


def test_the_deny_that_took_the_only_allow_of_a_room_away_outlives_a_flood_of_made_up_rooms() -> None:
    cache = a_cache(denies=3)
    cache.put(a_key(), an_entry())
    cache.put(a_key(), an_entry(Verdict.DENY))
    for number in range(1000):
        cache.put(a_key(f"made-up {number}"), an_entry(Verdict.DENY))
    assert cache.get(a_key()) == an_entry(Verdict.DENY)


# ---- what is to be written to disk


def test_every_change_is_noted_for_the_disk() -> None:
    cache = a_cache(denies=1)
    cache.put(a_key("kept"), an_entry())
    cache.put(a_key("dropped"), an_entry())
    cache.drop(a_key("dropped"))
    cache.put(a_key("pushed out"), an_entry(Verdict.DENY))
    cache.put(a_key("turned"), an_entry())
    cache.put(a_key("turned"), an_entry(Verdict.DENY))
    assert cache.dirty == {
        a_key("kept"): an_entry(),
        a_key("dropped"): None,
        a_key("pushed out"): None,
        a_key("turned"): an_entry(Verdict.DENY),
    }


def test_what_the_disk_remembers_is_put_back_and_need_not_be_written_again() -> None:
    cache = a_cache()
    assert cache.restore(a_key(), an_entry(asked_at=-50.0))
    assert cache.get(a_key()) == an_entry(asked_at=-50.0)
    assert not cache.dirty


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.DENY])
def test_what_the_disk_remembers_does_not_take_the_place_of_what_is_known_by_now(verdict: Verdict) -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry(verdict, asked_at=10.0))
    cache.dirty.clear()
    assert not cache.restore(a_key(), an_entry(asked_at=9.0))
    assert cache.get(a_key()) == an_entry(verdict, asked_at=10.0)


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.DENY])
@pytest.mark.parametrize("written", [True, False])
def test_at_start_an_allow_on_disk_does_not_take_the_place_of_what_is_known_by_now(
    verdict: Verdict, written: bool
) -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry(verdict, asked_at=10.0))
    if written:
        cache.dirty.clear()
    rows = [(a_key(), an_entry(asked_at=9.0)), (a_key("retro"), an_entry(asked_at=9.0))]
    assert cache.restore_all(rows) == [a_key()]
    assert contents(cache) == {a_key(): verdict, a_key("retro"): Verdict.ALLOW}


def test_what_was_dropped_is_not_put_back_from_a_disk_that_does_not_know_yet() -> None:
    cache = a_cache()
    cache.drop(a_key())
    assert not cache.restore(a_key(), an_entry())
    assert cache.get(a_key()) is None


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.DENY])
def test_what_was_purged_is_not_put_back_from_the_disk(verdict: Verdict) -> None:
    cache = a_cache()
    cache.purge(10.0, Selector())
    assert not cache.restore(a_key(), an_entry(verdict, asked_at=10.0))
    assert cache.get(a_key()) is None


# ---- purges


def test_a_purge_forgets_what_it_means_and_says_how_much() -> None:
    cache = a_cache()
    for room in ("standup", "retro"):
        cache.put(a_key(room), an_entry())
        cache.put(a_config_key(room), an_entry(Verdict.CONFIG))
    assert cache.purge(10.0, Selector(room="standup")) == 2
    assert set(contents(cache)) == {a_key("retro"), a_config_key("retro")}
    assert cache.dirty[a_key("standup")] is None


def test_a_purge_of_everything_leaves_nothing() -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry())
    cache.put(a_key("retro"), an_entry(Verdict.DENY))
    cache.put(a_config_key(), an_entry(Verdict.CONFIG))
    assert cache.purge(10.0, Selector()) == 3
    assert len(cache) == 0


def test_an_answer_to_a_question_from_before_a_purge_is_not_remembered() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector(room="standup"))
    assert not cache.put(a_key(), an_entry(asked_at=10.0))
    assert cache.get(a_key()) is None
    assert cache.put(a_key(), an_entry(asked_at=10.001))
    assert cache.put(a_key("retro"), an_entry(asked_at=9.0))


def test_a_deny_from_before_a_purge_takes_away_an_allow_all_the_same_and_answers_nobody() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector())
    cache.put(a_key(), an_entry(asked_at=11.0))
    deny = an_entry(Verdict.DENY, asked_at=9.0, settled_at=12.0)
    assert not cache.put(a_key(), deny)
    tombstone = Entry(Verdict.DENY, deny.body, 9.0, 12.0, Lifetimes(0, 0, 0))
    assert cache.get(a_key()) == cache.dirty[a_key()] == tombstone


def test_a_lobby_from_before_a_purge_takes_away_an_allow_all_the_same_and_is_no_answer() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector())
    cache.put(a_key(), an_entry(asked_at=11.0))
    assert not cache.put(a_key(), an_entry(body=LOBBY, asked_at=9.0, settled_at=12.0))
    entry = cache.get(a_key())
    assert entry is not None
    assert (entry.body, entry.lifetimes.total) == (LOBBY, 0)


def test_a_user_who_is_revoked_in_the_lobby_is_out_of_it_also_if_the_answer_was_under_way() -> None:
    cache = a_cache()
    cache.put(a_key(), an_entry(body=LOBBY, asked_at=9.0))
    assert cache.purge(10.0, Selector(), Change.REVOKE) == 1
    assert contents(cache) == {a_key(): Verdict.DENY}
    assert not cache.put(a_key(), an_entry(body=LOBBY, asked_at=9.5))
    assert contents(cache) == {a_key(): Verdict.DENY}
    cache.put(a_key(), an_entry(asked_at=11.0))
    assert not cache.put(a_key(), an_entry(body=LOBBY, asked_at=9.5, settled_at=12.0))
    entry = cache.get(a_key())
    assert entry is not None
    assert (entry.body, entry.lifetimes.total) == (LOBBY, 0), "it takes the allow away, and is no answer"


def test_a_user_who_is_kicked_before_the_disk_is_read_is_kept_out_like_anybody_who_was_kicked() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector(), Change.REVOKE)
    assert cache.restore_all([(a_key(), an_entry(asked_at=9.0))]) == [a_key()]
    entry = cache.get(a_key())
    assert entry is not None
    assert (entry.verdict, entry.lifetimes.total) == (Verdict.DENY, 0)
    assert cache.dirty == {a_key(): entry}


ANN = Selector("standup", "ann@example.org")


def test_who_is_put_out_is_kept_out_under_every_key_also_after_a_restart() -> None:
    before = a_cache()
    before.purge(10.0, replace(ANN, room_jid="standup@muc.example.org"), Change.REVOKE)
    after = a_cache()
    assert not after.restore_all([(key, row) for key, row in before.dirty.items() if row is not None])
    for subject in ("jid ann@example.org", 'email "ann@example.org"', 'id+email ["42", "ann@example.org"]'):
        key = a_key(subject=subject)._replace(meeting_id='"m"', room_jid='"standup@muc.example.org"')
        entry = after.get(key)
        assert entry is not None
        assert (entry.verdict, entry.asked_at, entry.lifetimes.total) == (Verdict.DENY, 10.0, 0)
        assert after.get(key._replace(room_jid='"standup@another.example.org"')) is None
        assert after.get(key._replace(room="retro")) is None
    assert after.get(a_key(subject="jid bob@example.org")) is None


def test_an_order_that_is_heard_again_puts_nobody_out_whom_the_backend_has_let_in_since() -> None:
    cache = a_cache()
    cache.purge(10.0, ANN, Change.REVOKE)
    cache.put(a_key(), an_entry(asked_at=11.0))
    cache.purge(10.0, ANN, Change.REVOKE)
    assert contents(cache) == {a_key(): Verdict.ALLOW}


def test_an_order_that_is_heard_after_a_later_purge_puts_nobody_out() -> None:
    cache = a_cache()
    cache.purge(10.0, ANN)
    cache.purge(9.0, ANN, Change.REVOKE)
    assert not contents(cache)


def test_many_who_were_put_out_take_no_more_places_than_denies_have() -> None:
    cache = Cache(Limits(denies=10))
    for number in range(100):
        cache.purge(float(number), Selector(f"room {number}", "ann@example.org"), Change.REVOKE)
    assert len(cache) == 10
    assert len(cache._with_marks) <= 20
    assert cache.get(a_key("room 99")) is not None


def test_an_older_purge_still_counts_after_a_newer_one() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector(room="standup"))
    cache.purge(11.0, Selector(room="retro"))
    assert not cache.put(a_key("standup"), an_entry(asked_at=9.0))


def test_a_purge_is_remembered_for_longer_than_a_question_can_be_under_way() -> None:
    cache = a_cache()
    cache.purge(10.0, Selector(room="standup"))
    cache.purge(70.0, Selector(room="retro"))
    assert not cache.put(a_key(), an_entry(asked_at=9.0))
    cache.purge(70.1, Selector(room="retro"))
    assert cache.put(a_key(), an_entry(asked_at=9.0))


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("guest", "guest"),
        ("jid ann@example.org", "ann@example.org"),
        ("jid ann@example.org", "jid ann@example.org"),
        ('email "ann@mail.example"', "ann@mail.example"),
        ('jid+email ["ann@example.org", "ann@mail.example"]', "ann@example.org"),
        ('jid+email ["ann@example.org", "ann@mail.example"]', "ann@mail.example"),
        ('id "ann"', "ann"),
        ('id+email ["Ann Lee", "ann@mail.example"]', "Ann Lee"),
        ('id "J\\u00f6rg"', "Jörg"),
        ('id "say \\"hi\\""', 'say "hi"'),
        ("id 7", "7"),
        ('id "7"', "7"),
    ],
)
def test_an_operator_means_a_subject_by_its_jid_or_user_id(subject: str, name: str) -> None:
    assert named(subject, name)
    assert Selector(subject=name).fits(a_key(subject=subject))


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("guest", ""),
        ("guest", "gue"),
        ("jid ann@example.org", "jid"),
        ("jid ann@example.org", "ann"),
        ("jid ann@example.org", "ann@example"),
        ("jid ann@example.org", "joann@example.org"),
        ('jid+email ["ann@example.org", "ann@mail.example"]', "mail.example"),
        ('id "Ann Lee"', "Ann"),
        ('id "ann"', "id"),
        ("id 77", "7"),
    ],
)
def test_an_operator_does_not_mean_somebody_with_a_similar_name(subject: str, name: str) -> None:
    assert not Selector(subject=name).fits(a_key(subject=subject))


def test_a_selector_of_a_user_means_no_room_config() -> None:
    assert not Selector(subject="guest").fits(a_config_key())
    assert Selector().fits(a_config_key())


def test_a_selector_of_room_and_user_means_only_both() -> None:
    selector = Selector("standup", "ann@example.org")
    assert selector.fits(a_key())
    assert not selector.fits(a_key("retro"))
    assert not selector.fits(a_key(subject="jid bob@example.org"))


# ---- guests


def test_guests_share_their_answers_until_the_backend_says_private() -> None:
    cache = a_cache()
    shared = a_key(subject="guest")
    cache.put(shared, an_entry())
    assert not cache.guests_are_separate("standup")
    cache.separate_guests(shared, 10.0)
    assert cache.guests_are_separate("standup")
    assert not cache.guests_are_separate("retro")
    assert cache.get(shared) is None


def test_that_guests_are_separate_is_restored_and_is_no_answer() -> None:
    cache, later = a_cache(), a_cache()
    cache.separate_guests(a_key(subject="guest"), 10.0)
    later.restore_all((key, entry) for key, entry in cache.dirty.items() if entry is not None)
    assert later.guests_are_separate("standup")
    assert not later.guests_are_separate("retro")
    assert later.get(a_key(subject="guest")) is None
    assert [later.count(verdict) for verdict in ANSWERS] == [0, 0, 0]


def test_that_guests_are_separate_outlives_a_flood_of_private_answers_elsewhere() -> None:
    cache = a_cache(denies=3)
    cache.put(a_key(), an_entry())
    cache.separate_guests(a_key(subject="guest"), 10.0)
    for number in range(100):
        cache.separate_guests(a_key(f"made-up {number}", "guest"), 10.0)
    assert cache.guests_are_separate("standup")
    assert not cache.guests_are_separate("made-up 0")


@pytest.mark.parametrize(
    ("selector", "separate"),
    [
        (Selector(), False),
        (Selector(room="standup"), False),
        (Selector(room="retro"), True),
        (Selector(subject="guest"), True),
        (Selector(room="standup", subject="ann@example.org"), True),
    ],
)
def test_a_purge_of_a_user_leaves_the_guests_separate(selector: Selector, separate: bool) -> None:
    cache = a_cache()
    cache.separate_guests(a_key(subject="guest"), 10.0)
    cache.purge(20.0, selector)
    assert cache.guests_are_separate("standup") is separate


# ---- suspicion


def test_without_a_deny_nobody_is_suspect() -> None:
    assert a_cache().suspect_before("standup", 100.0, 5.0) == NEVER


def test_a_deny_makes_what_was_asked_before_it_suspect_at_once_and_in_its_room_only() -> None:
    cache = a_cache()
    cache.suspect("standup", 100.0, 5.0)
    assert cache.suspect_before("standup", 100.0, 5.0) == 100.0
    assert cache.suspect_before("retro", 100.0, 5.0) == NEVER


def test_a_second_deny_within_the_time_waits_for_its_turn_and_is_not_lost() -> None:
    cache = a_cache()
    cache.suspect("standup", 100.0, 5.0)
    cache.suspect("standup", 103.0, 5.0)
    assert cache.suspect_before("standup", 104.99, 5.0) == 100.0
    assert cache.suspect_before("standup", 105.0, 5.0) == 103.0


def test_of_several_denies_that_wait_the_last_one_counts() -> None:
    cache = a_cache()
    for now in (100.0, 101.0, 104.0):
        cache.suspect("standup", now, 5.0)
    assert cache.suspect_before("standup", 105.0, 5.0) == 104.0
    assert cache.suspect_before("standup", 1000.0, 5.0) == 104.0


def test_a_deny_after_the_time_counts_at_once() -> None:
    cache = a_cache()
    cache.suspect("standup", 100.0, 5.0)
    cache.suspect("standup", 105.0, 5.0)
    assert cache.suspect_before("standup", 105.0, 5.0) == 105.0


def test_a_deny_after_the_time_counts_instead_of_one_that_waited() -> None:
    cache = a_cache()
    for now in (100.0, 101.0, 110.0):
        cache.suspect("standup", now, 5.0)
    assert cache.suspect_before("standup", 110.0, 5.0) == 110.0
    assert cache.suspect_before("standup", 115.0, 5.0) == 110.0


def test_a_deferred_deny_begins_a_time_of_its_own() -> None:
    cache = a_cache()
    cache.suspect("standup", 100.0, 5.0)
    cache.suspect("standup", 101.0, 5.0)
    assert cache.suspect_before("standup", 105.0, 5.0) == 101.0
    cache.suspect("standup", 106.0, 5.0)
    assert cache.suspect_before("standup", 109.9, 5.0) == 101.0
    assert cache.suspect_before("standup", 110.0, 5.0) == 106.0


def test_a_user_who_is_denied_again_and_again_makes_a_room_suspect_only_once_per_period() -> None:
    cache = a_cache()
    instants = set()
    for second in range(1000):
        cache.suspect("standup", float(second), 5.0)
        instants.add(cache.suspect_before("standup", float(second), 5.0))
    assert len(instants) == 200


def test_a_deny_that_the_disk_remembers_makes_its_room_suspect_again() -> None:
    cache = a_cache()
    cache.restore(a_key(), an_entry(Verdict.DENY, asked_at=90.0, settled_at=91.0))
    assert cache.suspect_before("standup", 100.0, 5.0) == 91.0
    assert cache.suspect_before("retro", 100.0, 5.0) == NEVER


@pytest.mark.parametrize("instants", [(91.0, 95.0), (95.0, 91.0)])
def test_of_several_denies_that_the_disk_remembers_the_last_one_counts(instants: tuple[float, float]) -> None:
    cache = a_cache()
    for number, denied_at in enumerate(instants):
        cache.restore(a_key(subject=f"jid {number}@example.org"), an_entry(Verdict.DENY, asked_at=denied_at))
    assert cache.suspect_before("standup", 100.0, 5.0) == 95.0


def test_suspect_rooms_that_are_not_in_use_are_remembered_as_many_as_denies() -> None:
    cache = a_cache(denies=2)
    for number, room in enumerate(("first", "second", "third")):
        cache.suspect(room, float(number), 5.0)
    assert cache.suspect_before("first", 3.0, 5.0) == NEVER
    assert cache.suspect_before("third", 3.0, 5.0) == 2.0


@pytest.mark.parametrize("first", ["allow", "deny"])
def test_the_suspicion_of_a_room_in_use_outlives_any_number_of_denies_elsewhere(first: str) -> None:
    cache = a_cache(denies=2)
    if first == "allow":
        cache.put(a_key("board"), an_entry())
    cache.suspect("board", 100.0, 5.0)
    cache.suspect("board", 101.0, 5.0)
    cache.put(a_key("board"), an_entry())
    for number in range(1000):
        cache.suspect(f"made-up {number}", 102.0, 5.0)
    assert cache.suspect_before("board", 102.0, 5.0) == 100.0
    assert cache.suspect_before("board", 105.0, 5.0) == 101.0


def test_the_suspicion_of_a_room_that_is_not_in_use_any_more_gives_way() -> None:
    cache = a_cache(allows=1, denies=2)
    cache.put(a_key("left"), an_entry())
    cache.suspect("left", 100.0, 5.0)
    cache.put(a_key("board"), an_entry())
    for number in range(2):
        cache.suspect(f"made-up {number}", 100.0, 5.0)
    assert cache.suspect_before("left", 100.0, 5.0) == NEVER
    assert cache.suspect_before("made-up 0", 100.0, 5.0) == 100.0


@pytest.mark.parametrize("purged", [True, False])
def test_the_suspicion_of_a_room_whose_denies_were_read_before_its_allows_stays(purged: bool) -> None:
    cache = a_cache(denies=2)
    if purged:  # then each row is looked at more closely
        cache.purge(0.0, Selector(room="elsewhere"))
    cache.restore(a_key("board", "jid bob@example.org"), an_entry(Verdict.DENY, asked_at=90.0))
    cache.restore_all([(a_key("board"), an_entry())])
    for number in range(10):
        cache.suspect(f"made-up {number}", 100.0, 5.0)
        cache.put(a_key(f"made-up {number}"), an_entry(Verdict.DENY))
    assert cache.suspect_before("board", 100.0, 5.0) == 90.0
    assert cache.get(a_key("board", "jid bob@example.org")) is not None


# ---- before this boot


def test_what_is_from_before_this_boot_ages_by_what_the_clock_missed_and_nothing_else_does() -> None:
    cache = a_cache()
    before, since = an_entry(asked_at=-50.0, settled_at=-49.0), an_entry(asked_at=1.5)
    cache.restore(a_key("before"), before)
    cache.restore(a_key("since"), since)
    assert cache.get(a_key("before")) == before
    cache.missed = 3600.0
    older = before._replace(asked_at=-3650.0, settled_at=-3649.0)
    assert cache.get(a_key("before")) == older
    assert cache.get(a_key("since")) == since
    assert dict(cache.items()) == {a_key("before"): older, a_key("since"): since}
