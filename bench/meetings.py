"""A meeting service with very little cost: it allows every join and sends a config for every room.

    python -m bench.meetings PORT

It implements only the HTTP that Prosody and the sidecar need, so that it does not limit the measurement: the
backend of the tests reads a whole request with aiohttp. Joins into rooms whose name begins with "closed" are denied.
Rooms whose name begins with "members" are not public, so the module makes each user a member there.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

SWITCHES = """
    allowInvites autoRecord avModerationEnabled breakoutRoomsEnabled calendarEnabled changeSubject chatEnabled
    closedCaptionsEnabled e2eeEnabled filmstripEnabled followMeEnabled hd1080pEnabled hidden isPublic
    kickParticipantsEnabled liveStreamingEnabled lobbyEnabled membersOnly moderated muteAllEnabled muteOnJoin
    noiseSuppressionEnabled participantNameEditingEnabled persistent pollsEnabled privateMessagesEnabled publicRoom
    raiseHandEnabled reactionsEnabled recordingEnabled screenShareEnabled securityEnabled sharedDocumentEnabled
    speakerStatsEnabled tileViewEnabled transcriptionEnabled videoOffOnJoin virtualBackgroundsEnabled
    waitingRoomEnabled whiteboardEnabled
"""
OFF = {"autoRecord", "hidden", "lobbyEnabled", "membersOnly", "moderated", "persistent", "e2eeEnabled"}

SETTINGS = {
    **{name: name not in OFF for name in SWITCHES.split()},
    "audioQuality": {"stereo": False, "opusMaxAverageBitrate": None, "enableOpusDtx": True},
    "branding": {"logoUrl": "https://meet.example.com/logo.png", "primaryColor": "#0a6ed1"},
    "createdAt": "2026-03-01T09:30:00Z",
    "historyLength": 20,
    "hostEmail": "ann@example.com",
    "language": "en",
    "maxDurationMinutes": 240,
    "maxParticipants": 100,
    "meetingDescription": "The weekly meeting of the team",
    "meetingId": 4711,
    "moderators": ["ann@example.com"],
    "region": "eu-central-1",
    "timeZone": "Europe/Berlin",
    "toolbarButtons": ["camera", "chat", "desktop", "filmstrip", "hangup", "microphone", "raisehand", "tileview"],
    "whois": "moderators",
}
ALLOWED, DENIED = b'{"allowed":true,"reason":null}', b'{"allowed":false,"reason":"The meeting is over"}'

HEAD = re.compile(rb"POST /\S*/([a-z-]+) .*?content-length: *(\d+)", re.IGNORECASE | re.DOTALL)
ROOM = re.compile(rb'"roomName": *"([^"]*)"')


def answer(endpoint: bytes, body: bytes) -> bytes:
    found = ROOM.search(body)
    room = found[1].decode() if found else ""
    if endpoint == b"validate-access":
        return DENIED if room.startswith("closed") else ALLOWED
    more = {"isPublic": not room.startswith("members"), "meetingTitle": f"The meeting in {room}"}
    return json.dumps({**SETTINGS, **more}, separators=(",", ":")).encode()


class Connection(asyncio.Protocol):
    """One request at a time, until the client closes the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while True:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            found = HEAD.match(head)
            if end and found is None:  # it has no link
                self.transport.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                self.transport.close()
                return
            if not end or found is None or len(rest) < int(found[2]):
                return
            length = int(found[2])
            content, self.received = answer(found[1], rest[:length]), rest[length:]
            closes = b"connection: close" in head.lower()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                + (b"Connection: close\r\n" if closes else b"")
                + b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
            )
            if closes:
                self.transport.close()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
