"""On a visitor node: visitors are asked about and stay visitors; who is mirrored from the main room is in already."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.prosody.jitsi import whisper
from tests.prosody.ordering import order
from tests.rig.answers import deny, reply
from tests.rig.ports import free_port
from tests.rig.xmpp import CLIENT, Client, error_of, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODE = ("fmuc", "muc_webhook")
OPTIONS = {
    "main_domain": "remote.test",
    "restrict_room_creation": True,
    "muc_webhook_events": ["user-joined", "user-left"],
}
CONFIG = {
    "membersOnly": True,
    "lobbyEnabled": False,
    "maxParticipants": 1,
    "moderators": ["ann@auth.localhost"],
    "chatEnabled": False,
}


@pytest.mark.jitsi
@pytest.mark.parametrize("closed_by_default", [False, True])
async def test_a_visitor_who_is_allowed_stays_a_visitor(
    start_prosody: StartProsody, room: str, closed_by_default: bool
) -> None:
    options = {**OPTIONS, "muc_room_default_members_only": closed_by_default}
    prosody = await start_prosody(muc_modules=NODE, options=options)
    prosody.backend.on("room-created", reply(CONFIG))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody) as bob,
    ):
        await focus.join(room, nick="focus")
        results = [await ann.join(room, nick="ann"), await bob.join(room, nick="bob")]
        assert [(r.role, r.affiliation) for r in results] == [("visitor", "none")] * 2
        assert results[1].config == {"chatEnabled": False, "lobbyEnabled": False}


@pytest.mark.jitsi
async def test_a_visitor_who_is_denied_stays_out(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=NODE, options=OPTIONS)
    prosody.backend.on("validate-access", deny("No"))
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as eve:
        await focus.join(room, nick="focus")
        assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"


async def another_server(start_prosody: StartProsody) -> tuple[Server, int]:
    port = free_port()
    s2s = (
        f's2s_ports = {{ {port} }}\ns2s_interfaces = {{ "127.0.0.1" }}\ns2s_require_encryption = false\n'
        "s2s_secure_auth = false\ns2s_direct_tls_ports = {}"
    )
    prosody = await start_prosody(fresh=True, muc_modules=NODE, options=OPTIONS, extra_global=s2s)
    await prosody.load("dialback")
    await prosody.load("s2s")
    return prosody, port


@pytest.mark.parametrize("domain", ["remote.test", "guest.remote.test"], ids=["a user", "a guest"])
async def test_nobody_is_asked_about_a_mirrored_participant(
    start_prosody: StartProsody, room: str, domain: str
) -> None:
    prosody, port = await another_server(start_prosody)
    prosody.backend.on("validate-access", deny("No"))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.remote(prosody, port, "ann", domain) as mirrored,
    ):
        await focus.join(room, nick="focus")
        await mirrored.begin_join(room, "ann")
        await mirrored.expect(lambda s: s.get("from", "").startswith(room) and "110" in statuses(s))
        assert prosody.backend.asked("validate-access") == []
        assert prosody.backend.asked("user-joined") == []


async def test_an_order_is_about_the_visitors_of_the_node(start_prosody: StartProsody, room: str) -> None:
    prosody, port = await another_server(start_prosody)
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="bob") as bob,
        Client.remote(prosody, port, "ann") as mirrored,
    ):
        await focus.join(room, nick="focus")
        await mirrored.begin_join(room, "ann")
        await mirrored.expect(lambda s: s.get("from", "").startswith(room) and "110" in statuses(s))
        await bob.join(room, nick="bob")
        assert [each["nick"] for each in (await order(prosody, "who", room))["occupants"]] == ["bob"]
        assert await order(prosody, "kick", room, user="ann@remote.test") == {"status": "absent"}
        assert (await order(prosody, "kick", room, user="bob@auth.localhost"))["kicked"] == 1
        assert await prosody.occupants(room) == ["ann", "focus"]


@pytest.mark.parametrize("config", [{"privateMessagesEnabled": False}, {"chatEnabled": False}], ids=str)
async def test_between_visitors_and_participants_there_are_no_private_messages_either(
    start_prosody: StartProsody, room: str, config: dict[str, bool]
) -> None:
    prosody, port = await another_server(start_prosody)
    prosody.backend.on("room-created", reply(config))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="bob") as bob,
        Client.remote(prosody, port, "ann") as mirrored,
    ):
        await focus.join(room, nick="focus")
        await mirrored.begin_join(room, "ann")
        await mirrored.expect(lambda s: s.get("from", "").startswith(room) and "110" in statuses(s))
        await bob.join(room, nick="bob")
        assert await whisper(bob, room, "ann") == "cancel/not-allowed"
        await mirrored.send(f"<message type='chat' id='pm' to='{bob.room_jid(room)}/bob'><body>psst</body></message>")
        answer = await mirrored.expect(lambda s: s.tag.endswith("message") and s.get("id") == "pm")
        assert str(error_of(answer)) == "cancel/not-allowed"
        await bob.ping()
        assert not bob.has(lambda e: e.findtext(f"{CLIENT}body") == "psst")


@pytest.mark.parametrize("enabled", [False, True])
async def test_a_visitor_of_a_node_without_the_module_whispers_only_where_that_is_allowed(
    start_prosody: StartProsody, room: str, enabled: bool
) -> None:
    prosody = await start_prosody(muc_modules=("rig_visitors", "muc_webhook"))
    prosody.backend.on("room-created", reply({"privateMessagesEnabled": enabled}))
    async with Client.connect(prosody) as ann, Client.component(prosody, "visitor") as visitor:
        await ann.join(room, nick="ann")
        await visitor.send(f"<message type='chat' id='pm' to='{ann.room_jid(room)}/ann'><body>psst</body></message>")
        if enabled:
            await ann.expect(lambda e: e.findtext(f"{CLIENT}body") == "psst")
        else:
            answer = await visitor.expect(lambda s: s.get("id") == "pm")
            assert str(error_of(answer)) == "cancel/not-allowed"
            await ann.ping()
            assert not ann.has(lambda e: e.findtext(f"{CLIENT}body") == "psst")


async def test_a_server_whose_name_only_ends_alike_is_a_stranger(start_prosody: StartProsody, room: str) -> None:
    prosody, port = await another_server(start_prosody)
    prosody.backend.on("validate-access", deny("No"))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.remote(prosody, port, "eve", "notremote.test") as eve,
    ):
        await focus.join(room, nick="focus")
        assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"


# -- what status() says of other modules


async def test_the_shell_names_the_modules_that_matter(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(muc_modules=("muc_hide_all", *NODE), options=OPTIONS)
    shown = await prosody.shell("muc_webhook:status()")
    assert "beside muc_hide_all: publicRoom = true lists no room" in shown
    assert "beside fmuc: this is a visitor node" in shown
    assert "lobby_autostart" not in shown
