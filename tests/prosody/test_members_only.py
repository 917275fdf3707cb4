"""`muc_room_default_members_only`: Prosody keeps strangers out by itself, and the gate takes that back room by room."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import hold, reply
from tests.rig.xmpp import CLIENT, Client, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEFAULT = {"muc_room_default_members_only": True}
AS_ADVISED = {**DEFAULT, "restrict_room_creation": True}
"""What operators are told to set: only jicofo makes rooms."""

FORM = (
    "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>"
    "<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"
    "<field var='muc#roomconfig_membersonly'><value>{}</value></field></x></query>"
)


async def submit_form(client: Client, room: str, members_only: bool) -> None:
    result = await client.iq("set", FORM.format(int(members_only)), to=client.room_jid(room))
    assert result.get("type") == "result"


async def in_room(prosody: Server, room: str, code: str) -> object:
    """Runs a piece of Lua with `room`."""
    return await prosody.module(f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); {code}')


async def is_closed(prosody: Server, room: str) -> bool:
    return await in_room(prosody, room, "return room:get_members_only() == true") is True


async def refusal(client: Client, room: str, nick: str = "me") -> str:
    return str((await client.join(room, nick=nick)).error)


async def test_who_is_allowed_gets_into_a_room_of_jicofo(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=AS_ADVISED)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        assert (await focus.join(room, nick="focus")).joined
        result = await ann.join(room, nick="ann")
        assert (result.role, result.affiliation) == ("participant", "none")
        assert not await is_closed(prosody, room)


async def test_who_is_allowed_gets_into_a_new_room(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=DEFAULT)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        assert (await ann.join(room, nick="ann")).joined
        assert (await bob.join(room, nick="bob")).role == "participant"


async def test_a_room_of_jicofo_stays_closed_until_its_config_is_there(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=AS_ADVISED)
    slow = hold(reply({"meetingTitle": "Board"}))
    prosody.backend.on("room-created", slow)
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="recorder", domain="recorder.localhost") as recorder,
    ):
        await focus.join(room, nick="focus")
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        assert await is_closed(prosody, room)
        assert await refusal(recorder, room) == "auth/registration-required", "nobody decides about it"
        slow.release()
        assert (await ann.await_join(room)).config == {"meetingTitle": "Board"}
        assert not await is_closed(prosody, room)
        assert (await recorder.join(room, nick="recorder")).joined


@pytest.mark.parametrize("maker", ["jicofo", "a user"])
async def test_a_room_that_is_to_be_members_only_stays_closed(
    start_prosody: StartProsody, room: str, maker: str
) -> None:
    prosody = await start_prosody(options=DEFAULT)
    prosody.backend.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        if maker == "jicofo":
            await focus.join(room, nick="focus")
        assert (await ann.join(room, nick="ann")).affiliation == ("member" if maker == "jicofo" else "owner")
        assert await is_closed(prosody, room)


@pytest.mark.parametrize("maker", ["jicofo", "a user"])
async def test_a_room_without_a_config_is_opened_with_fail_open(
    start_prosody: StartProsody, room: str, maker: str
) -> None:
    prosody = await start_prosody(options={**DEFAULT, "muc_webhook_fail_open": True})
    prosody.backend.on("room-created", reply({}, status=500))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="recorder", domain="recorder.localhost") as recorder,
    ):
        if maker == "jicofo":
            await focus.join(room, nick="focus")
            await eventually(lambda: is_closed(prosody, room), False)
            assert (await recorder.join(room, nick="recorder")).joined
        assert (await ann.join(room, nick="ann")).joined
        assert not await is_closed(prosody, room)


async def test_a_room_whose_config_fails_stays_closed(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=AS_ADVISED)
    prosody.backend.on("room-created", reply({}, status=500))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert await refusal(ann, room) == "wait/remote-server-timeout"
        assert await is_closed(prosody, room)
        prosody.backend.reset_answers()
        assert (await ann.join(room, nick="ann")).joined


# -- locks of others


@pytest.mark.jitsi
@pytest.mark.parametrize(
    "opened_by",
    [
        'prosody.events.fire_event("create-lobby-room", { room = room })',
        "room._data.lobbyroom = room.jid:gsub('@.*', '@lobby.localhost')",
    ],
    ids=["an event", "a moderator"],
)
async def test_a_lobby_of_another_module_is_not_opened(start_prosody: StartProsody, room: str, opened_by: str) -> None:
    """What Jitsi's lobby does: a moderator finds the room members-only already, and only the lobby is new."""
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_lobby"), options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await in_room(prosody, room, opened_by)
        slow.release()
        assert await refusal(ann, room) == "auth/registration-required"
        assert await is_closed(prosody, room)


