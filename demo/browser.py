"""`make demo-browser`: a meeting in your own browser, and the meeting service beside it.

    browser with lib-jitsi-meet -> Prosody with mod_muc_webhook -> the sidecar -> the demo backend

A change on the right goes to the demo backend, and as the order `refresh` into the meeting on the left, where
frontend/room-config.js applies it. The page stands in for jitsi-meet's; all else is real. Ctrl-C stops everything.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from demo.harness import FRESH, Harness, set_up
from demo.parts import WentOtherwise
from sidecar.demo_backend.rooms import DEFAULT_CONFIG
from tests.browser.jicofo import ADDRESS, Jicofo
from tests.browser.meeting import DESIGNS, JQUERY, LIBRARY, POLICY, way_to, why_missing
from tests.rig.prosody import ROOT, Prosody

ROOM = "standup"
PAGE = Path(__file__).parent / "page"
FILES = {
    "": PAGE / "desk.html",
    "jquery.js": JQUERY,
    "lib-jitsi-meet.js": LIBRARY,
    "room-config.js": ROOT / "frontend" / "room-config.js",
    **{name: PAGE / name for name in ("desk.js", "jitsi.js", "meeting.html", "meeting.js", "page.css")},
}
HEADERS = {"Content-Security-Policy": f"{POLICY}; frame-src 'self'", "Cache-Control": "no-store"}
METADATA = 'Component "metadata.localhost" "room_metadata_component"\n\tmuc_component = "conference.localhost"\n'
WITHOUT_EFFECT = {"avModeration", "calendar", "followMe", "hd1080p", "lobby"}
"""Settings that the page cannot apply, without their `Enabled`."""
CONFIG: dict[str, Any] = {
    **{name: True for name in DEFAULT_CONFIG if name.endswith("Enabled") and name[:-7] not in WITHOUT_EFFECT},
    "muteOnJoin": False,
    "videoOffOnJoin": False,
    "toolbarButtons": None,
    "meetingTitle": "Stand-up",
    "meetingDescription": "Please bring your figures.",
}


class Desk:
    """The web server of the demo: its pages, and the changes that a person makes there."""

    def __init__(self, harness: Harness, prosody: Prosody) -> None:
        self._harness, self._prosody = harness, prosody
        self._config = dict(CONFIG)

    async def file(self, request: web.Request) -> web.StreamResponse:
        path = FILES.get(request.match_info["file"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers=HEADERS)

    async def where(self, _request: web.Request) -> web.Response:
        """How the page reaches Prosody."""
        hosts = {"muc": self._prosody.muc, "focus": ADDRESS, **DESIGNS["domain"]}
        return web.json_response({"hosts": hosts, "serviceUrl": way_to(self._prosody, "websocket"), "room": ROOM})

    async def room(self, _request: web.Request) -> web.Response:
        return web.json_response(self._config)

    async def change_room(self, request: web.Request) -> web.Response:
        change = await request.json()
        self._config |= change.get("config", {})
        await self._harness.set_up_room(ROOM, **change)
        await asyncio.sleep(FRESH)  # what the sidecar remembers is older then
        status = await self._harness.order("refresh", room=ROOM)
        done = {200: "The meeting has the new settings.", 404: "The next meeting will have it: nobody is in."}
        return web.Response(text=done.get(status, f"The order was answered with status {status}."))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The address to open."""
        app = web.Application()
        app.router.add_get("/where.json", self.where)
        app.router.add_get("/room", self.room)
        app.router.add_post("/room", self.change_room)
        app.router.add_get("/{file:.*}", self.file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def meeting(folder: Path) -> AsyncIterator[str]:
    """Everything that the demo needs; the address to open."""

    def say(name: str, port: int, seconds: float) -> None:
        print(f"  {name:<16} 127.0.0.1:{port}   {seconds:.1f} s", flush=True)

    options: dict[str, Any] = {"extra": METADATA, "options": {"muc_webhook_duration_warning": 1}}
    async with set_up(folder, say, **options) as (harness, prosody), Jicofo.start(prosody):
        await harness.set_up_room(ROOM, config=CONFIG)
        async with Desk(harness, prosody).serve() as address:
            yield address


async def run(folder: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with meeting(folder) as address:
        print(f"\nOpen {address} in a browser on this machine. Ctrl-C stops everything.", flush=True)
        await asyncio.Event().wait()


def main() -> int:
    if missing := why_missing():
        print(missing)
        return 1
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-demo-", ignore_cleanup_errors=True) as name:
        try:
            asyncio.run(run(Path(name)))
        except WentOtherwise as otherwise:
            print(f"{otherwise}\n{otherwise.detail}")
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("\nAll parts are stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
