"""What is packed comes out as it went in, nobody's key is another's, and one of many shards keeps its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict
from sidecar.decisions.packed_lru import _SHARD, PackedLru, label_of

texts = st.text(alphabet=st.sampled_from('ab"\0:1é'), max_size=5)
spoken = st.none() | texts.map(lambda text: f'"{text}"'.replace("\0", "\\u0000"))
keys = st.builds(
    Key,
    st.just(Endpoint.VALIDATE_ACCESS),
    texts.filter(bool),
    spoken,
    spoken | st.sampled_from(["1", "null"]),
    texts.filter(bool).map(lambda text: f"jid {text}"),
    st.none() | st.sampled_from(["a" * 64, "b" * 64]),
)
seconds = st.floats(-1e9, 1e9)
entries = st.builds(
    Entry,
    st.just(Verdict.ALLOW),
    st.binary(max_size=20),
    seconds,
    seconds,
    st.builds(Lifetimes, seconds, seconds, seconds),
    st.floats(0, 1),
)


def an_entry(body: bytes = b"{}") -> Entry:
    return Entry(Verdict.ALLOW, body, 1.0, 2.0, Lifetimes(3, 4, 5), 0.5)


def a_key(number: int) -> Key:
    return Key(Endpoint.VALIDATE_ACCESS, f"room-{number // 10}", None, None, f"jid user-{number}@example.com")


@given(keys, entries)
def test_what_goes_in_comes_out(key: Key, entry: Entry) -> None:
    lru = PackedLru(Verdict.ALLOW, 10, {})
    lru.put(key, entry)
    assert lru.get(key) == entry
    assert list(lru.items()) == [(key, entry)]
    assert list(lru.keys()) == list(lru.keys(key.room)) == [key]
    assert key in lru


@given(keys, keys)
def test_two_keys_have_twolabel_ofs(one: Key, other: Key) -> None:
    assert (label_of(one) == label_of(other)) == (one == other)


def test_a_room_whose_name_pretends_to_be_the_end_of_a_key_is_its_own_room() -> None:
    pretender = Key(Endpoint.VALIDATE_ACCESS, "x", None, None, "jid \0005\0rooms")
    lru = PackedLru(Verdict.ALLOW, 10, {})
    lru.put(pretender, an_entry())
    assert [key.room for key in lru.keys("rooms")] in ([], ["x"])  # the cache looks at the room of each
    assert list(lru.keys("x")) == [pretender]


@pytest.mark.parametrize("maxsize", [1, 7, _SHARD, _SHARD + 1, 3 * _SHARD])
def test_it_holds_as_many_as_it_may_and_says_what_goes(maxsize: int) -> None:
    dirty: dict[Key, Entry | None] = {}
    lru = PackedLru(Verdict.ALLOW, maxsize, dirty)
    for number in range(maxsize + 50):
        lru.put(a_key(number), an_entry())
    assert len(lru) == maxsize == len(list(lru.keys()))
    assert len(dirty) == 50
    assert set(dirty.values()) == {None}
    assert not any(key in lru for key in dirty)


def test_what_is_used_stays() -> None:
    lru = PackedLru(Verdict.ALLOW, 3, {})
    for number in (1, 2, 3):
        lru.put(a_key(number), an_entry())
    assert lru.get(a_key(1)) is not None
    assert a_key(2) in lru  # a look is no use
    lru.put(a_key(4), an_entry())
    assert [number for number in (1, 2, 3, 4) if a_key(number) in lru] == [1, 3, 4]


def test_a_drop_makes_room() -> None:
    dirty: dict[Key, Entry | None] = {}
    lru = PackedLru(Verdict.ALLOW, 2, dirty)
    lru.put(a_key(1), an_entry())
    lru.put(a_key(2), an_entry())
    lru.put(a_key(2), an_entry(b"again"))
    lru.drop(a_key(1))
    lru.drop(a_key(1))
    lru.put(a_key(3), an_entry())
    assert (len(lru), dirty) == (2, {})