@pytest.mark.jitsi
async def test_a_lobby_that_the_config_wants_is_not_opened(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_lobby"), options=AS_ADVISED)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert await refusal(ann, room) == "auth/registration-required"
        assert await is_closed(prosody, room)


async def test_a_module_that_closes_the_room_while_it_is_made_is_obeyed(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=DEFAULT)
    await prosody.module("""
        host.events.add_handler("muc-room-pre-create", function (event) event.room:set_members_only(true); end, 0)""")
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert await refusal(ann, room) == "auth/registration-required"


@pytest.mark.parametrize("reloaded", [None, "muc", "muc_webhook"])
async def test_a_module_that_closes_the_room_while_its_config_is_awaited_is_obeyed(
    start_prosody: StartProsody, room: str, reloaded: str | None
) -> None:
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        if reloaded:
            await prosody.reload(reloaded)
        await in_room(prosody, room, "room:set_members_only(true)")
        slow.release()
        assert await refusal(ann, room) == "auth/registration-required"


async def test_a_moderator_who_opens_and_closes_the_room_is_obeyed(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await submit_form(focus, room, members_only=False)
        await submit_form(focus, room, members_only=True)
        slow.release()
        assert await refusal(ann, room) == "auth/registration-required"


async def test_a_form_that_changes_nothing_closes_nothing(start_prosody: StartProsody, room: str) -> None:
    """Some clients read the room's form, set what they need, and send all of it back."""
    prosody = await start_prosody(options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await submit_form(focus, room, members_only=True)
        slow.release()
        assert (await ann.join(room, nick="ann")).joined


@pytest.mark.parametrize("how", ["a module", "a moderator"])
async def test_a_room_that_is_closed_later_stays_closed(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(options=AS_ADVISED)
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await in_room(prosody, room, f'room:set_affiliation(true, "{ann.jid.partition("/")[0]}", "member")')
        if how == "a module":
            await in_room(prosody, room, "room:set_members_only(true)")
        else:
            await submit_form(focus, room, members_only=True)
        assert await refusal(bob, room, nick="bob") == "auth/registration-required"
        assert await prosody.occupants(room) == ["ann", "focus"]


# -- reloads


@pytest.mark.parametrize("module", ["muc", "muc_webhook"])
async def test_a_room_that_waited_across_a_reload_is_opened(
    start_prosody: StartProsody, room: str, module: str
) -> None:
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await prosody.reload(module)
        assert await is_closed(prosody, room)
        slow.release()
        assert (await ann.await_join(room)).joined


async def test_a_room_that_waits_while_the_gate_is_unloaded_stays_closed(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    prosody.backend.on("room-created", hold(reply({})))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await prosody.unload()
        assert await refusal(ann, room) == "wait/internal-server-error"
        assert await is_closed(prosody, room)
        prosody.backend.on("room-created", reply({}))
        await prosody.load()
        assert (await ann.join(room, nick="ann")).joined


# -- rooms that were made while there was no gate


@pytest.mark.parametrize("how", ["unloaded", "missing at a restart"])
async def test_a_room_that_jicofo_made_without_a_gate_is_opened(
    start_prosody: StartProsody, room: str, how: str
) -> None:
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    guard = prosody.folder / "lua" / "mod_muc_webhook.lua"
    if how == "unloaded":
        await prosody.unload()
    else:
        whole = guard.read_bytes()
        await prosody.restart(guard.unlink)
        guard.write_bytes(whole)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert not (await ann.join(room, nick="ann")).joined
        await prosody.load()
        assert (await ann.join(room, nick="ann")).joined
        assert not await is_closed(prosody, room)


@pytest.mark.parametrize("lock", ["a lobby", "a config", "a room that is kept"])
async def test_a_room_that_somebody_closed_stays_closed_when_a_gate_starts(
    start_prosody: StartProsody, room: str, lock: str
) -> None:
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    if lock == "a config":
        prosody.backend.on("room-created", reply({"membersOnly": True}))
    else:
        await prosody.unload()
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        if lock == "a config":
            await prosody.backend.received("room-created", room)
            await eventually(lambda: in_room(prosody, room, "return room._data.muc_webhook_config ~= nil"), True)
            await prosody.unload()
            prosody.backend.begin_again()
        elif lock == "a lobby":
            await in_room(prosody, room, "room._data.lobbyroom = room.jid:gsub('@.*', '@lobby.localhost')")
        else:
            await in_room(prosody, room, "room:set_persistent(true)")
        await prosody.load()
        assert await refusal(ann, room) == "auth/registration-required"
        assert await is_closed(prosody, room)


async def test_a_room_that_other_code_made_stays_closed(start_prosody: StartProsody, room: str) -> None:
    """Nobody can see whether that code wanted it closed."""
    prosody = await start_prosody(fresh=True, options=AS_ADVISED)
    await prosody.module(f'muc.create_room("{room}@{prosody.muc}", {{ members_only = true }})')
    await prosody.unload()
    await prosody.load()
    async with Client.connect(prosody) as ann:
        assert await refusal(ann, room) == "auth/registration-required"


# -- who is inside already


async def test_jicofo_hears_that_the_room_was_opened(start_prosody: StartProsody, room: str) -> None:
    """An older jicofo takes a members-only room for one with a lobby until then, and sends no visitors into it."""
    prosody = await start_prosody(options=AS_ADVISED)
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        slow.release()
        await focus.expect(lambda stanza: stanza.tag == f"{CLIENT}message" and "104" in statuses(stanza))
        assert not await is_closed(prosody, room)
