"""One join and one leave for each occupant, whatever happens in between."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.story import ALL, OPTIONS, rename, story
from tests.rig.answers import reply
from tests.rig.xmpp import MUC, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

LARGEST_BODY = 64 * 1024
"""What the sidecar accepts."""


@pytest_asyncio.fixture(loop_scope="session")
async def watched(start_prosody: StartProsody) -> Server:
    return await start_prosody(options=OPTIONS)


async def set_affiliation(client: Client, room: str, of: Client, affiliation: str) -> None:
    item = f"<item jid='{of.jid.partition('/')[0]}' affiliation='{affiliation}'/>"
    query = f"<query xmlns='http://jabber.org/protocol/muc#admin'>{item}</query>"
    await client.iq("set", query, to=client.room_jid(room))


# -- nicks


@pytest.mark.parametrize("with_x", [False, True], ids=["as a change", "as a join"])
async def test_a_user_who_changes_the_nick_three_times_joins_and_leaves_once(
    watched: Server, room: str, with_x: bool
) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        for nick in ("ann1", "ann2", "ann3"):
            await rename(ann, room, nick, with_x=with_x)
        await ann.leave(room, "ann3")
        assert await story(watched, room) == ["joined bob", "joined ann", "left ann3: left"]
    joined, left = (e for e in watched.backend.asked(room=room) if e.body.get("nick") in ("ann", "ann3"))
    assert left.body["joinEventId"] == joined.body["eventId"]


@pytest.mark.parametrize("with_x", [False, True], ids=["as a change", "as a join"])
async def test_a_room_outlives_its_only_occupants_change_of_nick(watched: Server, room: str, with_x: bool) -> None:
    watched.backend.on("room-created", reply({"password": "swordfish"}), room=room)
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann", password="swordfish")
        await rename(ann, room, "anna", with_x=with_x)
        assert await watched.occupants(room) == ["anna"]
        assert str((await bob.join(room, nick="bob")).error) == "auth/not-authorized", "it is still that room"
        await ann.leave(room, "anna")
        assert await story(watched, room) == ["joined ann", "left anna: left", "destroyed: all_users_left"]
    assert room not in await watched.rooms()


async def test_a_nick_that_is_free_again_is_another_users(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="one")
        await bob.join(room, nick="two")
        await rename(ann, room, "three")
        await rename(bob, room, "one")
        await ann.leave(room, "three")
        await bob.leave(room, "one")
        assert await story(watched, room) == [
            "joined one",
            "joined two",
            "left three: left",
            "left one: left",
            "destroyed: all_users_left",
        ]
    left = [e.body["userJid"] for e in watched.backend.asked("user-left", room)]
    assert left == [ann.jid.partition("/")[0], bob.jid.partition("/")[0]]


# -- sessions


@pytest.mark.parametrize("with_x", [False, True], ids=["as a change", "as a join"])
async def test_a_session_that_takes_a_nick_of_its_own_is_another_occupant(
    watched: Server, room: str, with_x: bool
) -> None:
    async with Client.connect(watched, user="bob") as phone, Client.connect(watched, user="bob") as laptop:
        await phone.join(room, nick="bob")
        await laptop.join(room, nick="bob")
        await rename(laptop, room, "bob2", with_x=with_x)
        assert await watched.occupants(room) == ["bob", "bob2"]
        await phone.leave(room, "bob")
        await laptop.leave(room, "bob2")
        assert await story(watched, room) == [
            "joined bob",
            "joined bob2",
            "left bob: left",
            "left bob2: left",
            "destroyed: all_users_left",
        ]


async def test_an_occupant_who_goes_on_in_another_one_of_the_same_user_has_left(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="bob") as phone, Client.connect(watched, user="bob") as laptop:
        await phone.join(room, nick="bob")
        await laptop.join(room, nick="bob2")
        await rename(laptop, room, "bob")
        assert await watched.occupants(room) == ["bob"]
        assert await story(watched, room) == ["joined bob", "joined bob2", "left bob2: merged"]
        await laptop.leave(room, "bob")
        await phone.leave(room, "bob")
        assert (await story(watched, room))[3:] == ["left bob: left", "destroyed: all_users_left"]


async def test_the_first_of_two_sessions_that_breaks_off_is_nobody_leaving(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="bob") as phone, Client.connect(watched, user="bob") as laptop:
        await phone.join(room, nick="bob")
        await laptop.join(room, nick="bob")
        await phone.rst()
        await eventually(lambda: watched.has_session(phone.jid), False)
        assert await story(watched, room) == ["joined bob"]
        await laptop.leave(room, "bob")
        assert (await story(watched, room))[1:] == ["left bob: left", "destroyed: all_users_left"]


async def test_a_session_that_is_resumed_has_neither_left_nor_joined(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="ann", smacks=True) as ann:
        await ann.join(room, nick="ann")
        await ann.rst()
        again = await Client.login(watched, user="ann")
        await again.resume(ann)
        assert await story(watched, room) == ["joined ann"]
        await again.leave(room, "ann")
        assert (await story(watched, room))[1:] == ["left ann: left", "destroyed: all_users_left"]
        await again.close()


async def test_who_leaves_and_joins_in_one_write_has_done_both(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        me, x = f"{ann.room_jid(room)}/ann", f"<x xmlns='{MUC}'/>"
        start = "<presence xmlns='jabber:client'"
        await ann.transport.send(f"{start} type='unavailable' to='{me}'/>{start} to='{me}'>{x}</presence>")
        await ann.await_join(room)
        assert await story(watched, room) == ["joined bob", "joined ann", "left ann: left", "joined ann"]


# -- without a word


async def test_a_user_whom_another_module_takes_out_without_a_word_has_left(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        await watched.module(f"""
            local room = muc.get_room_from_jid("{room}@conference.localhost")
            local ann = room:get_occupant_by_nick(room.jid .. "/ann")
            ann.role = nil
            room:save_occupant(ann)""")
        assert await story(watched, room) == ["joined bob", "joined ann"], "nothing was heard of it yet"
        await visit_rooms(watched)
        assert (await story(watched, room))[2:] == ["left ann: disconnected"]


async def visit_rooms(prosody: Server) -> None:
    """What the module does each minute."""
    await prosody.lua(
        'module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts.attendance.visit_live_rooms()'
    )


async def test_a_components_user_who_is_gone_has_left_when_a_stanza_comes_back(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        async with Client.component(watched) as bot:
            await bot.join(room, nick="bot")
        await eventually(lambda: says_hello(ann, room, watched), ["ann"])
        assert await story(watched, room) == ["joined ann", "joined bot", "left bot: disconnected"]


async def says_hello(client: Client, room: str, prosody: Server) -> list[str]:
    """Gives the nicks that are in the room then."""
    await client.send(f"<message type='groupchat' to='{client.room_jid(room)}'><body>Hello</body></message>")
    await client.ping()
    return await prosody.occupants(room)


# -- the module, and mod_muc


@pytest.mark.parametrize("module", ["muc_webhook", "muc"])
async def test_a_reload_is_nobody_leaving(start_prosody: StartProsody, room: str, module: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        await prosody.reload(module)
        await rename(ann, room, "anna")
        await ann.leave(room, "anna")
        await bob.leave(room, "bob")
        assert await story(prosody, room) == [
            "joined bob",
            "joined ann",
            "left anna: left",
            "left bob: left",
            "destroyed: all_users_left",
        ]
    assert [e.body["sequence"] for e in prosody.backend.asked(room=room) if e.endpoint in ALL] == [1, 2, 3, 4, 5]


async def test_who_leaves_while_the_module_is_not_there_has_left_when_it_is_back(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob, Client.connect(prosody) as cat:
        for client, nick in ((ann, "ann"), (bob, "bob")):
            await client.join(room, nick=nick)
        await cat.join("other-" + room, nick="cat")
        await prosody.unload()
        await ann.leave(room, "ann")
        await cat.leave("other-" + room, "cat")
        await prosody.load()
        assert await story(prosody, room) == ["joined ann", "joined bob", "left ann: disconnected"]
        assert await story(prosody, "other-" + room) == [
            "joined cat",
            "left cat: room-destroyed",
            "destroyed: all_users_left",
        ]
        await bob.leave(room, "bob")
        assert (await story(prosody, room))[3:] == ["left bob: left", "destroyed: all_users_left"]


async def test_who_is_in_when_events_are_switched_on_has_joined(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_events": []})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        config = prosody.folder / "prosody.cfg.lua"
        config.write_text(
            config.read_text().replace("muc_webhook_events = {  }", 'muc_webhook_events = { "user-joined" }')
        )
        await prosody.lua("prosody.reload_config()")
        await prosody.reload()
        assert await story(prosody, room) == ["joined ann"]


async def test_what_an_earlier_version_remembers_of_a_person_is_enough(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await story(prosody, room)
        await prosody.module("""
            for _, life in pairs(webhook.module.save().lives) do
                for _, person in pairs(life.people) do
                    person.moderator, person.nick, person.role = person.role == "moderator", nil, nil
                end
            end""")
        await prosody.reload()
        await bob.leave(room, "bob")
        await ann.leave(room, "ann")
        assert (await story(prosody, room))[2:] == ["left bob: left", "left ann: left", "destroyed: all_users_left"]


# -- moderators


async def test_the_join_says_what_the_user_is_after_all_other_modules_have_run(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_allowners"), options=OPTIONS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert await story(prosody, room) == ["joined ann", "joined bob"]
    joined = prosody.backend.asked("user-joined", room)
    assert [(e.body["isModerator"], e.body["moderator"], e.body["role"]) for e in joined] == [
        (True, True, "moderator"),
        (True, True, "moderator"),
    ]


async def test_a_change_names_who_did_it(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob", name="Bob")
        await set_affiliation(ann, room, bob, "owner")
        await rename(bob, room, "bobby")
        await set_affiliation(ann, room, bob, "none")
        assert (await story(watched, room))[2:] == ["bob is moderator", "bobby is no moderator"]
    change = watched.backend.asked("moderator-changed", room)[0].body
    assert (change["changedBy"], change["actorNick"], change["userName"]) == (ann.jid, "ann", "Bob")


async def test_a_change_of_somebody_who_is_not_in_the_room_is_told_too(watched: Server, room: str) -> None:
    """By a person: what modules do before a join, the join says."""
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        for affiliation in ("member", "owner", "admin", "none"):
            await ann.iq(
                "set",
                "<query xmlns='http://jabber.org/protocol/muc#admin'>"
                f"<item jid='bob@auth.localhost' affiliation='{affiliation}'/></query>",
                to=ann.room_jid(room),
            )
        await watched.module(f"""
            local room = muc.get_room_from_jid("{room}@{watched.muc}");
            assert(room:set_affiliation(true, "cat@auth.localhost", "owner"))""")
        assert await story(watched, room) == ["joined ann", "None is moderator", "None is no moderator"]
        changes = [each.body for each in watched.backend.asked("moderator-changed", room)]
        assert [(each["userJid"], each["affiliation"], each.get("role")) for each in changes] == [
            ("bob@auth.localhost", "owner", None),
            ("bob@auth.localhost", "none", None),
        ]
        assert {each["changedBy"] for each in changes} == {ann.jid}


async def test_a_change_that_a_module_made_names_nobody(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await watched.module(
            f'muc.get_room_from_jid("{room}@conference.localhost"):'
            f'set_affiliation(true, "{bob.jid.partition("/")[0]}", "owner")'
        )
        assert (await story(watched, room))[2:] == ["bob is moderator"]
    assert "changedBy" not in watched.backend.asked("moderator-changed", room)[0].body


# -- the end of a room


async def test_a_room_that_is_destroyed_while_somebody_is_in_says_why(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        await watched.destroy(room)
        assert (await story(watched, room))[1:] == ["left ann: room-destroyed", "destroyed: destroyed"]
    assert watched.backend.asked("room-destroyed", room)[0].body["cause"] == "destroyed"


async def test_a_room_that_is_destroyed_after_the_last_has_left_is_one_that_all_users_left(
    watched: Server, room: str
) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        await watched.destroy(room)
        assert (await story(watched, room))[1:] == ["left ann: left", "destroyed: all_users_left"]
    assert watched.backend.asked("room-destroyed", room)[0].body["cause"] == "destroyed"


# -- texts of any length

LONG = {
    "a name": 'x"\\' * 21_000,
    "a name of wide characters": "é" * 32_000,
    "a name that is cut in a character": "x" * 1022 + "é" * 10,
}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG.keys())
async def test_a_long_name_hides_nothing(watched: Server, room: str, name: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await bob.set_token("t", id="i" * 60_000, email="e" * 60_000)
        await bob.join(room, nick="b" * 1000)
        await ann.join(room, nick="ann", name=name)
        await ann.leave(room, "ann")
        assert (await story(watched, room))[1:] == ["joined ann", "left ann: left"]
    events = [e for e in watched.backend.asked(room=room) if e.endpoint in ALL]
    assert max(len(e.content) for e in events) < LARGEST_BODY // 4
    assert "userId" not in events[0].body, "a part of an id is another id"
    assert name.startswith(events[1].body["userName"])
    assert len(events[1].body["userName"].encode()) in (1022, 1023)


async def test_a_long_reason_hides_nothing(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await ann.iq(
            "set",
            "<query xmlns='http://jabber.org/protocol/muc#admin'>"
            f"<item nick='bob' role='none'><reason>{'r' * 80_000}</reason></item></query>",
            to=ann.room_jid(room),
        )
        assert (await story(watched, room))[2:] == ["left bob: kicked"]
    assert watched.backend.asked("user-left", room)[0].body["reasonText"] == "r" * 1023
