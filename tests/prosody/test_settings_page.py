"""docs/settings.md has each setting that the code reads, and a test proves each that is enforced or applied."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.prosody.conftest import Server

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(\w+)` \| (enforced|applied|shown) \|", re.M)

PROOFS = {
    "allowInvites": "test_config.py::test_each_setting_is_applied",
    "autoRecord": "test_auto_record.py::RECORD",
    "avModerationEnabled": "test_settings.py::test_av_moderation_is_refused_where_it_is_forbidden",
    "closedCaptionsEnabled": "test_settings.py::test_nobody_starts_a_transcription_where_captions_are_forbidden",
    "changeSubject": "test_config.py::test_each_setting_is_applied",
    "chatEnabled": "test_settings.py::test_without_chat_nobody_writes_and_moderators_neither",
    "hidden": "test_config.py::test_each_setting_is_applied",
    "historyLength": "test_config.py::test_each_setting_is_applied",
    "isPublic": "test_login_only.py::test_a_guest_who_waits_for_the_config_is_turned_away",
    "liveStreamingEnabled": "test_settings.py::test_nobody_streams_where_that_is_forbidden",
    "lobbyEnabled": "test_locks.py::test_the_configs_lobby_is_there_again_after_the_host_has_come",
    "maxDurationMinutes": "test_locks.py::test_the_time_limit_goes_on",
    "maxParticipants": "test_config.py::test_ten_at_once_into_three_places_are_exactly_three",
    "meetingId": "test_config.py::test_other_plugins_find_the_settings_under_their_names",
    "membersOnly": "test_config.py::test_allowed_users_get_into_a_members_only_room",
    "moderated": "test_config.py::test_each_setting_is_applied",
    "moderators": "test_moderators.py::test_an_account_is_named_by_jid_or_local_name",
    "muteOnJoin": "test_settings.py::test_jicofo_learns_from_a_config_that_comes_late",
    "password": "test_config.py::test_a_wrong_password_is_refused_by_those_inside_too",
    "persistent": "test_config.py::test_a_persistent_room_keeps_its_settings_over_a_restart",
    "pollsEnabled": "test_settings.py::test_nobody_makes_polls_where_they_are_forbidden",
    "privateMessagesEnabled": "test_settings.py::test_without_private_messages_the_chat_stays",
    "publicRoom": "test_config.py::test_public_is_the_opposite_of_hidden",
    "recordingEnabled": "test_settings.py::test_nobody_records_or_streams_where_it_is_forbidden",
    "videoOffOnJoin": "test_settings.py::MUTED",
    "whois": "test_config.py::test_each_setting_is_applied",
}
"""A test that uses the setting, or the config that the tests of a file use."""


def strengths() -> dict[str, str]:
    return dict(ROW.findall(PAGE.read_text(encoding="utf-8")))


def source_of(proof: str) -> str:
    """The text of a test or constant, or nothing if there is none of that name."""
    file, _, name = proof.partition("::")
    _, found, rest = (
        (FOLDER / file)
        .read_text(encoding="utf-8")
        .partition(f"async def {name}(" if name.startswith("test_") else f"\n{name} = ")
    )
    return found and rest.partition("\n\n")[0]


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_has_each_setting_that_the_code_reads_and_no_other(prosody: Server) -> None:
    read = await prosody.module("""
        local settings = module:shared("/*/muc_webhook/guards")["conference.localhost"].gate.parts.settings;
        local names = {};
        for _, list in ipairs { settings.for_room, settings.for_frontend } do
            for name in pairs(list) do table.insert(names, name); end
        end
        return table.concat(names, " ")""")
    assert strengths().keys() == set(read.split())


def test_the_rows_are_in_order_and_none_is_there_twice() -> None:
    names = [name for name, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert names == sorted(set(names))


def test_what_is_enforced_or_applied_is_proved_by_a_test_and_nothing_else_is() -> None:
    assert PROOFS.keys() == {name for name, strength in strengths().items() if strength != "shown"}


@pytest.mark.parametrize("setting", PROOFS)
def test_the_proof_uses_the_setting(setting: str) -> None:
    assert setting in source_of(PROOFS[setting]), PROOFS[setting]


def test_a_proof_that_is_gone_is_noticed() -> None:
    assert source_of("test_config.py::test_that_is_gone") == ""
