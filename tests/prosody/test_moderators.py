"""Whom the meeting service names as a moderator is one, and nobody else."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODERATOR, PARTICIPANT = ("moderator", "owner"), ("participant", "none")


@pytest.mark.parametrize("name", ["ann@auth.localhost", "Ann@auth.localhost", "ann", "Ann"])
async def test_an_account_is_named_by_jid_or_local_name(prosody: Server, room: str, name: str) -> None:
    prosody.backend.on("room-created", reply({"moderators": [name]}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        result = await ann.join(room, nick="4f2a")
        assert (result.role, result.affiliation) == MODERATOR
        result = await bob.join(room, nick="ann", name="ann")
        assert (result.role, result.affiliation) == PARTICIPANT


@pytest.mark.parametrize("name", ["u-17", "Ann@Example.com"])
async def test_a_user_with_a_token_is_named_by_id_or_email(prosody: Server, room: str, name: str) -> None:
    prosody.backend.on("room-created", reply({"moderators": [name]}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, domain=prosody.token_domain) as ann,
    ):
        await first.join(room, nick="first")
        await ann.set_token("t", id="u-17", email="ann@example.com")
        result = await ann.join(room, nick="4f2a")
        assert (result.role, result.affiliation) == MODERATOR


@pytest.mark.parametrize("domain", ["localhost", "auth.localhost"])
async def test_a_token_that_nobody_has_verified_makes_no_moderator(prosody: Server, room: str, domain: str) -> None:
    prosody.backend.on("room-created", reply({"moderators": ["u-17", "ann@example.com"]}))
    user = "eve" if domain == prosody.auth_domain else None
    async with Client.connect(prosody) as first, Client.connect(prosody, user=user) as eve:
        await first.join(room, nick="first")
        await eve.set_token("junk", id="u-17", email="ann@example.com")
        assert (await eve.join(room, nick="eve")).role == "participant"


async def test_a_guests_random_name_and_a_tokens_id_are_no_accounts(prosody: Server, room: str) -> None:
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody) as guest,
        Client.connect(prosody, domain=prosody.token_domain) as ann,
    ):
        names = [client.jid.partition("@")[0] for client in (guest, ann)]
        prosody.backend.on("room-created", reply({"moderators": names}))
        await first.join(room, nick="first")
        assert (await guest.join(room, nick="guest")).role == "participant"
        assert (await ann.join(room, nick="ann")).role == "participant"


@pytest.mark.parametrize("members_only", [False, True])
async def test_a_moderator_stays_one_beside_token_affiliation(
    start_prosody: StartProsody, room: str, members_only: bool
) -> None:
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_token_affiliation"))
    prosody.backend.on(
        "room-created", reply({"moderators": ["u-17", "bob@auth.localhost"], "membersOnly": members_only})
    )
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, domain=prosody.token_domain) as ann,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody, domain=prosody.token_domain) as cat,
        Client.connect(prosody, domain=prosody.token_domain) as dan,
    ):
        await first.join(room, nick="first")
        await ann.set_token("t1", id="u-17")
        await bob.set_token("junk")
        await cat.set_token("t2", id="u-18", moderator=True)
        await dan.set_token("t3", id="u-19")
        roles = {}
        for nick, client in {"ann": ann, "bob": bob, "cat": cat, "dan": dan}.items():
            result = await client.join(room, nick=nick)
            roles[nick] = (result.role, result.affiliation)
        assert roles == {"ann": MODERATOR, "bob": MODERATOR, "cat": MODERATOR, "dan": ("participant", "member")}


async def test_a_banned_moderator_stays_banned(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"moderators": ["u-17", "bob"]}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="bob") as bob:
        await first.join(room, nick="first")
        await prosody.module(
            f'local room = muc.get_room_from_jid("{room}@conference.localhost"); '
            'assert(room:set_affiliation(true, "bob@auth.localhost", "outcast"))'
        )
        assert (await bob.join(room, nick="bob")).denied
