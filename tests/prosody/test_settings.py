"""What Prosody and Jitsi's modules enforce of a config, without a script in the page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.jitsi import (
    COMPONENTS,
    in_room,
    make_poll,
    metadata_of,
    metadata_seen,
    moderate_media,
    order_to_record,
    promote,
    set_session,
    start_jitsi,
    whisper,
    write,
    write_metadata,
)
from tests.prosody.ordering import order
from tests.prosody.test_breakout_rooms import HOSTS as BREAKOUT_HOSTS
from tests.prosody.test_breakout_rooms import close_meeting, open_breakout_room, switch
from tests.rig.answers import hold, reply
from tests.rig.xmpp import CLIENT, JITMEET, Client, error_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.jitsi]

MUTED = {"muteOnJoin": True, "videoOffOnJoin": True}
NOT_ALLOWED = "cancel/not-allowed"
COMPONENTS_WITH_BREAKOUT_ROOMS = BREAKOUT_HOSTS + COMPONENTS.replace(
    'muc_component = "conference.localhost"',
    'muc_component = "conference.localhost"\n\tbreakout_rooms_component = "breakout.localhost"',
    1,
)


async def record(
    client: Client, focus: Client, room: str, mode: str = "file", action: str = "start", attributes: str = ""
) -> str:
    return await ask_jicofo(client, focus, room, order_to_record(mode, action, attributes))


async def ask_jicofo(client: Client, focus: Client, room: str, payload: str) -> str:
    """Jicofo says yes to everything; gives the error, or "" if jicofo was asked."""
    answer = asyncio.create_task(client.iq("set", payload, to=f"{client.room_jid(room)}/focus"))
    asked = asyncio.create_task(focus.expect(lambda e: e.tag == f"{CLIENT}iq" and e.get("type") == "set"))
    await asyncio.wait({answer, asked}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        await focus.send(f"<iq type='result' id='{asked.result().get('id')}' to='{asked.result().get('from')}'/>")
    asked.cancel()
    result = await answer
    return str(error_of(result)) if result.get("type") == "error" else ""


async def features_of(prosody: Server, client: Client) -> dict[str, Any]:
    features: dict[str, Any] = await prosody.lua(
        f'return prosody.full_sessions["{client.jid}"].jitsi_meet_context_features or {{}}'
    )
    return features


def permissions_shown(client: Client) -> dict[str, str]:
    """What the last presence with permissions says of them."""
    shown: dict[str, str] = {}
    for stanza in client.inbox:
        element = stanza.find(f"{JITMEET}permissions")
        if element is not None:
            shown = {p.get("name", ""): p.get("val", "") for p in element}
    return shown


# -- muted on join


async def test_newcomers_are_muted_by_the_metadata_that_come_before_their_own_presence(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply(MUTED))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.begin_join(room, "ann")
        first = await ann.expect(lambda e: e.get("from") in ("metadata.localhost", f"{ann.room_jid(room)}/ann"))
        assert first.get("from") == "metadata.localhost"
        assert (await metadata_of(prosody, room))["startMuted"] == {"audio": True, "video": True}


@pytest.mark.parametrize("config", [{}, {"muteOnJoin": False, "videoOffOnJoin": None}], ids=str)
async def test_nobody_is_muted_unless_the_config_says_so(
    start_prosody: StartProsody, room: str, config: dict[str, Any]
) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        assert "startMuted" not in await metadata_of(prosody, room)


async def test_jicofo_learns_from_a_config_that_comes_late(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    slow = hold(reply({"muteOnJoin": True}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert all("startMuted" not in each for each in metadata_seen(focus))
        slow.release()
        await eventually(lambda: in_room(prosody, room, "return room._data.mute_on_join"), True)
        await focus.ping()
        assert metadata_seen(focus)[-1]["startMuted"] == {"audio": True}


async def test_what_a_moderator_has_said_about_muting_stays(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody, fresh=True)
    prosody.backend.on("room-created", reply(MUTED))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        await write_metadata(ann, room, "startMuted", {"audio": False})
        prosody.backend.on("room-created", reply({**MUTED, "chatEnabled": False}))
        await prosody.unload()
        await prosody.load()  # the next join asks for the config once more, and it has changed
        async with Client.connect(prosody) as bob:
            await bob.join(room, nick="bob")
            metadata = await metadata_of(prosody, room)
            assert metadata["startMuted"] == {"audio": False}
            assert metadata["permissions"] == {"groupChatRestricted": True}


async def test_what_another_module_has_said_before_the_config_stays(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    slow = hold(reply(MUTED))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await in_room(prosody, room, "room.jitsiMetadata.startMuted = { audio = false; desktop = true }")
        slow.release()
        await eventually(lambda: in_room(prosody, room, "return room._data.mute_on_join"), True)
        assert (await metadata_of(prosody, room))["startMuted"] == {"audio": False, "video": True, "desktop": True}


# -- the settings in the metadata


async def test_a_join_sends_the_metadata_to_nobody_else(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": True}))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
    ):
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await focus.ping()
        assert len(metadata_seen(ann)) == 1
        metadata_seen(focus)
        await bob.join(room, nick="bob")
        for client, others in ((ann, 0), (focus, 0), (bob, 1)):
            await client.ping()
            assert len(metadata_seen(client)) == others


async def test_the_frontends_settings_are_in_the_metadata_and_nothing_secret_is(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody)
    config = {
        "meetingTitle": 'R&D &quot;Q3&quot; &amp;lt; <b>"x"</b> & co',
        "chatEnabled": True,
        "toolbarButtons": ["chat", "a&gt;b"],
        "audioQuality": {"stereo": True, "a&lt;": "&#39;"},
        "password": "s3cret",
        "moderators": ["boss@auth.localhost"],
        "maxParticipants": 7,
    }
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        sent = (await ann.join(room, password="s3cret")).config
        [seen] = metadata_seen(ann)
        assert sent is not None
        assert as_the_page_reads(seen["roomConfig"]) == sent
        assert sent["meetingTitle"] == config["meetingTitle"]
        assert seen["roomConfig"]["meetingTitle"].startswith("R&D &amp;quot;"), (
            "only what would be replaced is different"
        )
        assert not {"password", "moderators"} & seen["roomConfig"].keys()
        assert "s3cret" not in str(seen)
        assert "boss" not in str(seen)


def as_the_page_reads(value: Any) -> Any:
    """lib-jitsi-meet replaces five entities, once."""
    if isinstance(value, dict):
        return {as_the_page_reads(k): as_the_page_reads(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_the_page_reads(v) for v in value]
    if isinstance(value, str):
        assert "&quot;" not in value.replace("&amp;quot;", ""), "it would end the text, and destroy the message"
        for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'"), ("&amp;", "&")):
            value = value.replace(entity, char)
    return value


async def test_only_the_config_writes_room_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await promote(prosody, room, ann)
        for client in (ann, bob):
            await write_metadata(client, room, "roomConfig", {"chatEnabled": False})
            await write_metadata(client, room, "other", client.jid)
        metadata = await metadata_of(prosody, room)
        assert metadata["roomConfig"] == {"chatEnabled": True}
        assert metadata["other"] == ann.jid, "their own keys are the moderators' as ever"


async def test_room_config_is_there_again_in_a_room_that_was_loaded_again(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody, fresh=True)
    prosody.backend.on("room-created", reply({**MUTED, "pollsEnabled": False}))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await prosody.reload("muc")
        assert await metadata_of(prosody, room) == {
            "roomConfig": {**MUTED, "pollsEnabled": False},
            "permissions": {"pollCreationRestricted": True},
        }, "and nobody is muted again"


# -- chat


@pytest.mark.parametrize("filters", [["filter_messages"], []], ids=["with Jitsi's filter", "without it"])
async def test_without_chat_nobody_writes_and_moderators_neither(
    start_prosody: StartProsody, room: str, filters: list[str]
) -> None:
    prosody = await start_jitsi(start_prosody, muc_modules=("jitsi_permissions", *filters, "muc_webhook"))
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await promote(prosody, room, ann)
        for client in (ann, bob):
            for namespace in ("jabber:client", "urn:other"):  # the page shows both
                assert await write(client, room, namespace=namespace) == NOT_ALLOWED
                assert await whisper(client, room, "ann", namespace=namespace) == NOT_ALLOWED
        assert (await features_of(prosody, ann))["send-groupchat"] is False
        assert (await metadata_of(prosody, room))["permissions"] == {"groupChatRestricted": True}
        if not filters:
            assert await write(focus, room) == "", "what the server's own services say arrives"


async def test_without_chat_other_messages_pass(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        payload = f"<json-message xmlns='{JITMEET[1:-1]}'>{{}}</json-message>"
        for kind, to in (("groupchat", ann.room_jid(room)), ("chat", f"{ann.room_jid(room)}/bob")):
            await ann.send(f"<message type='{kind}' id='own' to='{to}'>{payload}</message>")
            message = await bob.expect(lambda e: e.tag == f"{CLIENT}message" and e.get("id") == "own")
            assert message.get("type") == kind


async def test_without_private_messages_the_chat_stays(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"privateMessagesEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert await whisper(ann, room, "bob") == NOT_ALLOWED
        assert await write(ann, room) == ""
        await bob.expect(lambda e: e.findtext(f"{CLIENT}body") == "hello")
        assert not bob.has(lambda e: e.findtext(f"{CLIENT}body") == "psst")


async def test_an_error_with_a_text_is_no_private_message(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"privateMessagesEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert await whisper(ann, room, "bob", kind="error") == "", "no error is answered"
        await bob.ping()
        assert not bob.has(lambda e: e.findtext(f"{CLIENT}body") == "psst")


async def test_permissions_that_are_no_object_are_not_written(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": False, "pollsEnabled": False}))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        before = (await metadata_of(prosody, room))["permissions"]
        for data in ("none", 7, True):
            await write_metadata(ann, room, "permissions", data)
        assert (await metadata_of(prosody, room))["permissions"] == before


async def test_a_moderator_does_not_allow_the_chat_again(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await promote(prosody, room, ann)
        await write_metadata(bob, room, "permissions", {"pollCreationRestricted": True})
        assert (await metadata_of(prosody, room))["permissions"] == {"groupChatRestricted": True}
        await write_metadata(ann, room, "permissions", {"groupChatRestricted": False, "pollCreationRestricted": True})
        assert (await metadata_of(prosody, room))["permissions"] == {
            "groupChatRestricted": True,
            "pollCreationRestricted": True,
        }


async def test_a_config_that_allows_the_chat_opens_no_restriction_of_others(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody)
    slow = hold(reply({"chatEnabled": True, "pollsEnabled": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await in_room(prosody, room, "room.jitsiMetadata.permissions = { groupChatRestricted = true }")
        slow.release()
        await eventually(lambda: in_room(prosody, room, "return room._data.chat_enabled"), True)
        assert (await metadata_of(prosody, room))["permissions"] == {
            "groupChatRestricted": True,
            "pollCreationRestricted": True,
        }


# -- recordings, polls, A/V moderation


async def test_nobody_records_or_streams_where_it_is_forbidden(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"recordingEnabled": False, "liveStreamingEnabled": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        assert await record(ann, focus, room) == "auth/forbidden"
        assert await record(ann, focus, room, action="START", mode="FILE") == "auth/forbidden"
        for blank in ("", " ", "&#x2003;"):
            assert await record(ann, focus, room, attributes=f"sip_address='{blank}'") == "auth/forbidden"
        assert await record(ann, focus, room, attributes="sip_address='a@example.com'") == "", "that is a call"
        assert await record(ann, focus, room, action="stop") == ""
        assert await record(ann, focus, room, mode="stream") == ""


async def test_nobody_streams_where_that_is_forbidden(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"liveStreamingEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        assert await record(ann, focus, room, mode="stream") == "auth/forbidden"
        assert await record(ann, focus, room) == ""


@pytest.mark.parametrize("enabled", [False, True])
async def test_nobody_starts_a_transcription_where_captions_are_forbidden(
    start_prosody: StartProsody, room: str, enabled: bool
) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"closedCaptionsEnabled": enabled}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        await ann.ping()
        assert (await features_of(prosody, ann))["transcription"] is enabled
        dial = "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='jitsi_meet_transcribe'/>"
        assert await ask_jicofo(ann, focus, room, dial) == ("" if enabled else "auth/forbidden")
        await write_metadata(ann, room, "recording", {"isTranscribingEnabled": True})
        assert ("recording" in await metadata_of(prosody, room)) is enabled
        await write_metadata(ann, room, "recording", {"isTranscribingEnabled": False})
        assert "recording" in await metadata_of(prosody, room), "switching it off is always possible"


async def test_a_moderator_is_shown_what_is_forbidden_and_the_others_are_not_touched(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"recordingEnabled": False, "pollsEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob, Client.connect(prosody) as eve:
        for client, nick in ((ann, "ann"), (bob, "bob")):
            await client.join(room, nick=nick)
        assert await features_of(prosody, bob) == {}, "who has none is not given any"
        await promote(prosody, room, bob)
        await bob.ping()
        shown = permissions_shown(bob)
        assert {shown[name] for name in ("recording", "create-polls")} == {"false"}
        assert {shown[name] for name in ("livestreaming", "transcription", "send-groupchat")} == {"true"}
        prosody.backend.on("room-created", reply({}))
        await eve.join(f"other-{room}", nick="eve")
        assert set((await features_of(prosody, eve)).values()) == {True}, "the table that moderators share is whole"


async def test_the_features_of_a_token_are_narrowed_and_shown(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"recordingEnabled": False}))
    async with Client.connect(prosody, user="host") as host, Client.connect(prosody) as ann:
        await host.join(room, nick="host")
        await set_session(ann, room, token="t", recording=True, livestreaming=True, transcription=False)
        await ann.join(room, nick="ann")
        narrowed = {"recording": False, "livestreaming": True, "transcription": False}
        assert await features_of(prosody, ann) == narrowed
        # The page of a user whose token has features reads them there, unless it is shown others.
        prosody.backend.on("room-created", reply({}))
        await ann.leave(room, "ann")
        await ann.join(f"other-{room}", nick="ann")
        assert await features_of(prosody, ann) == {**narrowed, "recording": True}, "that was another meeting's rule"


async def test_a_page_whose_token_allows_more_is_shown_less(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"recordingEnabled": False}))
    async with Client.connect(prosody) as ann:
        await set_session(ann, room, token="t", recording=True, livestreaming=True)
        await ann.begin_join(room, "ann")
        own = await ann.expect(lambda e: e.tag == f"{CLIENT}presence" and e.find(f"{JITMEET}permissions") is not None)
        ann.inbox.append(own)
        assert permissions_shown(ann) == {"recording": "false", "livestreaming": "true"}


async def test_nobody_makes_polls_where_they_are_forbidden(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"pollsEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        for client, nick in ((ann, "ann"), (bob, "bob")):
            await set_session(client, room)
            await client.join(room, nick=nick)
        await promote(prosody, room, ann)
        assert await make_poll(ann) == NOT_ALLOWED
        assert await make_poll(bob) == NOT_ALLOWED


async def test_features_of_another_meeting_make_no_polls(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"pollsEnabled": False}))
    async with Client.connect(prosody) as ann:
        await set_session(ann, room, token="t", create_polls=True)
        await ann.join(room, nick="ann")
        prosody.backend.on("room-created", reply({}))
        await ann.join(f"other-{room}", nick="ann")
        assert (await features_of(prosody, ann))["create-polls"] is True
        assert await make_poll(ann) == NOT_ALLOWED


@pytest.mark.parametrize("enabled", [False, True, None])
async def test_av_moderation_is_refused_where_it_is_forbidden(
    start_prosody: StartProsody, room: str, enabled: bool | None
) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"avModerationEnabled": enabled}))
    async with Client.connect(prosody) as ann:
        await set_session(ann, room)
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        refused = await moderate_media(ann)
        assert refused == (NOT_ALLOWED if enabled is False else "")
        assert await in_room(prosody, room, "return room.av_moderation ~= nil") is (enabled is not False)
        assert await moderate_media(ann, enable=False) == "", "switching it off is always possible"
        assert await moderate_media(ann, kind="error") == "", "no error is answered"


async def test_the_domain_as_a_tenant_leads_past_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"avModerationEnabled": False}))
    async with Client.connect(prosody) as ann:
        await set_session(ann, room, tenant="localhost")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        assert await moderate_media(ann) == NOT_ALLOWED


async def test_what_the_config_does_not_mention_stays_as_it_is(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody)
    prosody.backend.on("room-created", reply({"chatEnabled": True, "recordingEnabled": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await set_session(ann, room)
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        assert [await write(ann, room), await whisper(ann, room, "ann"), await make_poll(ann)] == ["", "", ""]
        assert await record(ann, focus, room) == ""
        assert "permissions" not in await metadata_of(prosody, room)
        assert set((await features_of(prosody, ann)).values()) == {True}


async def test_a_reload_of_the_module_allows_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody, fresh=True, muc_modules=("jitsi_permissions", "muc_webhook"))
    prosody.backend.on("room-created", reply({"chatEnabled": False, "recordingEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await prosody.reload()
        await promote(prosody, room, ann)
        assert await write(ann, room) == NOT_ALLOWED
        assert await record(ann, focus, room) == "auth/forbidden"
        assert (await features_of(prosody, ann))["recording"] is False
        await prosody.unload()
        await prosody.load()
        assert await write(ann, room) == NOT_ALLOWED, "also while nothing is known of the config"
        await write_metadata(ann, room, "roomConfig", {})
        assert (await metadata_of(prosody, room))["roomConfig"] == {"chatEnabled": False, "recordingEnabled": False}


async def test_a_setting_that_the_operator_lists_once_more_is_still_enforced(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody, options={"muc_webhook_frontend_settings": ["chatEnabled"]})
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        assert await write(ann, room) == NOT_ALLOWED


@pytest.mark.parametrize("mode", ["file", "stream"])
async def test_jitsis_own_filter_refuses_by_the_features(start_prosody: StartProsody, room: str, mode: str) -> None:
    prosody = await start_jitsi(start_prosody, fresh=True)
    await prosody.load("filter_iq_jibri", host="localhost")
    prosody.backend.on("room-created", reply({"recordingEnabled": False, "liveStreamingEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await promote(prosody, room, ann)
        to = f"{ann.room_jid(room)}/focus"
        answer = await ann.iq("set", order_to_record(mode), to=to)
        assert str(error_of(answer)) == "auth/forbidden"
        assert error_of(answer).text is None, "this module gives a text"


async def test_what_is_refused_in_the_meeting_is_refused_in_its_breakout_rooms(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody, extra=COMPONENTS_WITH_BREAKOUT_ROOMS)
    config = {"chatEnabled": False, "recordingEnabled": False, "pollsEnabled": True}
    prosody.backend.on("room-created", reply(config))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        for client, nick in ((focus, "focus"), (ann, "ann"), (bob, "bob")):
            await client.join(room, nick=nick)
        breakout = await open_breakout_room(prosody, room)
        await focus.join(breakout, nick="focus")
        assert await switch(ann, room, breakout, "ann")
        assert await switch(bob, room, breakout, "bob")
        shown: dict[str, object] = {"roomConfig": config, "permissions": {"groupChatRestricted": True}}
        assert metadata_seen(bob)[-1] == shown
        await prosody.module(f"""
            local room = prosody.hosts["breakout.localhost"].modules.muc.get_room_from_jid("{breakout}");
            assert(room:set_affiliation(true, "{ann.jid.partition("/")[0]}", "owner"))""")
        for client in (ann, bob):
            assert await write(client, breakout) == NOT_ALLOWED
            assert await whisper(client, breakout, "ann") == NOT_ALLOWED
            assert await record(client, focus, breakout) == "auth/forbidden"
            await write_metadata(client, breakout, "roomConfig", {})
            await write_metadata(client, breakout, "permissions", {"groupChatRestricted": False})
            await write_metadata(client, breakout, "other", client.jid)
        shown["other"] = ann.jid
        assert metadata_seen(bob)[-1] == shown
        await close_meeting(prosody, room)


async def test_a_refresh_reaches_the_pages_in_breakout_rooms(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_jitsi(start_prosody, extra=COMPONENTS_WITH_BREAKOUT_ROOMS)
    prosody.backend.on("room-created", reply({"chatEnabled": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        await focus.join(breakout, nick="focus")
        assert await switch(ann, room, breakout, "ann")
        prosody.backend.on("room-created", reply({"chatEnabled": False}))
        assert (await order(prosody, "refresh", room))["status"] == "done"
        await ann.ping()
        shown = {"roomConfig": {"chatEnabled": False}, "permissions": {"groupChatRestricted": True}}
        assert metadata_seen(ann)[-1] == shown
        assert await write(ann, breakout) == NOT_ALLOWED
        await close_meeting(prosody, room)


async def test_breakout_rooms_of_a_meeting_in_which_all_is_allowed_are_free(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_jitsi(start_prosody, extra=COMPONENTS_WITH_BREAKOUT_ROOMS)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        for client, nick in ((focus, "focus"), (ann, "ann")):
            await client.join(room, nick=nick)
        breakout = await open_breakout_room(prosody, room)
        await focus.join(breakout, nick="focus")
        assert await switch(ann, room, breakout, "ann")
        assert await write(ann, breakout) == ""
        assert await record(ann, focus, breakout) == ""
        await close_meeting(prosody, room)
