"""What is asked, of whom, and who is not asked for."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import allow, deny, hold, reply
from tests.rig.backend import Backend
from tests.rig.xmpp import Client, StanzaError

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO = deny("No")


async def test_the_question_says_who_wants_to_go_where(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="4f2a", name="Ann Example")
        (question,) = prosody.backend.asked("validate-access", room)
        assert isinstance(question.body.pop("timestamp"), int)
        assert question.body == {
            "roomName": room,
            "roomJid": f"{room}@conference.localhost",
            "userJid": ann.jid.partition("/")[0],
            "userName": "Ann Example",
            "guest": True,
        }
        (wish,) = prosody.backend.asked("room-created", room)
        assert isinstance(wish.body.pop("timestamp"), int)
        assert wish.body == {
            "roomName": room,
            "roomJid": f"{room}@conference.localhost",
            "creator": ann.jid.partition("/")[0],
        }


async def test_without_a_display_name_the_nick_is_the_name(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        assert prosody.backend.asked("validate-access", room)[0].body["userName"] == "ann"


async def test_a_room_of_a_tenant_keeps_its_whole_name(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(f"[acme]{room}", nick="ann")
        assert prosody.backend.asked("validate-access")[0].body["roomName"] == f"[acme]{room}"


async def test_an_account_is_no_guest(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="ann") as ann:
        await ann.join(room, nick="ann")
        body = prosody.backend.asked("validate-access", room)[0].body
        assert body["guest"] is False
        assert body["userJid"] == "ann@auth.localhost"


async def test_a_token_tells_who_the_user_is(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, domain=prosody.token_domain) as ann:
        await ann.set_token("head.claims.sign", id=17, email="ann@example.com", name="Ann")
        await ann.join(room, nick="4f2a")
        body = prosody.backend.asked("validate-access", room)[0].body
        assert body["guest"] is False
        assert body["userId"] == "17"
        assert body["userEmail"] == "ann@example.com"
        assert body["bearerToken"] == "head.claims.sign"
        assert body["userName"] == "Ann"
    assert "head.claims.sign" not in "".join(
        line for line in prosody.log_of_test().splitlines() if "muc_webhook" in line or "http" in line.split("\t")[0]
    )


@pytest.mark.parametrize(
    ("number", "sent"),
    [
        (0, "0"),
        (-17, "-17"),
        (1234567890123401, "1234567890123401"),
        (2**53 - 1, "9007199254740991"),
        (2**53 + 1, None),
        (-(2**53) - 1, None),
        (2**64, None),
        (1.5, None),
        (-0.0, None),
        (1e300, None),
        (float(2**53), None),
        (True, None),
        ([17], None),
        ({"id": 17}, None),
        ("", None),
        ("x" * 1024, None),
    ],
)
async def test_an_id_is_exact_or_none(prosody: Server, room: str, number: object, sent: str | None) -> None:
    async with Client.connect(prosody, domain=prosody.token_domain) as ann:
        await ann.set_token("t", id=number)
        await ann.join(room)
        assert prosody.backend.asked("validate-access", room)[0].body.get("userId") == sent


async def test_a_token_that_nobody_has_verified_is_nothing(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as eve:
        await eve.set_token("junk", id="u17", email="ann@example.com", name="Ann")
        await eve.join(room, nick="4f2a")
        body = prosody.backend.asked("validate-access", room)[0].body
        assert body["guest"] is True
        assert body["userName"] == "4f2a"
        assert not {"userId", "userEmail", "bearerToken"} & body.keys()


async def test_an_accounts_unverified_token_is_nothing_but_the_account_is_known(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="eve") as eve:
        await eve.set_token("junk", id="u17", email="ann@example.com")
        await eve.join(room)
        body = prosody.backend.asked("validate-access", room)[0].body
        assert (body["guest"], body["userJid"]) == (False, "eve@auth.localhost")
        assert not {"userId", "userEmail", "bearerToken"} & body.keys()


async def test_without_a_token_a_user_is_a_guest_where_tokens_are_optional(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, domain=prosody.token_domain) as ann:
        await ann.join(room)
        assert prosody.backend.asked("validate-access", room)[0].body["guest"] is True


async def test_the_operator_can_name_another_authentication_that_verifies_tokens(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(options={"muc_webhook_token_authentications": ["rig"]})
    async with Client.connect(prosody, user="ann") as ann:
        await ann.set_token("t", id="u17")
        await ann.join(room)
        body = prosody.backend.asked("validate-access", room)[0].body
        assert (body["userId"], body["bearerToken"], body["guest"]) == ("u17", "t", False)


async def test_the_token_can_be_left_out(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_send_token": False})
    async with Client.connect(prosody, domain=prosody.token_domain) as ann:
        await ann.set_token("head.claims.sign", id="u17")
        await ann.join(room)
        body = prosody.backend.asked("validate-access", room)[0].body
        assert "bearerToken" not in body
        assert body["userId"] == "u17"


async def test_meeting_ids_are_sent_when_wanted(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_send_meeting_id": True})
    prosody.backend.on("room-created", reply({"meetingId": 42}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        first, second = prosody.backend.asked("validate-access", room)
        assert "meetingId" not in first.body
        assert second.body["meetingId"] == 42


async def test_meeting_ids_stay_at_home_otherwise(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"meetingId": 42}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert all("meetingId" not in q.body for q in prosody.backend.asked("validate-access", room))


async def test_the_secret_goes_along(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_secret": "s3cret"})
    async with Client.connect(prosody) as ann:
        await ann.join(room)
    for request in prosody.backend.requests:
        assert request.headers["X-Webhook-Secret"] == "s3cret"
        assert request.headers["Content-Type"] == "application/json"
    assert len(prosody.backend.requests) == 2
    assert "s3cret" not in prosody.log_of_test()


async def test_without_a_secret_there_is_no_such_header(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room)
    assert not any("X-Webhook-Secret" in r.headers for r in prosody.backend.requests)


# -- exemptions


@pytest.mark.parametrize(
    ("user", "domain"),
    [("focus", "auth.localhost"), ("recorder", "recorder.localhost"), ("transcriber", "recorder.localhost")],
)
async def test_the_servers_own_users_are_not_asked_for(prosody: Server, room: str, user: str, domain: str) -> None:
    prosody.backend.on("validate-access", NO)
    async with Client.connect(prosody, user=user, domain=domain) as own:
        assert (await own.join(room, nick="bot")).joined
        assert prosody.backend.asked("validate-access", room) == []


@pytest.mark.parametrize(
    "option",
    [
        "muc_webhook_exempt",
        "muc_access_whitelist",
        "muc_lobby_whitelist",
        "muc_password_whitelist",
        "token_verification_allowlist",
    ],
)
async def test_lists_of_the_operator_exempt_users_and_domains(
    start_prosody: StartProsody, room: str, option: str
) -> None:
    prosody = await start_prosody(options={option: ["Friend@auth.localhost", "recorder.localhost"]})
    prosody.backend.on("validate-access", NO)
    async with (
        Client.connect(prosody, user="friend") as friend,
        Client.connect(prosody, user="anybody", domain="recorder.localhost") as other,
        Client.connect(prosody, user="stranger") as stranger,
    ):
        assert (await friend.join(room, nick="friend")).joined
        assert (await other.join(room, nick="other")).joined
        assert (await stranger.join(room, nick="stranger")).denied


@pytest.mark.parametrize(
    ("user", "nick", "extra"),
    [
        ("eve", "focus", ""),
        ("eve", "eve", "<initiator xmlns='http://jitsi.org/protocol/jigasi'/>"),
        ("eve", "recorder@recorder.localhost", ""),
        ("recorder", "eve", ""),
        ("focus.auth.localhost", "eve", ""),
    ],
)
async def test_no_exemption_can_be_forged(prosody: Server, room: str, user: str, nick: str, extra: str) -> None:
    prosody.backend.on("validate-access", NO)
    async with Client.connect(prosody, user=user) as eve:
        assert (await eve.join(room, nick=nick, extra=extra)).denied


async def test_a_recorder_of_another_server_is_a_stranger(prosody: Server, room: str) -> None:
    """Anybody may run a server that is called recorder.something."""
    prosody.backend.on("validate-access", NO)
    answer = await prosody.module(f"""
        local async, st = require "util.async", require "util.stanza";
        local wait, done = async.waiter();
        local answer;
        local attr = {{ from = "recorder@recorder.evil.example/x"; to = "{room}@conference.localhost/r" }};
        local stanza = st.presence(attr)
            :tag("x", {{ xmlns = "http://jabber.org/protocol/muc" }}):up();
        prosody.core_post_stanza({{
            type = "s2sin"; from_host = "recorder.evil.example"; hosts = {{}};
            send = function (reply) answer = tostring(reply); done(); end;
        }}, stanza);
        wait();
        return answer""")
    assert "not-allowed" in answer


async def test_a_resource_is_no_exemption(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", NO)
    async with Client.connect(prosody, user="eve", resource="focus@auth.localhost") as eve:
        assert (await eve.join(room)).denied


async def test_a_domain_in_admins_exempts_none_of_its_users(start_prosody: StartProsody, room: str) -> None:
    """For Prosody, it is the domain itself that is an admin."""
    prosody = await start_prosody(options={"admins": ["auth.localhost"]})
    prosody.backend.on("validate-access", NO)
    async with Client.connect(prosody, user="eve") as eve:
        assert (await eve.join(room)).denied


async def test_a_health_check_room_of_anybody_else_has_a_config(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"password": "s3cret", "chatEnabled": False}))
    async with Client.connect(prosody) as ann:
        name = f"__jicofo-health-check-{room}"
        assert str((await ann.join(name)).error) == "auth/not-authorized"
        assert (await ann.join(name, password="s3cret")).config == {"chatEnabled": False}


async def test_a_health_check_room_is_asked_for_unless_jicofo_makes_it(prosody: Server, room: str) -> None:
    """Also when another module leads somebody past the gate."""
    name = f"__jicofo-health-check-{room}"
    async with Client.connect(prosody) as ann:
        await prosody.module(f"""
            local st = require "util.stanza";
            local attr = {{ from = "{ann.jid}"; to = "{name}@{prosody.muc}/ann" }};
            local stanza = st.presence(attr):tag("x", {{ xmlns = "http://jabber.org/protocol/muc" }}):up();
            webhook.module.save().grants[stanza] = true;
            prosody.core_post_stanza(prosody.full_sessions["{ann.jid}"], stanza)""")
        assert (await ann.await_join(name)).joined
        await prosody.backend.received("room-created", name)


async def test_the_name_of_a_health_check_room_is_no_exemption(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", NO)
    async with Client.connect(prosody) as eve:
        assert (await eve.join(f"__jicofo-health-check-{room}")).denied


async def test_jicofos_health_checks_ask_nobody(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="focus") as focus:
        assert (await focus.join(f"__jicofo-health-check-{room}", nick="focus")).joined
        await focus.leave(f"__jicofo-health-check-{room}", nick="focus")
    assert prosody.backend.requests == []


async def test_where_only_admins_make_rooms_the_others_are_not_asked_for(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(options={"restrict_room_creation": True})
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        restricted = StanzaError("cancel", "not-allowed", "Room creation is restricted")
        assert (await ann.join(room, nick="ann")).error == restricted
        assert prosody.backend.requests == []
        await focus.join(room, nick="focus")
        assert (await ann.join(room, nick="ann")).joined
        assert len(prosody.backend.asked("validate-access", room)) == 1
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_where_locals_make_rooms_strangers_are_not_asked_for(
    start_prosody: StartProsody, room: str, version: str
) -> None:
    prosody = await start_prosody(options={"restrict_room_creation": "local"})
    async with Client.component(prosody) as bot:
        assert str((await bot.join(room, nick="bot")).error) == "cancel/not-allowed"
        assert prosody.backend.requests == []


# -- two ways to the backend


async def test_while_the_sidecar_is_away_the_backend_is_asked_itself(start_prosody: StartProsody, room: str) -> None:
    async with Backend() as backend:
        backend.on("validate-access", deny("Backend says no"), room="no-" + room)
        backend.on("room-created", reply({"meetingTitle": "From the backend"}))
        prosody = await start_prosody(
            fresh=True,
            options={
                "muc_webhook_secret": "local",
                "muc_webhook_fallback_url": backend.url,
                "muc_webhook_fallback_secret": "real",
            },
        )
        async with Client.connect(prosody) as ann:
            assert (await ann.join("with-" + room)).joined
            assert backend.requests == []
            await prosody.backend.stop()
            result = await ann.join(room)
            assert result.joined
            assert result.config == {"meetingTitle": "From the backend"}
            assert result.took < 2.5, "long before the time-out"
            assert {r.headers["X-Webhook-Secret"] for r in backend.requests} == {"real"}
            assert str((await ann.join("no-" + room)).error) == "cancel/not-allowed"


async def test_a_sidecar_that_hangs_is_passed_by_after_one_time_out(start_prosody: StartProsody, room: str) -> None:
    async with Backend() as backend:
        options = {"muc_webhook_timeout": 2, "muc_webhook_fallback_url": backend.url}
        prosody = await start_prosody(fresh=True, options=options)
        prosody.backend.on("validate-access", hold(allow()))
        async with Client.connect(prosody) as ann:
            assert str((await ann.join(room)).error) == "wait/remote-server-timeout"
            result = await ann.join(room)
            assert result.joined
            assert result.took < 1.5, "no second time-out"


async def test_a_sidecar_that_answers_has_the_last_word(start_prosody: StartProsody, room: str) -> None:
    async with Backend() as backend:
        prosody = await start_prosody(fresh=True, options={"muc_webhook_fallback_url": backend.url})
        prosody.backend.on("validate-access", reply({"title": "no decision"}, status=503))
        async with Client.connect(prosody) as ann:
            assert str((await ann.join(room)).error) == "wait/remote-server-timeout"
            assert backend.requests == []
