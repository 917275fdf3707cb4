"""What those see who run the server."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Stage, Stages
from tests.rig.webhook import deny, hold, reply
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
    stages: Stages, room: str, options: dict[str, object], complaint: str
) -> None:
    stage = await stages(fresh=True, options=options)
    log = stage.server.log()
    assert complaint in log
    assert "Every join is refused until this is fixed" in log
    assert "two" not in log
    async with Client.connect(stage.server) as ann, Client.connect(stage.server, user="focus") as focus:
        assert str((await ann.join(room)).error) == "wait/internal-server-error"
        assert (await focus.join(room, nick="focus")).joined
    assert stage.hook.requests == []


async def test_a_slip_in_a_list_of_others_does_not_stop_the_module(stages: Stages, room: str) -> None:
    lists = ("recorder_prefixes", "muc_access_whitelist", "token_verification_allowlist")
    stage = await stages(fresh=True, options={name: [1, True, "fine"] for name in lists})
    stage.hook.on("validate-access", deny())
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room)).denied


async def test_without_a_url_nobody_gets_in(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True, webhook_url=None)
    assert "muc_webhook_url is not set" in stage.server.log()
    async with Client.connect(stage.server) as ann:
        assert str((await ann.join(room)).error) == "wait/internal-server-error"


async def test_a_misspelt_option_is_pointed_out(stages: Stages) -> None:
    stage = await stages(fresh=True, options={"muc_webhook_timout": 3})
    assert "There is no option muc_webhook_timout" in stage.server.log()


async def test_options_that_are_probably_not_meant_are_pointed_out(stages: Stages) -> None:
    stage = await stages(
        fresh=True,
        webhook_url="http://backend.example/webhooks",
        options={"muc_webhook_secret": "s3cret", "muc_webhook_fail_open": True},
    )
    log = stage.server.log()
    assert "muc_webhook_url is not https: the secret can be read on the way to backend.example" in log
    assert "muc_webhook_fail_open lets everybody in" in log
    assert "s3cret" not in log


async def test_a_loopback_url_needs_no_https(stages: Stages) -> None:
    stage = await stages(fresh=True, options={"muc_webhook_secret": "s3cret"})
    assert "not https" not in stage.server.log()


async def test_the_module_does_not_belong_on_a_virtual_host(stages: Stages) -> None:
    stage = await stages(fresh=True, extra='VirtualHost "wrong.localhost"\n\tmodules_enabled = { "muc_webhook" }\n')
    assert "mod_muc_webhook belongs on the MUC component, not on a local host" in stage.server.log()


async def test_the_shell_shows_what_was_asked_and_answered(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True, options={"muc_webhook_secret": "s3cret"})
    stage.hook.on("room-created", reply({"password": "open sesame", "chatEnabled": False, "maxParticipants": 9}))
    stage.hook.on("validate-access", deny(), room="no")
    stage.hook.on("validate-access", hold(deny()), room="later")
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann", password="open sesame")
        await ann.join("no")
        await bob.begin_join("later")
        await stage.hook.received("validate-access", "later")
        status = await stage.server.shell("muc_webhook:status()")
        assert f"conference.localhost asks {stage.hook.url}" in status
        assert "1 pending, 1 allowed, 1 denied, 0 into refused rooms, 0 without a decision" in status
        shown = await stage.server.shell(f'muc_webhook:room("{room}")')
        assert f"{room}@conference.localhost is there, with 1 participants" in shown
        assert "config: ready" in shown
        assert "chatEnabled = false" in shown
        assert "maxParticipants = 9" in shown
        assert "open sesame" not in status + shown
        assert "s3cret" not in status + shown
        assert "Nothing is known of nowhere" in await stage.server.shell('muc_webhook:room("nowhere")')
        assert "Which room?" in await stage.server.shell("muc_webhook:room()")


async def test_the_shell_says_that_a_module_is_unloaded(stages: Stages) -> None:
    stage = await stages(fresh=True)
    await stage.server.unload()
    status = await stage.server.shell("muc_webhook:status()")
    assert "conference.localhost: the gate is DOWN, every join is refused: mod_muc_webhook is not loaded" in status


async def test_metrics_count_joins(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True)
    stage.hook.on("validate-access", deny(), room="no")
    async with Client.connect(stage.server) as ann:
        await ann.join(room)
        await ann.join("no")
    names = await stage.server.lua("""
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


async def test_the_log_names_room_and_reason(stage: Stage, room: str) -> None:
    stage.hook.on("validate-access", deny("Meeting has been cancelled"))
    async with Client.connect(stage.server) as ann:
        await ann.join(room)
    assert f"A join into {room}@conference.localhost was denied: Meeting has been cancelled" in stage.log()
