"""`make demo`: a short demonstration of the main job, with real parts and real figures.

    XMPP clients -> Prosody with mod_muc_webhook -> the sidecar -> the demo backend

Every line with a tick has been checked. Exit code 0: everything was as promised, and no process is left. 1: something
was different; it is printed, with the last lines of every log.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from rich.console import Console

from demo import figures
from demo.harness import DEADLINE, FRESH, Harness, Person, set_up_with_people
from demo.parts import WentOtherwise
from tests.rig.prosody import Prosody
from tests.rig.xmpp import MUC_USER, JoinResult

LOG_LINES = 15
NO_CHAT = {"chatEnabled": False, "meetingTitle": "Stand-up"}
REASON = "Meeting has been cancelled"
OVER = "The meeting is over"
DESTROYED = f"{MUC_USER}x/{MUC_USER}destroy"


class Printer:
    """Prints the demonstration."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def chapter(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]", highlight=False)

    def tick(self, what: str, seconds: float, source: str = "") -> None:
        said = f"source: {source}" if source else ""
        text = f"  [green]✓[/green] {what:<42} {seconds * 1000:6.0f} ms   {said}"
        self._console.print(text.rstrip(), highlight=False)

    def remark(self, text: str) -> None:
        self._console.print(f"    {text}", highlight=False, style="dim")

    def part_is_up(self, name: str, port: int, seconds: float) -> None:
        self.tick(f"{name:<16} 127.0.0.1:{port}", seconds)


class Joins:
    """Users who join rooms, and what the metrics of the sidecar say about it."""

    def __init__(self, harness: Harness, prosody: Prosody, printer: Printer) -> None:
        self._harness = harness
        self._prosody = prosody
        self._printer = printer

    async def _join(self, person: Person, room: str, source: str) -> JoinResult:
        before = await figures.read(self._harness.session, self._harness.metrics)
        result = await person.client.join(room, nick=person.name)
        after = await figures.read(self._harness.session, self._harness.metrics)
        seen = figures.in_words(before, after, "validate-access")
        check(seen == source, f"the sidecar should decide about {person.name} with source {source!r}", seen)
        return result

    async def joins(self, person: Person, room: str, words: str, *, source: str, chat: bool) -> None:
        """The user joins, gets status 110, and gets the room config from the backend."""
        result = await self._join(person, room, source)
        check(result.joined, f"{person.name} should join {room}", result.error)
        check("110" in result.statuses, f"{person.name} should get status 110", result.statuses)
        occupants = await self._prosody.occupants(room)
        check(person.name in occupants, f"{person.name} should be an occupant of {room}", occupants)
        check(result.config is not None, f"{person.name} should get ROOM_CONFIG", result.messages)
        has_chat = (result.config or {}).get("chatEnabled")
        check(has_chat is chat, f"ROOM_CONFIG of {room} should have chatEnabled {chat}", has_chat)
        self._printer.tick(words, result.took, source)

    async def is_refused(
        self, person: Person, room: str, words: str, *, source: str, reason: str | None = None
    ) -> None:
        """The user gets the reason, is never an occupant, and no room is created."""
        result = await self._join(person, room, source)
        check(result.denied, f"{person.name} should be refused in {room}", result)
        text = result.error.text if result.error else None
        check(bool(text), f"{person.name} should get a reason", result.error)
        if reason is not None:
            check(text == reason, f"{person.name} should get the reason {reason!r}", text)
        check(result.took < DEADLINE + 0.5, f"the answer should come within {DEADLINE:g} s", result.took)
        reasons = [message.get("reason") for message in person.client.json_messages(room)]
        check(reasons == [text], f"the page of {person.name} should get the reason", reasons)
        await person.client.ping()
        room_jid = person.client.room_jid(room)
        others = [ET.tostring(s, "unicode") for s in person.client.inbox if s.get("from", "").startswith(room_jid)]
        check(not others, f"{person.name} should get nothing else from {room}", others)
        rooms = await self._prosody.rooms()
        check(room not in rooms, f"the room {room} should not exist", rooms)
        self._printer.tick(words, result.took, source)
        self._printer.remark(f"“{text}”")

    async def sees_the_end(self, person: Person, room: str, words: str, *, reason: str) -> None:
        """The backend ends the meeting; the user gets the reason, and the room is gone."""
        begun = time.monotonic()
        status = await self._harness.order("end", room=room, reason=reason)
        check(status == 200, f"the sidecar should say that {room} has ended", status)
        end = await person.client.expect(lambda stanza: stanza.find(DESTROYED) is not None)
        seconds = time.monotonic() - begun
        text = end.findtext(f"{DESTROYED}/{MUC_USER}reason")
        check(text == reason, f"{person.name} should get the reason {reason!r}", ET.tostring(end, "unicode"))
        rooms = await self._prosody.rooms()
        check(room not in rooms, f"the room {room} should not exist any more", rooms)
        self._printer.tick(words, seconds)
        self._printer.remark(f"“{text}”")


