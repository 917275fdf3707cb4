"""Takes the pictures of the demo that are in docs/images, with Debian's Chromium: python -m demo.screenshots"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from pathlib import Path

from demo.browser import meeting
from tests.browser.chromium import Chromium, Tab
from tests.rig.prosody import ROOT

IMAGES = ROOT / "docs" / "images"
WIDE, NARROW = (960, 620), (390, 640)
MEETING = "document.querySelector('iframe').contentWindow"
IS_IN = f"{MEETING}.APP.store.getState()['features/base/conference'].conference ? 'in' : 'out'"
OUTCOME, DONE = "document.getElementById('outcome').textContent", "The meeting has the new settings."
DIALOG = f"[...{MEETING}.document.body.children].filter((e) => e.shadowRoot).length"


class Camera:
    """A tab of the demo, in one size and light or dark."""

    def __init__(self, chromium: Chromium, tab: Tab) -> None:
        self._chromium, self._tab = chromium, tab

    async def use(self, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._tab.command("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._tab.command("Emulation.setEmulatedMedia", features=features)

    async def click(self, name: str, *, inside: bool = False) -> None:
        await self._tab.run(f"{MEETING + '.' if inside else ''}document.getElementById('{name}').click()")

    async def until(self, expression: str, value: object) -> None:
        """Raises TimeoutError after 40 s. While the meeting's page loads, nothing is there to look at."""
        script = f"(() => {{ try {{ return {expression}; }} catch (error) {{ return null; }} }})()"
        for _ in range(800):
            if await self._tab.run(script) == value:
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{expression} is not {value!r}")

    async def take(self, name: str) -> None:
        picture = await self._tab.command("Page.captureScreenshot", format="png")
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))
        print(f"docs/images/{name}.png", flush=True)


async def shoot(camera: Camera) -> None:
    await camera.use(WIDE, "light")
    await camera.until(IS_IN, "in")
    await camera.until("document.getElementById('settings').children.length > 20", True)
    for setting in ("chatEnabled", "pollsEnabled", "raiseHandEnabled", "screenShareEnabled", "recordingEnabled"):
        await camera.click(setting)
        await camera.until(OUTCOME, DONE)
    await camera.take("meeting-without-chat")
    await camera.click("ending")
    await camera.until(DIALOG, 1)
    await camera.use(WIDE, "dark")
    await camera.take("meeting-ends-dark")
    await camera.click("ending")
    await camera.click("cancelled")
    await camera.until(OUTCOME, DONE)
    await camera.click("leave", inside=True)
    await camera.until(IS_IN, "out")
    await camera.click("join", inside=True)
    await camera.until(
        f"{MEETING}.APP.store.getState()['features/base/conference'].error || ''",
        "conference.connectionError.notAllowed",
    )
    for size, scheme, name in (
        (WIDE, "light", "refused"),
        (NARROW, "dark", "refused-narrow-dark"),
    ):
        await camera.use(size, scheme)
        await camera.take(name)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-demo-", ignore_cleanup_errors=True) as folder:
        async with meeting(Path(folder)) as address, Chromium.start() as chromium, chromium.open(address) as tab:
            await shoot(Camera(chromium, tab))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
