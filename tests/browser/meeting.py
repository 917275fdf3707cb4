"""A meeting as browsers see it: pages with lib-jitsi-meet, and the users in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.browser.chromium import Chromium, Tab
from tests.browser.jicofo import ADDRESS as FOCUS
from tests.rig import jitsi
from tests.rig.prosody import ROOT, Prosody

HERE = Path(__file__).parent
LIBRARY = jitsi.library() if jitsi.INSTALLED else ROOT / ".cache" / "lib-jitsi-meet-2.1.5.js"
JQUERY = Path("/usr/share/javascript/jquery/jquery.min.js")
"""This library needs it in the page; newer ones do not."""

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src ws: http: data: blob:"

DESIGNS: Mapping[str, dict[str, str]] = {
    "domain": {"domain": "localhost"},
    "anonymousdomain": {"domain": "auth.localhost", "anonymousdomain": "localhost"},
}
"""The `hosts` of a page: where everybody is anonymous, and where guests have a domain of their own."""

Event = list[Any]
"""Name and arguments of what lib-jitsi-meet said: `["CONFERENCE_FAILED", "conference.max_users"]`."""

JOINED: Event = ["CONFERENCE_JOINED"]


def why_missing() -> str | None:
    """Why there are no pages here, or None if there can be."""
    missing = [str(path) for path in (LIBRARY, JQUERY) if not path.exists()]
    cure = "is jitsi-meet-web installed?" if jitsi.INSTALLED else "tools/setup.sh test gets it"
    return f"there is no {', no '.join(missing)} ({cure})" if missing else None


@asynccontextmanager
async def serving_pages() -> AsyncIterator[str]:
    """The address of the page; with `jitsi` behind it, that of one that stands in for jitsi-meet's."""
    files = {
        "": HERE / "page.html",
        "jitsi": HERE / "jitsi.html",
        "jitsi.js": ROOT / "demo" / "page" / "jitsi.js",
        "page.css": ROOT / "demo" / "page" / "page.css",
        "room-config.js": ROOT / "frontend" / "room-config.js",
        "page.js": HERE / "page.js",
        "jquery.js": JQUERY,
        "lib-jitsi-meet.js": LIBRARY,
    }

    async def serve(request: web.Request) -> web.FileResponse:
        return web.FileResponse(files[request.match_info["file"]], headers={"Content-Security-Policy": POLICY})

    app = web.Application()
    app.router.add_get("/{file:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def way_to(server: Prosody, transport: str) -> str:
    """The `serviceUrl` of a page."""
    if transport == "bosh":
        return f"http://127.0.0.1:{server.http_port}/http-bind"
    return f"ws://127.0.0.1:{server.http_port}/xmpp-websocket"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whose page is connected."""

    tab: Tab
    jid: str

    async def join(self, room: str, **options: str) -> Event:
        """How the join ends: `JOINED`, or `["CONFERENCE_FAILED", …]`. Options: `name`, `password`."""
        return _event(await self.tab.call("join", room, options))

    async def join_again(self, password: str | None = None) -> Event:
        """Tries the same conference once more, as the page does after a prompt."""
        return _event(await self.tab.call("joinAgain", password))

    async def expect(self, *names: str, within: float = 10.0) -> Event:
        """The first event of one of these names, also one that has been."""
        found = await self.tab.call("waitForOneOf", names, 0, within * 1000)
        assert found is not None, f"{names} did not come: {await self.events()}"
        return _event(found)

    async def expect_message(self, kind: str) -> Any:
        """The first JSON message of this type that the room itself has sent, also one that has been."""
        found = await self.tab.call("waitForMessage", kind, 10_000)
        assert found is not None, f"{kind} did not come: {await self.events()}"
        return found["args"][1]

    async def events(self, *names: str) -> list[Event]:
        """What lib-jitsi-meet has said so far, or only the events of these names."""
        return [_event(each) for each in await self.tab.run("events") if not names or each["name"] in names]

    async def messages(self) -> list[Any]:
        """The JSON messages of the room itself."""
        return [event[2] for event in await self.events("NON_PARTICIPANT_MESSAGE_RECEIVED")]


def _event(found: Any) -> Event:
    assert found is not None, "the join did not end"
    return [found["name"], *found["args"]]


@asynccontextmanager
async def user_in_a_page(
    chromium: Chromium, page: str, server: Prosody, *, transport: str = "websocket", design: str = "domain"
) -> AsyncIterator[User]:
    """Opens the page and connects it."""
    async with chromium.open(page) as tab:
        hosts = {"muc": server.muc, "focus": FOCUS, **DESIGNS[design]}
        yield User(tab, await tab.call("connect", hosts, way_to(server, transport)))
