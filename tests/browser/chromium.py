"""Debian's Chromium without a window, spoken to in the DevTools protocol.

    async with Chromium.start() as chromium, chromium.open(url) as tab:
        assert await tab.run("1 + 1") == 2

Each tab has cookies and a storage of its own. The protocol is JSON over one WebSocket, which aiohttp speaks; a driver
such as Playwright would be 165 MB more to install.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

EXECUTABLE = shutil.which("chromium")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing outside of this machine
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--remote-debugging-port=0",
)


def why_missing() -> str | None:
    return None if EXECUTABLE else "the Debian package chromium is not installed"


class ScriptError(Exception):
    """A script in a page has thrown."""


class Chromium:
    """Make one with `Chromium.start`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded: dict[str, asyncio.Event] = {}

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Raises RuntimeError if it does not start."""
        assert EXECUTABLE is not None, why_missing()
        profile = Path(tempfile.mkdtemp(prefix="chromium-"))
        with (profile / "stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                EXECUTABLE,
                *OPTIONS,
                f"--user-data-dir={profile}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            address = await _address_in(profile, process)
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(address, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=0.1)) as socket,
            ):
                chromium = cls(socket)
                reader = asyncio.create_task(chromium._read())
                try:
                    yield chromium
                finally:
                    reader.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            shutil.rmtree(profile, ignore_errors=True)

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command of the protocol. Raises ScriptError with what it complains of."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._socket.send_str(json.dumps(command))
        try:
            async with asyncio.timeout(30):
                message = await answer
        finally:
            del self._answers[number]
        if "error" in message:
            raise ScriptError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Tab]:
        """A tab with this page, loaded."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        try:
            await self._load(session, url)
            yield Tab(self, session)
        finally:
            await self.call("Target.disposeBrowserContext", browserContextId=context)

    async def _load(self, session: str, url: str) -> None:
        await self.call("Page.enable", session)
        loaded = self._loaded[session] = asyncio.Event()
        await self.call("Page.navigate", session, url=url)
        async with asyncio.timeout(30):
            await loaded.wait()
        del self._loaded[session]

    async def _read(self) -> None:
        async for message in self._socket:
            content = json.loads(message.data)
            if content.get("method") == "Page.loadEventFired" and content["sessionId"] in self._loaded:
                self._loaded[content["sessionId"]].set()
            waiting = self._answers.get(content.get("id", 0))
            if waiting and not waiting.done():
                waiting.set_result(content)


class Tab:
    """One page."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        self._chromium = chromium
        self._session = session

    async def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is, as JSON has it."""
        answer = await self._chromium.call(
            "Runtime.evaluate", self._session, expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise ScriptError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol for this page."""
        return await self._chromium.call(method, self._session, **params)

    async def call(self, function: str, *args: Any) -> Any:
        """Calls a function of the page with these arguments."""
        return await self.run(f"{function}({', '.join(json.dumps(arg) for arg in args)})")


async def _address_in(profile: Path, process: asyncio.subprocess.Process) -> str:
    said = profile / "DevToolsActivePort"
    for _ in range(600):
        if process.returncode is not None:
            break
        lines = said.read_text().splitlines() if said.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.05)
    raise RuntimeError(f"Chromium did not start:\n{(profile / 'stderr').read_text(errors='replace')[-2000:]}")
