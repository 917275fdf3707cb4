"""What `make demo-browser` shows: each change at the meeting service is seen in the meeting, with all parts real."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.browser import meeting
from tests.browser.chromium import Chromium, Tab
from tests.prosody.conftest import eventually
from tests.rig import jitsi

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(jitsi.INSTALLED is not None, reason="the demo has stand-ins for Jitsi's modules"),
]

MEETING = "document.querySelector('iframe').contentWindow"
STANDING = f"{MEETING}.document.querySelector('.standing').textContent"
CHAT = f"{MEETING}.APP.offers().toolbar.includes('chat')"
DIALOG = f"[...{MEETING}.document.body.children].map((e) => e.shadowRoot ? e.shadowRoot.textContent : '').join('')"


async def shows(tab: Tab, expression: str, value: object) -> None:
    """While the meeting's page loads, nothing is there to look at."""
    script = f"(() => {{ try {{ return {expression}; }} catch (error) {{ return null; }} }})()"
    try:
        await eventually(lambda: tab.run(script), value, within=15)
    except TimeoutError:
        raise AssertionError(f"{expression} is {await tab.run(script)!r}, not {value!r}") from None


async def change(tab: Tab, box: str) -> None:
    """Ticks a box or not, and waits until the meeting service has done it."""
    await tab.run(f"document.getElementById('{box}').click()")
    await shows(tab, "document.getElementById('outcome').textContent", "The meeting has the new settings.")


async def press(tab: Tab, button: str) -> None:
    await tab.run(f"{MEETING}.document.getElementById('{button}').click()")


async def test_a_button_goes_and_comes_back_and_a_refusal_is_explained(chromium: Chromium, tmp_path: Path) -> None:
    async with meeting(tmp_path) as address, chromium.open(address) as tab:
        await shows(tab, STANDING, "in the meeting")
        for has_chat in (False, True):
            await change(tab, "chatEnabled")
            await shows(tab, CHAT, has_chat)
        await change(tab, "cancelled")
        await press(tab, "leave")
        await shows(tab, STANDING, "not in the meeting yet")
        await press(tab, "join")
        await shows(tab, DIALOG, "Stand-upYou cannot join this meetingMeeting has been cancelledClose")


async def test_who_was_refused_once_can_come_and_go_as_before(chromium: Chromium, tmp_path: Path) -> None:
    async with meeting(tmp_path) as address, chromium.open(address) as tab:
        await shows(tab, STANDING, "in the meeting")
        await change(tab, "cancelled")
        await press(tab, "leave")
        await shows(tab, STANDING, "not in the meeting yet")
        await press(tab, "join")
        await shows(tab, f"{STANDING}.startsWith('not in the meeting: ')", True)
        await change(tab, "cancelled")
        for _ in range(2):
            await press(tab, "join")
            await shows(tab, STANDING, "in the meeting")
            await press(tab, "leave")
            await shows(tab, STANDING, "not in the meeting yet")
