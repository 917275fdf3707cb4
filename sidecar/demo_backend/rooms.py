"""What the demo service knows of a room: who may come in, and how it is set up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

Json = dict[str, Any]

DEFAULT_CONFIG: Final[Mapping[str, Any]] = {
    # Settings that Prosody applies to the room
    "moderators": [],
    "maxParticipants": 50,
    "membersOnly": False,
    "moderated": False,
    "persistent": False,
    "hidden": False,
    "publicRoom": True,
    "whois": "anyone",
    "allowInvites": True,
    "changeSubject": False,
    "historyLength": 20,
    "isPublic": True,
    "maxDurationMinutes": 60,
    # Settings that the browser gets
    "lobbyEnabled": False,
    "chatEnabled": True,
    "whiteboardEnabled": True,
    "screenShareEnabled": True,
    "recordingEnabled": True,
    "muteOnJoin": False,
    "videoOffOnJoin": False,
    "autoRecord": False,
    "reactionsEnabled": True,
    "raiseHandEnabled": True,
    "privateMessagesEnabled": True,
    "participantNameEditingEnabled": True,
    "followMeEnabled": True,
    "tileViewEnabled": True,
    "filmstripEnabled": True,
    "liveStreamingEnabled": False,
    "virtualBackgroundsEnabled": True,
    "noiseSuppressionEnabled": True,
    "e2eeEnabled": False,
    "hd1080pEnabled": False,
    "audioQuality": "standard",
    "pollsEnabled": True,
    "breakoutRoomsEnabled": True,
    "speakerStatsEnabled": True,
    "kickParticipantsEnabled": True,
    "muteAllEnabled": True,
    "avModerationEnabled": True,
    "securityEnabled": True,
    "closedCaptionsEnabled": False,
    "sharedDocumentEnabled": False,
    "calendarEnabled": False,
    "toolbarButtons": ["microphone", "camera", "chat", "desktop", "raisehand", "tileview", "hangup"],
}


@dataclass(frozen=True, slots=True)
class Room:
    """What the meeting service knows about one room. `invited` is None if everybody may join; `decision` is what an
    answer to `validate-access` says in addition, `people` the same for single users."""

    cancelled: bool = False
    reason: str = "Meeting has been cancelled"
    invited: frozenset[str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)
    people: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


MODERATOR: Final[Mapping[str, Any]] = {"isModerator": True, "requireLobby": False}

ROOMS_BY_NAME: Final[tuple[tuple[str, Room], ...]] = (
    ("cancelled-*", Room(cancelled=True)),
    ("lobby-*", Room(decision={"requireLobby": True}, people={"alice@example.com": MODERATOR})),
    ("private-*", Room(invited=frozenset({"alice@example.com"}))),
    ("no-chat", Room(config={"chatEnabled": False})),
    ("*", Room()),
)


def room_by_name(name: str) -> Room:
    return next(room for pattern, room in ROOMS_BY_NAME if fnmatchcase(name, pattern))


def title_of(name: str, room: Room) -> str:
    title = room.config.get("meetingTitle")
    return title if isinstance(title, str) else name.replace("-", " ").capitalize()


def config_of(name: str, room: Room) -> Json:
    """The answer to `room-created`: the default settings, overridden by those of the room."""
    about = {
        "meetingId": f"demo-{name}",
        "meetingTitle": title_of(name, room),
        "meetingDescription": "A meeting of the demo service",
    }
    return {**DEFAULT_CONFIG, **about, **room.config}


def decision_of(name: str, room: Room, body: Json) -> Json:
    """The answer to `validate-access`."""
    reason = None
    if room.cancelled:
        reason = room.reason
    elif room.invited is not None and not (names_of(body) & room.invited):
        reason = "This meeting is private and you are not invited"
    status = {"status": "CANCELLED"} if room.cancelled else {}
    decision = {"allowed": reason is None, "reason": reason, "meetingTitle": title_of(name, room), **status}
    for fields in (room.decision, *(room.people[person] for person in sorted(names_of(body) & room.people.keys()))):
        decision |= fields
    return decision


def names_of(body: Json) -> set[str]:
    """Every name with which a user may be invited."""
    jid = body.get("userJid")
    bare = jid.split("/", 1)[0] if isinstance(jid, str) else None
    return {name for name in (body.get("userId"), body.get("userEmail"), bare) if isinstance(name, str)}


def room_as_json(room: Room) -> Json:
    return {
        "cancelled": room.cancelled,
        "reason": room.reason,
        "invited": None if room.invited is None else sorted(room.invited),
        "config": dict(room.config),
        "decision": dict(room.decision),
        "people": {person: dict(fields) for person, fields in room.people.items()},
    }
