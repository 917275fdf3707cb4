"""What a decision says beside yes or no, from memory, in an outage, and to whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar.core.classify import classify
from sidecar.core.model import GUEST, Answer, Endpoint, Entry, Key, Kind, Lifetimes, Source, Verdict
from sidecar.core.policy import OnUnavailable
from tests.unit.builders import a_config_policy, a_policy
from tests.unit.harness import CONFIG, REFUSED, SIE, Harness, after, allow, config, deny, rejected, settled
from tests.unit.virtual import in_virtual_time

LOBBY: dict[str, Any] = {"requireLobby": True}
MODERATOR: dict[str, Any] = {"isModerator": True}


def says(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.body)
    return body


@in_virtual_time
async def test_in_an_outage_a_decision_says_what_it_said() -> None:
    harness = Harness()
    fields: dict[str, Any] = {
        **MODERATOR,
        **LOBBY,
        "redirectUrl": "https://example.com",
        "status": "OPEN",
        "unknown": [1],
    }
    harness.backend.says(allow(**fields))
    first = await harness.asks()
    harness.backend.always(REFUSED)
    await harness.passes(60)
    stale = await harness.asks()
    assert stale.source is Source.STALE
    assert stale.body == first.body
    assert says(stale) == {"allowed": True, "reason": None, **fields}


@in_virtual_time
async def test_a_moderator_of_memory_is_the_one_who_was_asked_about() -> None:
    harness = Harness()
    harness.backend.says(allow(**MODERATOR), allow())
    await harness.asks("alice@example.com")
    await harness.asks("bob@example.com")
    harness.backend.always(REFUSED)
    await harness.passes(60)
    assert says(await harness.asks("alice@example.com"))["isModerator"] is True
    assert "isModerator" not in says(await harness.asks("bob@example.com"))
    assert (await harness.asks("carol@example.com")).allowed is False


@in_virtual_time
async def test_a_denied_user_gets_the_same_refusal_from_memory() -> None:
    harness = Harness()
    refusal = {"status": "ENDED", "requireAuth": True, "redirectUrl": "https://example.com/ended"}
    body = json.dumps({"allowed": False, "reason": "Over", **refusal}).encode()
    harness.backend.says(classify(Kind.DECISION, 403, body))
    await harness.asks()
    harness.backend.always(REFUSED)
    await harness.passes(60)
    assert says(await harness.asks()) == {"allowed": False, "reason": "Over", **refusal}


@pytest.mark.parametrize("personal", [MODERATOR, LOBBY, {"redirectUrl": "https://example.com"}, {"isModerator": False}])
@in_virtual_time
async def test_no_other_guest_gets_what_is_said_about_one(personal: dict[str, Any]) -> None:
    harness = Harness()
    harness.backend.says(after(0.2, allow(**personal)))
    answers = await asyncio.gather(*(harness.asks(f"x{n}@guest.example.com", guest=True) for n in range(3)))
    later = await harness.asks("x9@guest.example.com", guest=True)
    assert says(answers[0]) == {"allowed": True, "reason": None, **personal}
    for answer in (*answers[1:], later):
        assert says(answer) == {"allowed": True, "reason": None}
    assert len(harness.backend.calls) == 4


@in_virtual_time
async def test_guests_share_an_answer_whose_room_config_has_settings_of_the_same_names() -> None:
    harness = Harness()
    harness.backend.says(allow(configuration={"redirectUrl": "https://example.com/bye", "requireLobby": True}))
    await harness.asks("x1@guest.example.com", guest=True)
    harness.backend.always(REFUSED)
    await harness.passes(60)
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is True


@in_virtual_time
async def test_what_an_older_version_kept_for_all_guests_is_for_none() -> None:
    harness = Harness()
    shared = Key(Endpoint.VALIDATE_ACCESS, "standup", subject=GUEST)
    body = b'{"allowed":true,"reason":null,"isModerator":true}'
    await harness.passes(10)
    now = harness.clock.monotonic()
    harness.cache.put(shared, Entry(Verdict.ALLOW, body, now, now, Lifetimes(15, 15, 3600)))
    asked = harness.query(Endpoint.VALIDATE_ACCESS, roomName="standup", userJid="x1@guest.example.com", guest=True)
    assert harness.resolver.at_once(asked.key) is None
    answer = await harness.resolver.resolve(asked)
    assert (answer.source, says(answer)) == (Source.BACKEND, {"allowed": True, "reason": None})


@in_virtual_time
async def test_minutes_from_memory_are_those_that_are_left_now() -> None:
    harness = Harness()
    harness.backend.says(allow(remainingMinutes=2))
    assert says(await harness.asks())["remainingMinutes"] == 2
    await harness.passes(6)
    assert says(await harness.asks())["remainingMinutes"] == pytest.approx(1.9, abs=0.011)
    harness.backend.always(REFUSED)
    await harness.passes(54)
    assert says(await harness.asks())["remainingMinutes"] == pytest.approx(1, abs=0.011)
    await harness.passes(600)
    assert says(await harness.asks())["remainingMinutes"] == 0


@in_virtual_time
async def test_who_has_to_wait_in_the_lobby_is_on_disk_before_the_answer() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.1
    harness.backend.says(allow(**LOBBY))
    begun = asyncio.get_running_loop().time()
    await harness.asks()
    assert asyncio.get_running_loop().time() - begun >= 0.1
    assert harness.disk.persisted == 1
    await harness.asks("bob@example.com")
    assert harness.disk.persisted == 1, "an allow for all the others need not be"


@in_virtual_time
async def test_who_hears_of_the_lobby_from_memory_waits_for_the_disk_too() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.1
    first = harness.backend.hold()
    waiting = harness.soon()
    await settled()
    first.comes(allow(**LOBBY))
    await settled()
    query = harness.query(Endpoint.VALIDATE_ACCESS, roomName="standup", userJid="alice@example.com/desk")
    begun = asyncio.get_running_loop().time()
    assert harness.resolver.at_once(query.key) is None
    await harness.resolver.resolve(query)
    assert asyncio.get_running_loop().time() - begun >= 0.1
    await waiting


@in_virtual_time
async def test_an_older_allow_leads_nobody_past_the_lobby() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(31)
    late = harness.backend.hold()
    first = harness.soon()
    await settled()
    harness.backend.says(deny())
    await harness.asks("other@example.com")  # the next question of the user begins a call of its own
    harness.backend.says(allow(**LOBBY))
    assert says(await harness.asks())["requireLobby"] is True
    late.comes(allow())
    assert says(await first)["requireLobby"] is True
    assert says(await harness.asks())["requireLobby"] is True


@in_virtual_time
async def test_a_lobby_that_may_not_be_kept_takes_an_older_allow_away_on_disk_too() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    await harness.asks()
    await harness.passes(31)
    harness.backend.says(allow("no-store", **LOBBY))
    assert says(await harness.asks())["requireLobby"] is True
    assert harness.disk.persisted == 1
    harness.backend.always(REFUSED)
    answer = await harness.asks()
    assert (answer.source, says(answer).get("requireLobby")) == (Source.POLICY, True)


@in_virtual_time
async def test_a_policy_that_allows_leads_nobody_past_the_lobby() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    harness.backend.says(allow(**LOBBY))
    await harness.asks()
    harness.backend.always(REFUSED)
    await harness.passes(2 * SIE)
    answer = await harness.asks()
    assert (answer.source, says(answer).get("requireLobby")) == (Source.POLICY, True)
    assert "requireLobby" not in says(await harness.asks("bob@example.com"))


@in_virtual_time
async def test_a_configuration_is_kept_as_the_rooms_config() -> None:
    harness = Harness()
    harness.backend.says(allow(configuration={"chatEnabled": False}))
    await harness.asks()
    answer = await harness.asks_config()
    assert (answer.source, says(answer)) == (Source.HIT, {"chatEnabled": False})
    assert [call.query.key.endpoint for call in harness.backend.calls] == [Endpoint.VALIDATE_ACCESS]


@in_virtual_time
async def test_a_configuration_has_the_lifetimes_of_a_config() -> None:
    policy = a_config_policy()
    harness = Harness(config=policy)
    harness.backend.says(allow(configuration={"chatEnabled": False}))
    await harness.asks()
    await harness.passes(policy.allow.fresh + 1)
    assert says(await harness.asks_config()) == {"chatEnabled": True}, "it is asked for again"
    harness = Harness(config=policy)
    harness.backend.says(allow(configuration={"chatEnabled": False}))
    await harness.asks()
    harness.backend.always(REFUSED)
    await harness.passes(policy.allow.fresh + policy.allow.stale_if_error - 1)
    assert says(await harness.asks_config()) == {"chatEnabled": False}
    await harness.passes(2)
    assert (await harness.asks_config()).status == 503


@in_virtual_time
async def test_an_older_configuration_does_not_replace_a_newer_config() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow(configuration={"chatEnabled": False})), config(newer=True))
    waits = harness.soon()
    await harness.passes(0.5)
    await harness.asks_config()
    await waits
    assert says(await harness.asks_config()) == {"chatEnabled": True, "newer": True}


@in_virtual_time
async def test_a_newer_configuration_replaces_an_older_config() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(1)
    harness.backend.says(allow(configuration={"chatEnabled": False}))
    await harness.asks()
    assert says(await harness.asks_config()) == {"chatEnabled": False}


@in_virtual_time
async def test_a_configuration_that_must_not_be_stored_is_not() -> None:
    harness = Harness()
    harness.backend.says(allow("no-store", configuration={"chatEnabled": False}), rejected())
    await harness.asks()
    assert harness.cache.count(Verdict.CONFIG) == 0
    assert (await harness.asks_config()).status == 404


@in_virtual_time
async def test_a_configuration_is_kept_for_the_room_that_was_asked_about() -> None:
    harness = Harness()
    harness.backend.says(allow(configuration={"chatEnabled": False}))
    await harness.asks(roomJid="standup@conference.a.example")
    entry = harness.cache.get(Key(CONFIG, "standup", '"standup@conference.a.example"'))
    assert entry is not None
    assert entry.verdict is Verdict.CONFIG
    assert says(await harness.asks_config(roomJid="standup@conference.b.example")) == {"chatEnabled": True}
