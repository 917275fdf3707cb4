"""What an answer of another sidecar is worth."""

from __future__ import annotations

import json

import pytest

from sidecar.core.fences import MISSING, Fence, Standing, moved, scopes, standing
from sidecar.core.model import Endpoint, Key, Lifetimes, Verdict
from sidecar.core.sealed import Forged, Found, FromAnother, Kept, Sealer, change_message, has_password, usable
from sidecar.core.selection import Change, Selector
from tests.unit.builders import ALLOW, ALLOW_LIFETIMES, DENY, LOBBY

FENCE = Fence("d", "r", "s", "k")
ANN = Key(Endpoint.VALIDATE_ACCESS, "standup", '"standup@muc.example.org"', subject="jid ann@example.org")
SEALER = Sealer(b"secret")


def kept(verdict: Verdict = Verdict.ALLOW, epoch: str = "e1-g1", body: bytes = ALLOW) -> Kept:
    return Kept(verdict, body if verdict is Verdict.ALLOW else DENY, epoch, 5_000, ALLOW_LIFETIMES, (FENCE, FENCE))


def found(*fences: Fence, epoch: str = "e1-g1") -> Found:
    return Found(epoch, 8_000, fences or (FENCE, FENCE), b"", 6_000)


def test_an_allow_of_this_epoch_with_the_same_fences_is_as_good_as_an_own_one() -> None:
    entry = usable(kept(), found(), 100.0, in_touch=True)
    assert entry is not None
    assert not entry.suspect
    assert entry.asked_at == 97.0
    assert entry.settled_at == 98.0


@pytest.mark.parametrize(
    ("epoch", "in_touch"), [("e2-g1", True), ("e1-g1", False)], ids=["of another epoch", "while out of touch"]
)
def test_an_allow_is_suspect(epoch: str, in_touch: bool) -> None:
    entry = usable(kept(epoch=epoch), found(), 100.0, in_touch=in_touch)
    assert entry is not None
    assert entry.suspect


def test_an_allow_from_before_the_clock_was_set_back_is_as_old_as_it_is() -> None:
    entry = usable(kept(epoch="e1-g1+1000"), found(epoch="e1-g1+21000"), 100.0, in_touch=True)
    assert entry is not None
    assert entry.suspect
    assert entry.asked_at == 77.0


@pytest.mark.parametrize("epoch", ["e1-g0", "e1-g1+1000"], ids=["another clock", "a backup from before"])
def test_an_allow_whose_age_is_not_known_is_not_used(epoch: str) -> None:
    assert usable(kept(epoch=epoch), found(), 100.0, in_touch=True) is None


@pytest.mark.parametrize("restriction", [kept(Verdict.DENY, "e1-g0"), kept(Verdict.ALLOW, "e1-g0", LOBBY)])
def test_what_restricts_a_user_is_no_answer_but_restricts_where_its_age_is_not_known(restriction: Kept) -> None:
    entry = usable(restriction, found(), 100.0, in_touch=True)
    assert entry is not None
    assert entry.verdict is restriction.verdict
    assert not entry.lifetimes.total


def test_an_allow_from_the_future_is_suspect() -> None:
    entry = usable(kept()._replace(asked_ms=9_000), found(), 100.0, in_touch=True)
    assert entry is not None
    assert entry.suspect


def test_a_deny_of_another_epoch_stays_a_deny() -> None:
    entry = usable(kept(Verdict.DENY, "e0-g1"), found(), 100.0, in_touch=False)
    assert entry is not None
    assert not entry.suspect


@pytest.mark.parametrize(
    ("part", "of_an_allow", "of_a_deny"),
    [
        ("drop", Standing.GONE, Standing.GONE),
        ("revoke", Standing.REVOKED, Standing.HOLDS),
        ("suspect", Standing.SUSPECT, Standing.SUSPECT),
        ("denied", Standing.SUSPECT, Standing.HOLDS),
    ],
)
def test_each_part_of_a_fence_takes_away_what_its_change_does(
    part: str, of_an_allow: Standing, of_a_deny: Standing
) -> None:
    now = (FENCE, FENCE._replace(**{part: "other"}))
    assert standing(Verdict.ALLOW, (FENCE, FENCE), now) is of_an_allow
    assert standing(Verdict.DENY, (FENCE, FENCE), now) is of_a_deny


def test_a_missing_fence_is_never_the_same() -> None:
    assert standing(Verdict.ALLOW, (MISSING,), (MISSING,)) is Standing.GONE


@pytest.mark.parametrize(
    "selector",
    [
        Selector(),
        Selector("standup"),
        Selector("standup", "ann@example.org"),
        Selector(subject="jid ann@example.org"),
        Selector(room_jid="standup@muc.example.org", room="standup"),
        Selector(endpoint=Endpoint.VALIDATE_ACCESS),
    ],
)
def test_a_change_replaces_a_fence_of_each_key_that_it_means(selector: Selector) -> None:
    assert selector.fits(ANN)
    assert set(moved(selector)) & set(scopes(ANN))


