"""Patterns that fit no room of Jitsi, and what to write instead."""

from __future__ import annotations

import pytest

from sidecar.config.room_names import why_no_name_fits


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "lecture-*",
        "a?c_1.2~x",
        "[tenant]*",
        "[ten*",
        "[*]room",
        "*]room",
        "[tenant]lecture-?",
        "pr%c3%bcfung-*",
        "pr%c3*",
        "*%bcfung",
        "room%*",
        "room%c?",
        "two%20words",
        "a%40b",
        "wow!(1)",
        "%e2%9c%a8",
        "100%25",
    ],
)
def test_a_pattern_that_a_room_can_have_is_left_alone(pattern: str) -> None:
    assert why_no_name_fits(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("Board-*", 'names are in lower case; write "board-*"'),
        ("[Tenant]room", 'names are in lower case; write "[tenant]room"'),
        ("pr%C3%BCfung", 'names are in lower case; write "pr%c3%bcfung"'),
        ("prüfung-*", 'the character ü is percent-encoded there; write "pr%c3%bcfung-*"'),
        ("PRÜFUNG", 'the character Ü is percent-encoded there; write "pr%c3%bcfung"'),
        ("[prü]*", 'the character ü is percent-encoded there; write "[pr%c3%bc]*"'),
        ("two words", 'the character " " is percent-encoded there; write "two%20words"'),
        ("100%", 'only what needs it is percent-encoded there, and in one way; write "100%25"'),
        ("%61bc", 'only what needs it is percent-encoded there, and in one way; write "abc"'),
        ("board@conference.example.com", 'a pattern is compared with the name before the @; write "board"'),
        ("*@conference.example.com", 'a pattern is compared with the name before the @; write "*"'),
        ("tenant/room-*", 'a room of a tenant is named [tenant]room; write "[tenant]room-*"'),
        ("q&a", 'Jitsi removes the character &; write "qa"'),
        ("c#", 'Jitsi removes the character #; write "c"'),
        ("room]x", 'Jitsi removes the character ]; write "roomx"'),
        ("#", "Jitsi removes the character #"),
    ],
)
def test_a_pattern_that_no_room_can_have_is_said_with_what_to_write(pattern: str, says: str) -> None:
    assert why_no_name_fits(pattern) == says


def test_what_is_proposed_fits() -> None:
    for pattern in ("Board-*", "prüfung-*", "board@example.com", "tenant/room-*", "q&a", "two words", "%61bc", "Ⅷ ﬁ"):
        proposed = (why_no_name_fits(pattern) or "").partition('write "')[2].rstrip('"')
        assert why_no_name_fits(proposed) is None
