"""What those see who run the server."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import deny, hold, reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"muc_webhook_url": ""}, "muc_webhook_url has to be a URL like"),
        ({"muc_webhook_url": "ftp://example.com"}, "muc_webhook_url has to be a URL like"),
        ({"muc_webhook_url": 8788}, "muc_webhook_url has to be a URL like"),
        ({"muc_webhook_timeout": "soon"}, "muc_webhook_timeout has to be a number from 0.1 to 300, not soon"),
        ({"muc_webhook_timeout": 0}, "muc_webhook_timeout has to be a number from 0.1 to 300, not 0"),
        ({"muc_webhook_fail_open": "false"}, "muc_webhook_fail_open has to be true or false, not false"),
        (
            {"muc_webhook_events": ["user-joined", "user-jioned"]},
            "muc_webhook_events has to be a list of names",
        ),
        ({"muc_webhook_secret": "two\nlines"}, "muc_webhook_secret has to be a line of text"),
        ({"muc_webhook_queue_size": 0}, "muc_webhook_queue_size has to be a number"),
    ],
)
async def test_a_wrong_option_is_said_and_opens_nothing(
    start_prosody: StartProsody, room: str, options: dict[str, object], complaint: str
) -> None:
    prosody = await start_prosody(fresh=True, options=options)
    log = prosody.log()
    assert complaint in log
    assert "Every join is refused until this is fixed" in log
    assert "two" not in log
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        assert str((await ann.join(room)).error) == "wait/internal-server-error"
        assert (await focus.join(room, nick="focus")).joined
    assert prosody.backend.requests == []


async def test_a_slip_in_a_list_of_others_does_not_stop_the_module(start_prosody: StartProsody, room: str) -> None:
    lists = ("recorder_prefixes", "muc_access_whitelist", "token_verification_allowlist")
    prosody = await start_prosody(fresh=True, options={name: [1, True, "fine"] for name in lists})
    prosody.backend.on("validate-access", deny())
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).denied


async def test_without_a_url_nobody_gets_in(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, webhook_url=None)
    assert "muc_webhook_url is not set" in prosody.log()
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == "wait/internal-server-error"


async def test_a_misspelt_option_is_pointed_out(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timout": 3})
    assert "There is no option muc_webhook_timout" in prosody.log()


async def test_options_that_are_probably_not_meant_are_pointed_out(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(
        fresh=True,
        webhook_url="http://backend.example/webhooks",
        options={"muc_webhook_secret": "s3cret", "muc_webhook_fail_open": True},
    )
    log = prosody.log()
    assert "muc_webhook_url is not https: the secret can be read on the way to backend.example" in log
    assert "muc_webhook_fail_open lets everybody in" in log
    assert "s3cret" not in log


async def test_a_loopback_url_needs_no_https(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_secret": "s3cret"})
    assert "not https" not in prosody.log()


@pytest.mark.parametrize("everywhere", [True, False])
async def test_members_only_for_all_components_is_warned_about(start_prosody: StartProsody, everywhere: bool) -> None:
    """It would close Jitsi's lobbies and breakout rooms, which are components of their own."""
    option = "muc_room_default_members_only = true"
    prosody = await start_prosody(fresh=True, **{"extra_global" if everywhere else "extra": option})
    assert ("set it in the section of conference.localhost only" in prosody.log()) == everywhere


async def test_the_module_does_not_belong_on_a_virtual_host(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(
        fresh=True, extra='VirtualHost "wrong.localhost"\n\tmodules_enabled = { "muc_webhook" }\n'
    )
    assert "mod_muc_webhook belongs on the MUC component, not on a local host" in prosody.log()


async def test_the_shell_shows_what_was_asked_and_answered(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_secret": "s3cret"})
    prosody.backend.on("room-created", reply({"password": "open sesame", "chatEnabled": False, "maxParticipants": 9}))
    prosody.backend.on("validate-access", deny(), room="no")
    prosody.backend.on("validate-access", hold(deny()), room="later")
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann", password="open sesame")
        await ann.join("no")
        await bob.begin_join("later")
        await prosody.backend.received("validate-access", "later")
        status = await prosody.shell("muc_webhook:status()")
        assert f"conference.localhost asks {prosody.backend.url}" in status
        assert "1 pending, 1 allowed, 1 denied, 0 into refused rooms, 0 without a decision" in status
        shown = await prosody.shell(f'muc_webhook:room("{room}")')
        assert f"{room}@conference.localhost is there, with 1 participants" in shown
        assert "config: ready" in shown
        assert "chatEnabled = false" in shown
        assert "maxParticipants = 9" in shown
        assert "open sesame" not in status + shown
        assert "s3cret" not in status + shown
        assert "Nothing is known of nowhere" in await prosody.shell('muc_webhook:room("nowhere")')
        assert "Which room?" in await prosody.shell("muc_webhook:room()")


async def test_the_shell_says_that_a_module_is_unloaded(start_prosody: StartProsody) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.unload()
    status = await prosody.shell("muc_webhook:status()")
    assert "conference.localhost: the gate is DOWN, every join is refused: mod_muc_webhook is not loaded" in status


async def test_the_shell_names_the_options_that_refuse_where_nothing_of_ours_runs(
    start_prosody: StartProsody,
) -> None:
    prosody = await start_prosody(fresh=True, options={"restrict_room_creation": True})
    status = await prosody.shell("muc_webhook:status()")
    assert "Set muc_room_default_members_only = true on conference.localhost to refuse then" in status
    prosody = await start_prosody(
        fresh=True, options={"restrict_room_creation": True, "muc_room_default_members_only": True}
    )
    assert "is damaged or missing at a restart" not in await prosody.shell("muc_webhook:status()")


async def test_metrics_count_joins(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    prosody.backend.on("validate-access", deny(), room="no")
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        await ann.join("no")
    names = await prosody.lua("""
        local registry, names = require "core.statsmanager".get_metric_registry(), {};
        for name in pairs(registry:get_metric_families()) do
            if name:find("muc_webhook", 1, true) then names[#names + 1] = name; end
        end
        table.sort(names);
        return table.concat(names, " ")""")
    for metric in (
        "joins_allowed",
        "joins_denied",
        "joins_refused_by_config",
        "joins_without_decision",
        "joins_exempt",
        "joins_pending",
        "events_queued",
        "events_dropped",
        "request",
    ):
        assert metric in names


async def test_the_log_names_room_and_reason(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny("Meeting has been cancelled"))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
    assert f"A join into {room}@conference.localhost was denied: Meeting has been cancelled" in prosody.log_of_test()