@pytest.mark.parametrize(
    "selector", [Selector("retro"), Selector("standup", "bob"), Selector(endpoint=Endpoint.ROOM_CREATED)]
)
def test_and_none_of_a_key_that_it_does_not_mean(selector: Selector) -> None:
    assert not selector.fits(ANN)
    assert not set(moved(selector)) & set(scopes(ANN))


def test_another_sidecar_finds_the_user_and_no_key_of_the_engine_has_the_name() -> None:
    document = change_message(Selector("standup", "ann@example.org"), Change.DROP, SEALER)
    assert b"ann" not in SEALER.say(document)
    meant = FromAnother.of(document, SEALER)
    assert meant.fits(ANN)
    assert not meant.fits(ANN._replace(subject="jid bob@example.org"))


def test_a_room_has_one_key_under_all_domains_of_a_deployment() -> None:
    sealer = Sealer(b"secret", ("muc.example.org", "muc.v1.example.org"))
    visitor = ANN._replace(room_jid='"standup@muc.v1.example.org"')
    assert sealer.key(ANN) == sealer.key(visitor)
    assert sealer.key(ANN) != sealer.key(ANN._replace(room_jid='"standup@muc.other.org"'))
    assert SEALER.key(ANN) != SEALER.key(visitor)


def test_an_answer_is_read_as_it_was_written() -> None:
    assert SEALER.unpack("name", SEALER.pack("name", kept())) == kept()


def test_an_answer_is_refused_if_any_byte_of_it_was_changed_or_is_missing() -> None:
    sealed = SEALER.pack("name", kept())
    for at in range(len(sealed)):
        for spoiled in (sealed[:at], sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]):
            with pytest.raises(Forged):
                SEALER.unpack("name", spoiled)


def test_an_answer_is_refused_if_parts_of_another_one_are_in_it() -> None:
    first, second = (SEALER.pack("name", kept(verdict)) for verdict in (Verdict.ALLOW, Verdict.DENY))
    for mixed in (first[:32] + second[32:], second[:32] + first[32:], first[:40] + second[40:], first + second):
        with pytest.raises(Forged):
            SEALER.unpack("name", mixed)


def test_nothing_of_an_answer_or_a_message_is_readable_and_a_small_change_changes_all_of_it() -> None:
    answers = [SEALER.pack("name", kept(body=b'{"allowed":true,"moderator":"%s"}' % name)) for name in (b"ann", b"bob")]
    messages = [SEALER.say({"kind": "deny", "room": name}, b"attached") for name in ("standup", "standuq")]
    for first, second in (answers, messages):
        assert not any(first[at : at + 6] in second for at in range(len(first) - 5))
        assert not any(word in first for word in (b"ann", b"allow", b"kind", b"deny", b"standup", b"attached"))


def test_an_answer_under_the_name_of_another_key_or_of_another_secret_is_refused() -> None:
    content = SEALER.pack("name", kept())
    for sealer, name in ((SEALER, "other"), (Sealer(b"another"), "name")):
        with pytest.raises(Forged):
            sealer.unpack(name, content)


def test_what_is_of_another_namespace_is_refused_although_the_key_is_the_same() -> None:
    here, there = (Sealer.of(b"key", namespace, ()) for namespace in ("tenant-a", "tenant-b"))
    assert here.key(ANN) != there.key(ANN)
    assert here.unpack("name", here.pack("name", kept())) == kept()
    with pytest.raises(Forged):
        there.unpack("name", here.pack("name", kept()))
    with pytest.raises(Forged):
        there.hear(here.say({"kind": "order"}))


def test_domains_are_the_same_in_another_order_and_case() -> None:
    domains = ["Muc.example.org", "muc.v1.example.org"]
    here, there = Sealer.of(b"key", "n", domains), Sealer.of(b"key", "n", [*map(str.upper, reversed(domains))])
    assert here == there
    assert here.key(ANN) == there.key(ANN._replace(room_jid='"standup@muc.V1.example.org"'))


def test_a_password_is_found_however_deep_it_is() -> None:
    assert has_password(b'{"configuration":{"\\u0070assword":"hush"}}')
    assert has_password(b'{"password":1234}')
    assert not has_password(b'{"password":null,"configuration":{"password":""}}')
    assert Lifetimes(1, 0, 2).total == 3


def test_who_was_put_out_of_a_room_that_has_several_domains_is_marked_under_the_name_of_the_room() -> None:
    sealer = Sealer(b"secret", ("muc.example.org", "muc.v1.example.org"))
    for domain, is_one in (("muc.example.org", True), ("muc.example.com", False)):
        document = change_message(Selector("standup", "ann@example.org", f"standup@{domain}"), Change.REVOKE, sealer)
        mark = FromAnother.of(document, sealer).mark
        assert mark is not None
        assert mark.room_jid == (None if is_one else json.dumps(f"standup@{domain}"))
