"""The meeting service orders, and the module carries it out at once: kick, end, forget, who. What each order means."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.ordering import (
    BREAKOUT,
    LOBBY,
    SIDE_ROOMS,
    begin,
    in_room,
    new_id,
    open_breakout_room,
    order,
    put_out,
    switch,
)
from tests.prosody.story import OPTIONS as EVENTS
from tests.prosody.story import story
from tests.rig.answers import allow, deny, hold, reply
from tests.rig.xmpp import CLIENT, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUICK = 0.1
"""Seconds from the order to what the client sees."""

QUEUE = ("rig_meeting_id", "muc_webhook")


# -- kick


async def test_a_kicked_user_is_out_at_once_and_learns_why(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="ann") as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        times = []
        for _ in range(3):  # the machine may be busy: the best of three counts
            started = time.monotonic()
            await begin(prosody, "kick", room, id=new_id(), user="ann@auth.localhost", reason="Not invited")
            assert await put_out(ann, room) == ({"307"}, "Not invited")
            times.append(time.monotonic() - started)
            assert {"type": "KICKED", "reason": "Not invited"} in ann.json_messages(room)
            assert await prosody.occupants(room) == ["bob"]
            assert (await ann.join(room, nick="ann")).joined, "the backend lets ann in again"
        assert min(times) < QUICK
        assert [text for s in ann.inbox if (text := s.findtext(f"{CLIENT}body")) == "Not invited"], "a line in the chat"
        await bob.ping()
        assert bob.json_messages(room) == [], "the others hear nothing of the reason"


async def test_all_sessions_of_a_kicked_user_are_out(prosody: Server, room: str) -> None:
    async with (
        Client.connect(prosody, user="ann", resource="laptop") as laptop,
        Client.connect(prosody, user="ann", resource="phone") as phone,
        Client.connect(prosody, user="ann", resource="tablet") as tablet,
    ):
        await laptop.join(room, nick="ann")
        await phone.join(room, nick="ann")
        await tablet.join(room, nick="ann2")
        assert (await order(prosody, "kick", room, user="ann@auth.localhost"))["kicked"] == 2
        for session in (laptop, phone, tablet):
            assert await put_out(session, room) == ({"307"}, "You were removed from the meeting")
        assert await prosody.occupants(room) == []


@pytest.mark.parametrize(
    ("by", "out"),
    [
        ({"user": "4711"}, ["ann", "ann2"]),
        ({"user": 4711}, ["ann", "ann2"]),
        ({"user": "Ann@Example.org"}, ["ann"]),
        ({"nick": "ann2"}, ["ann", "ann2"]),
        ({"nick": "bob"}, ["bob"]),
        ({"user": None, "nick": "bob"}, ["bob"]),
        ({"user": "eve@example.org"}, []),
        ({"nick": "eve"}, []),
    ],
    ids=str,
)
async def test_a_person_is_named_by_what_the_server_knows(
    prosody: Server, room: str, by: dict[str, Any], out: list[str]
) -> None:
    async with (
        Client.connect(prosody, domain=prosody.token_domain) as ann,
        Client.connect(prosody, domain=prosody.token_domain) as ann2,
        Client.connect(prosody) as bob,
    ):
        await ann.set_token("t", id=4711, email="ann@example.org")
        await ann2.set_token("u", id="4711")
        await bob.set_token(id="4711", email="ann@example.org")  # in the URL; nobody has verified it
        for client, nick in ((ann, "ann"), (ann2, "ann2"), (bob, "bob")):
            await client.join(room, nick=nick)
        outcome = await order(prosody, "kick", room, **by)
        assert outcome["status"] == ("done" if out else "absent")
        assert outcome.get("kicked", 0) == len(out)
        assert await prosody.occupants(room) == sorted({"ann", "ann2", "bob"} - set(out))


async def test_the_outcome_names_who_was_put_out(prosody: Server, room: str) -> None:
    """So that what is remembered of them can be dropped, also if the order says a nick only."""
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=f"held-{room}")
    async with Client.connect(prosody, domain=prosody.token_domain) as ann, Client.connect(prosody, user="bob") as bob:
        await ann.set_token("t", id=4711, email="Ann@example.org")
        await ann.join(room, nick="ann")
        outcome = await order(prosody, "kick", room, nick="ann")
        assert outcome["users"] == sorted(["4711", "Ann@example.org", ann.jid.partition("/")[0]])
        await bob.begin_join(f"held-{room}", "bob")
        await prosody.backend.received("validate-access", f"held-{room}")
        outcome = await order(prosody, "kick", f"held-{room}", nick="bob")
        assert outcome["users"] == ["bob@auth.localhost"]
        slow.release()


async def test_who_joins_without_a_decision_is_not_put_out(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        assert await order(prosody, "kick", room, user="focus@auth.localhost") == {"status": "absent"}
        assert await prosody.occupants(room) == ["ann", "focus"]


async def test_a_kicked_user_is_out_of_a_breakout_room(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=SIDE_ROOMS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        await switch(eve, room, breakout, "eve")
        assert (await order(prosody, "kick", room, nick="eve", reason="Go"))["kicked"] == 1
        assert await put_out(eve, breakout) == ({"307"}, "Go")
        assert (await eve.join(breakout, nick="eve")).denied
        await order(prosody, "end", room)


async def test_a_user_kicked_on_the_way_does_not_arrive_in_the_breakout_room(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(extra=SIDE_ROOMS)
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, domain=prosody.token_domain) as eve,
    ):
        await eve.set_token("t", id="e1")
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        await eve.send(
            f"<presence type='unavailable' to='{eve.room_jid(room)}/eve'><status>switch_room</status></presence>"
        )
        await eve.ping()
        await order(prosody, "kick", room, user="e1")
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await order(prosody, "end", room)


async def test_a_kicked_user_is_out_of_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("rig_lobby", "muc_webhook"), extra=SIDE_ROOMS)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody, user="eve") as eve:
        await focus.join(room, nick="focus")
        assert str((await eve.join(room, nick="eve")).error) == "auth/registration-required"
        await eve.join(f"{room}@{LOBBY}", nick="eve")
        outcome = await order(prosody, "kick", room, user="eve@auth.localhost", reason="Not today")
        assert outcome["kicked"] == 1
        assert await put_out(eve, f"{room}@{LOBBY}") == ({"307"}, "Not today")


@pytest.mark.parametrize("room_is", ["new", "there"])
@pytest.mark.parametrize("by", [{"user": "eve@auth.localhost"}, {"nick": "eve"}], ids=str)
async def test_a_join_that_is_held_is_refused_at_once(
    prosody: Server, room: str, room_is: str, by: dict[str, str]
) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="eve") as eve:
        if room_is == "there":
            await ann.join(room, nick="ann")
        slow = hold(allow())
        prosody.backend.on("validate-access", slow, room=room)
        await eve.begin_join(room, "eve")
        await prosody.backend.received("validate-access", room, count=2 if room_is == "there" else 1)
        assert (await order(prosody, "kick", room, reason="Not today", **by))["kicked"] == 1
        result = await eve.await_join(room, within=1)
        assert (str(result.error), result.error and result.error.text) == ("cancel/not-allowed", "Not today")
        refusals = [m for m in eve.json_messages(room) if m["type"] == "JOIN_REFUSED"]
        assert [m["reason"] for m in refusals] == ["Not today"]
        slow.release()
        await eve.ping()
        assert "eve" not in await prosody.occupants(room), "the late answer brings nothing back"
        assert (await eve.join(room, nick="eve")).joined, "asked anew, the backend may let eve in"


async def test_a_join_of_somebody_else_goes_on_waiting(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.connect(prosody, user="bob") as bob:
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room)
        assert await order(prosody, "kick", room, user="eve@auth.localhost") == {"status": "absent"}
        assert await order(prosody, "kick", f"other-{room}", user="bob@auth.localhost") == {"status": "absent"}
        slow.release()
        assert (await bob.await_join(room)).joined


async def test_a_held_join_on_a_components_stream_is_refused(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.component(prosody) as bot:
        await bot.begin_join(room, "bot")
        await prosody.backend.received("validate-access", room)
        assert (await order(prosody, "kick", room, user="bot@component.localhost"))["kicked"] == 1
        assert (await bot.await_join(room, within=1)).denied
        slow.release()


async def test_a_join_that_waits_for_the_rooms_config_is_refused(prosody: Server, room: str) -> None:
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow, room=room)
    async with Client.connect(prosody, user="eve") as eve, Client.connect(prosody, user="bob") as bob:
        await eve.begin_join(room, "eve")
        await prosody.backend.received("room-created", room)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        assert (await order(prosody, "kick", room, user="eve@auth.localhost"))["kicked"] == 1
        assert (await eve.await_join(room, within=1)).denied
        slow.release()
        assert (await bob.await_join(room)).joined


async def test_a_join_in_jicofos_queue_does_not_come_in_later(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=QUEUE)
    async with (
        Client.connect(prosody, user="eve") as eve,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        await eve.begin_join(room, "eve")
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await eve.ping()
        await bob.ping()
        await order(prosody, "kick", room, user="eve@auth.localhost", reason="Not today")
        await focus.join(room, nick="focus")
        assert (await bob.await_join(room)).joined
        assert str((await eve.await_join(room)).error) == "cancel/not-allowed"
        assert (await eve.join(room, nick="eve")).joined, "let in again by the backend"


@pytest.mark.parametrize("config", [{"membersOnly": True}, {"moderators": ["eve@auth.localhost"]}], ids=str)
async def test_what_the_module_gave_a_kicked_user_is_taken_back(
    prosody: Server, room: str, config: dict[str, object]
) -> None:
    prosody.backend.on("room-created", reply(config))
    affiliation = 'return room:get_affiliation("eve@auth.localhost") or "none"'
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="eve") as eve:
        await ann.join(room, nick="ann")
        given = (await eve.join(room, nick="eve")).affiliation
        assert given in ("member", "owner")
        await order(prosody, "kick", room, user="eve@auth.localhost")
        assert await in_room(prosody, room, affiliation) == "none"
        assert (await eve.join(room, nick="eve")).affiliation == given
        assert len(prosody.backend.asked("validate-access", room)) == 3, "asked for anew"


async def test_what_a_moderator_gave_a_kicked_user_stays(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="eve") as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        await in_room(prosody, room, 'room:set_affiliation(true, "eve@auth.localhost", "admin")')
        await order(prosody, "kick", room, user="eve@auth.localhost")
        assert await in_room(prosody, room, 'return room:get_affiliation("eve@auth.localhost")') == "admin"


async def test_a_grant_that_was_not_used_up_is_taken_back(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await prosody.module(f"""
            local st, state = require "util.stanza", webhook.module.save();
            prosody.rig_stanza = st.presence {{ from = "eve@auth.localhost/x"; to = "{room}@{prosody.muc}/eve" }};
            state.grants[prosody.rig_stanza] = true;""")
        await order(prosody, "kick", room, user="eve@auth.localhost")
        assert await prosody.module("return webhook.module.save().grants[prosody.rig_stanza] == nil")


async def test_a_kick_of_the_last_one_ends_the_room(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=EVENTS)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        assert (await order(prosody, "kick", room, nick="ann", reason="Go"))["kicked"] == 1
        assert room not in await prosody.rooms()
        assert await story(prosody, room) == ["joined ann", "left ann: kicked", "destroyed: all_users_left"]


# -- end


async def test_a_meeting_ends_for_all_with_the_reason(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=EVENTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        times = []
        for _ in range(3):  # the machine may be busy: the best of three counts
            await ann.join(room, nick="ann")
            await bob.join(room, nick="bob")
            started = time.monotonic()
            await begin(prosody, "end", room, id=new_id(), reason="The hour is over")
            ends = [await put_out(ann, room), await put_out(bob, room)]
            times.append(time.monotonic() - started)
            assert ends == [(set(), "The hour is over")] * 2
            assert room not in await prosody.rooms()
        assert min(times) < QUICK
        assert (await story(prosody, room))[-1] == "destroyed: ended-by-service"


async def test_the_end_reaches_breakout_rooms_and_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("rig_lobby", "muc_webhook"), extra=SIDE_ROOMS)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True, "moderators": ["ann@auth.localhost"]}))
    async with (
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody) as waiting,
    ):
        await ann.join(room, nick="ann")
        assert (await waiting.join(room, nick="w")).denied
        await waiting.join(f"{room}@{LOBBY}", nick="w")
        breakout = await open_breakout_room(prosody, room)
        await switch(ann, room, breakout, "ann")
        assert await order(prosody, "end", room, reason="Over") == {"status": "done", "ended": True}
        assert await put_out(ann, breakout) == (set(), "Over")
        assert await put_out(waiting, f"{room}@{LOBBY}") == (set(), "Over")
        assert room not in await prosody.rooms()
        for host in (BREAKOUT, LOBBY):
            left = f'local n = 0; for _ in prosody.hosts["{host}"].modules.muc.all_rooms() do n = n + 1 end return n'
            assert await prosody.lua(left) == 0


async def test_a_persistent_room_is_emptied_and_lives_on(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=EVENTS)
    prosody.backend.on("room-created", reply({"persistent": True, "chatEnabled": True}))
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await order(prosody, "end", room, reason="Over")
        assert await put_out(ann, room) == ({"307"}, "Over")
        assert {"type": "MEETING_ENDED", "reason": "Over"} in ann.json_messages(room)
        assert await prosody.occupants(room) == ["focus"]
        prosody.backend.on("room-created", reply({"persistent": True, "chatEnabled": False}))
        assert (await ann.join(room, nick="ann")).config == {"chatEnabled": False}, "the next meeting has its own"
        assert await story(prosody, room) == ["joined ann", "left ann: kicked", "joined ann"]
        await in_room(prosody, room, "room:set_persistent(false)")


@pytest.mark.parametrize("persistent", [False, True])
async def test_a_room_without_participants_can_be_ended(prosody: Server, room: str, persistent: bool) -> None:
    prosody.backend.on("room-created", reply({"persistent": persistent}))
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await prosody.backend.received("room-created", room)
        await eventually(lambda: in_room(prosody, room, "return room:get_persistent() or false"), persistent)
        assert await order(prosody, "end", room) == {"status": "done", "ended": True}
        assert (room in await prosody.rooms()) is persistent
        if persistent:
            await in_room(prosody, room, "room:set_persistent(false)")


@pytest.mark.parametrize("what_is_asked", ["validate-access", "room-created"])
@pytest.mark.parametrize("room_is", ["new", "made by jicofo"])
async def test_joins_that_are_held_ask_again_after_the_end(
    prosody: Server, room: str, room_is: str, what_is_asked: str
) -> None:
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        slow = hold(allow() if what_is_asked == "validate-access" else reply({"meetingTitle": "old"}))
        prosody.backend.on(what_is_asked, slow, room=room)
        if room_is != "new":
            await focus.join(room, nick="focus")
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await prosody.backend.received("room-created", room, count=int(what_is_asked == "room-created"))
        prosody.backend.on("validate-access", deny("The meeting is over"), room=room)
        assert await order(prosody, "end", room) == {"status": "done", "ended": True}
        result = await ann.await_join(room, within=1)
        assert result.error
        assert result.error.text == "The meeting is over"
        slow.release()
        assert room not in await prosody.rooms()


async def test_the_answer_of_before_the_end_makes_no_config_of_the_next_meeting(prosody: Server, room: str) -> None:
    slow = hold(reply({"meetingTitle": "old"}))
    prosody.backend.on("room-created", slow, room=room)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("room-created", room)
        prosody.backend.on("room-created", reply({"meetingTitle": "new"}), room=room)
        await order(prosody, "end", room)
        assert (await ann.await_join(room, within=1)).config == {"meetingTitle": "new"}
        slow.release()
        await ann.ping()
        assert ann.json_messages(room) == []


# -- forget


async def test_a_forgotten_config_is_asked_for_at_the_next_join(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"chatEnabled": True}), room=room)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        prosody.backend.on("room-created", reply({"chatEnabled": False}), room=room)
        outcome = await order(prosody, "forget", room, mode="drop")
        assert outcome == {"status": "done", "forgotten": 1}
        assert (await bob.join(room, nick="bob")).config == {"chatEnabled": False}
        assert await prosody.occupants(room) == ["ann", "bob"]


@pytest.mark.parametrize(
    ("about", "again"),
    [
        ({}, True),
        ({"user": "eve@auth.localhost"}, True),
        ({"user": "ann@auth.localhost"}, False),
        ({"room": "another"}, False),
    ],
    ids=str,
)
async def test_a_question_that_is_under_way_is_asked_again(
    prosody: Server, room: str, about: dict[str, str], again: bool
) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.connect(prosody, user="eve") as eve:
        await eve.begin_join(room, "eve")
        await prosody.backend.received("validate-access", room)
        prosody.backend.on("validate-access", deny("No longer"), room=room)
        assert (await order(prosody, "forget", mode="suspect", **about))["status"] == "done"
        slow.release()
        assert (await eve.await_join(room)).denied is again


async def test_a_name_that_is_none_forgets_nothing(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        assert (await order(prosody, "forget", room, user=""))["status"] == "failed"
        await ann.join(room, nick="ann2")
        assert len(prosody.backend.asked("room-created", room)) == 1


# -- who


async def test_who_is_in_since_when_and_with_which_role(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=SIDE_ROOMS)
    began = int(time.time())
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, domain=prosody.token_domain) as ann,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody) as cat,
    ):
        await focus.join(room, nick="focus")
        await ann.set_token("t", id=12, email="ann@example.org")
        for client, nick in ((ann, "ann"), (bob, "bob"), (cat, "cat")):
            await client.join(room, nick=nick)
        breakout = await open_breakout_room(prosody, room)
        await switch(bob, room, breakout, "bob")
        outcome = await order(prosody, "who", room)
        people = {each.pop("nick"): each for each in outcome["occupants"]}
        assert all(began <= each.pop("since") <= time.time() for each in people.values())
        person = {"role": "participant", "guest": False}
        bare = ann.jid.partition("/")[0], cat.jid.partition("/")[0]
        assert people == {
            "ann": {"userJid": bare[0], "userId": "12", "userEmail": "ann@example.org", **person},
            "bob": {"userJid": "bob@auth.localhost", "breakoutRoom": breakout, **person, "role": "moderator"},
            "cat": {"userJid": bare[1], "role": "participant", "guest": True},
        }
        await order(prosody, "end", room)


async def test_the_time_of_a_join_stays_with_another_nick_and_over_reloads(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        jid = f"{room}@{prosody.muc}"
        await prosody.module(f'webhook.module.save().lives["{jid}"].since["{jid}/ann"] = 1000')
        await ann.send(f"<presence to='{jid}/anna'/>")
        await ann.ping()
        for reloaded in ("muc_webhook", "muc"):
            await prosody.reload(reloaded)
            occupants = (await order(prosody, "who", room))["occupants"]
            assert [(each["nick"], each["since"]) for each in occupants] == [("anna", 1000)]


async def test_nobody_is_in_a_room_of_jicofo_alone(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert await order(prosody, "who", room) == {"status": "done", "occupants": []}


# -- for which meeting


@pytest.mark.parametrize("verb", ["kick", "end", "refresh", "who"])
async def test_an_order_does_not_touch_the_next_meeting_of_that_name(prosody: Server, room: str, verb: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        issued = time.time()
        await ann.leave(room, "ann")
        await ann.join(room, nick="ann")
        assert await order(prosody, verb, room, issued=issued, nick="ann") == {"status": "absent"}
        assert await prosody.occupants(room) == ["ann"]
        assert len(prosody.backend.asked("room-created", room)) == 2
        assert (await order(prosody, verb, room, issued=int(time.time()), nick="ann"))["status"] == "done"


@pytest.mark.parametrize("verb", ["kick", "end", "refresh", "who"])
async def test_there_is_nobody_in_a_room_that_is_not_there(prosody: Server, room: str, verb: str) -> None:
    assert await order(prosody, verb, room, user="x@y.test") == {"status": "absent"}
    assert await order(prosody, verb, f"{room}@elsewhere.test", user="x@y.test") == {"status": "absent"}
    assert await order(prosody, verb, "a room with spaces", user="x@y.test") == {"status": "absent"}


async def test_a_room_that_is_being_made_when_the_order_is_given_is_meant(prosody: Server, room: str) -> None:
    """Its life begins with the first question about it."""
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow, room=room)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("room-created", room)
        issued = time.time()
        slow.release()
        await ann.await_join(room)
        assert (await order(prosody, "end", room, issued=issued))["status"] == "done"


async def test_the_next_meeting_in_a_persistent_room_is_another_one(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"persistent": True}), room=room)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        issued = time.time()
        await ann.leave(room, "ann")
        await ann.join(room, nick="ann")
        assert await order(prosody, "end", room, issued=issued) == {"status": "absent"}
        assert await prosody.occupants(room) == ["ann"]
        await in_room(prosody, room, "room:set_persistent(false)")


@pytest.mark.parametrize("how", ["muc_webhook", "muc", "the room leaves the cache"])
async def test_a_room_keeps_its_life_as_another_object(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_room_cache_size": 2})
    issued = time.time() - 0.001
    async with Client.connect(prosody) as ann, Client.connect(prosody) as passer_by:
        await ann.join(room, nick="ann")
        if how.startswith("muc"):
            await prosody.reload(how)
        else:
            for number in range(3):
                await passer_by.join(f"{number}-{room}")
            assert room not in await prosody.rooms()
        assert await order(prosody, "end", room, issued=issued) == {"status": "absent"}
        assert await order(prosody, "end", room) == {"status": "done", "ended": True}


async def test_a_room_is_named_in_any_spelling_of_its_jid(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        for name in (room.upper(), f"{room}@{prosody.muc}", f"{room.upper()}@{prosody.muc.upper()}"):
            await ann.join(room, nick="ann")
            assert (await order(prosody, "end", name))["status"] == "done"
        await ann.join(room, nick="ann")
        assert (await order(prosody, "end", "another", roomJid=f"{room}@{prosody.muc}"))["status"] == "done"


@pytest.mark.parametrize(
    "fields",
    [
        {"verb": "dance"},
        {"verb": "kick"},
        {"verb": "kick", "user": {"id": 12}},
        {"verb": "kick", "nick": 12},
        {"verb": "end", "room": 12},
        {"verb": "end", "room": None},
    ],
    ids=str,
)
async def test_an_order_that_cannot_be_read_says_why(prosody: Server, room: str, fields: dict[str, Any]) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        outcome = await order(prosody, **{"room": room, **fields})
        assert outcome["status"] == "failed"
        assert outcome["error"]
        assert await prosody.occupants(room) == ["ann"]


# -- once


@pytest.mark.parametrize("reloaded", [None, "muc_webhook", "muc"])
async def test_an_order_that_comes_twice_is_carried_out_once(
    start_prosody: StartProsody, room: str, reloaded: str | None
) -> None:
    prosody = await start_prosody(fresh=reloaded is not None)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        id = new_id()
        first = await order(prosody, "kick", room, id=id, nick="ann")
        await ann.join(room, nick="ann")
        if reloaded:
            await prosody.reload(reloaded)
        assert await order(prosody, "kick", room, id=id, nick="ann") == first
        assert first["kicked"] == 1
        assert await prosody.occupants(room) == ["ann", "bob"]


async def test_a_reload_while_a_join_is_held_does_not_hide_it(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await prosody.reload()
        assert (await order(prosody, "kick", room, nick="ann"))["kicked"] == 1
        assert (await ann.await_join(room, within=1)).denied
        slow.release()


# -- many


MANY = """
    local orders = module:shared("/*/muc_webhook/guards")["{muc}"].gate.parts.orders;
    for number = {first}, {last} do
        local verb = ({{ "kick", "end", "forget", "who", "kick" }})[number % 5 + 1];
        local room = number % 2 == 0 and "{room}-" .. number or "{room}";
        if verb ~= "end" or room ~= "{room}" then
            orders.carry_out("many-" .. number, {{ verb = verb; room = room; user = "u" .. number .. "@y.test";
                reason = "r" .. number; issued = os.time() }}, function () end);
        end
    end
    collectgarbage(); collectgarbage();
    return collectgarbage("count")"""


async def test_ten_thousand_orders_leave_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, log_level="warn")
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        sizes = [
            await prosody.module(MANY.format(muc=prosody.muc, room=room, first=first, last=first + 4999))
            for first in (1, 5001, 10_001)
        ]
        assert sizes[2] - sizes[1] < 100, f"kilobytes: {sizes}"
        assert await prosody.occupants(room) == ["ann"]


CROWD = """
    local st = require "util.stanza";
    for number = 1, 500 do
        local nick, jid = room.jid .. "/n" .. number, "n" .. number .. "@y.test";
        local occupant = room:new_occupant(jid, nick);
        occupant:set_session(jid .. "/r", st.presence { from = jid .. "/r"; to = nick });
        occupant.role = "participant";
        room:save_occupant(occupant);
    end
    prosody.rig_sent = 0;
    room.route_stanza = function () prosody.rig_sent = prosody.rig_sent + 1; end"""


async def test_the_end_of_a_large_meeting_is_told_to_each_once(prosody: Server, room: str) -> None:
    """To tell each of each would take 250,000 stanzas."""
    prosody.backend.on("room-created", reply({"persistent": True}), room=room)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await prosody.backend.received("room-created", room)
        await eventually(lambda: in_room(prosody, room, "return room:get_persistent()"), True)
        await in_room(prosody, room, CROWD)
        await order(prosody, "end", room)
        assert await prosody.occupants(room) == ["focus"]
        assert await prosody.lua("return prosody.rig_sent") < 500 * 5
        await in_room(prosody, room, "room:set_persistent(false)")


async def test_many_are_out_of_a_full_room_together(prosody: Server, room: str) -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(20)]
        await asyncio.gather(*(each.join(room, nick=f"n{i}") for i, each in enumerate(crowd)))
        await order(prosody, "end", room, reason="Over")
        assert await asyncio.gather(*(put_out(each, room) for each in crowd)) == [(set(), "Over")] * 20