def check(held: bool, promise: str, saw: object) -> None:
    if not held:
        raise WentOtherwise(f"{promise}, but: {saw}")


async def demonstrate(console: Console, folder: Path) -> None:
    """The demonstration. Raises WentOtherwise at the first difference, CancelledError on SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    printer = Printer(console)
    console.print("[bold]The parts[/bold]")
    async with set_up_with_people(folder, printer.part_is_up) as (harness, prosody, (alice, bob, carol)):
        joins = Joins(harness, prosody, printer)

        printer.chapter("The backend works")
        await harness.set_up_room("standup", config=NO_CHAT)
        await harness.set_up_room("review", cancelled=True, reason=REASON)
        await joins.joins(alice, "standup", "alice joins standup", source="backend", chat=False)
        printer.remark("the backend switches chat off: her ROOM_CONFIG has chatEnabled false")
        await joins.is_refused(bob, "review", "bob is refused in review", source="backend", reason=REASON)
        await alice.client.leave("standup", "alice")
        await asyncio.sleep(1.5 * FRESH)

        pid = await harness.kill_backend()
        printer.chapter(f"The backend is killed (kill -9 {pid})")
        await joins.joins(alice, "standup", "alice joins standup again", source="stale", chat=False)
        printer.remark("with the cached answer; still without chat")
        await joins.is_refused(bob, "review", "bob is still refused in review", source="stale", reason=REASON)
        await joins.is_refused(carol, "planning", "carol, without a cached answer, is refused", source="policy")
        await alice.client.leave("standup", "alice")

        printer.chapter("The backend starts again")
        await harness.start_backend()
        await joins.joins(carol, "planning", "carol joins planning", source="backend", chat=True)

        printer.chapter("The backend ends a meeting")
        await joins.sees_the_end(carol, "planning", "planning ends, and carol sees it", reason=OVER)
    printer.chapter("All parts are stopped")
    printer.remark(f"{len(harness.pids)} processes ended, {len(harness.ports)} ports closed")


def explain(console: Console, otherwise: Exception, folder: Path) -> None:
    console.print("\n[red]✗ Something was different[/red]", highlight=False)
    console.print(str(otherwise), highlight=False, markup=False)
    if isinstance(otherwise, WentOtherwise) and otherwise.detail:
        console.print(otherwise.detail, highlight=False, markup=False, style="dim")
    for log in sorted(folder.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        if not lines:
            continue
        console.print(f"\n[bold]The last lines of {log.name}[/bold]", highlight=False)
        console.print("\n".join(lines), highlight=False, markup=False, style="dim")


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 100)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-demo-", ignore_cleanup_errors=True) as name:
        try:
            asyncio.run(demonstrate(console, Path(name)))
        except (WentOtherwise, AssertionError) as otherwise:
            explain(console, otherwise, Path(name))
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("\nInterrupted. All parts are stopped.")
            return 130
    console.print(f"\n[bold]Everything was as promised, in {time.monotonic() - begun:.1f} s.[/bold]", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
