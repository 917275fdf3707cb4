"""Each option of the module that a document shows is one that the module takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.prosody.conftest import StartProsody
from tests.rig.prosody import ROOT
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r'(muc_webhook_[a-z_]+) = (\{[^}]*\}|"[^"]*"|[\w.]+)')
ROW = re.compile(r"^\| `(muc_webhook_[a-z_]+)` \| [^|]* \| (true|false|[\d.]+)\b", re.M)
"""An option and its default, as in the tables."""
EVENTS = re.compile(r"^\| `muc_webhook_events` \|.*Any of (.*?)\.", re.M)
NAMED = re.compile(r"\bmuc_webhook_[a-z_]*[a-z]")


def options_of(file: Path) -> list[tuple[str, str]]:
    """The options that a document shows, with their values as text of Prosody's configuration."""
    text = file.read_text()
    events = [("muc_webhook_events", "{" + names.replace("`", '"') + "}") for names in EVENTS.findall(text)]
    return sorted({*SHOWN.findall(text), *ROW.findall(text), *events})


DOCUMENTS_WITH_OPTIONS = [file for file in DOCUMENTS if options_of(file)]


@pytest.mark.parametrize("file", DOCUMENTS_WITH_OPTIONS, ids=lambda file: file.name)
async def test_the_module_takes_every_option_that_a_document_shows(start_prosody: StartProsody, file: Path) -> None:
    lines = "\n".join(f"\t{name} = {value}" for name, value in options_of(file))
    prosody = await start_prosody(fresh=True, extra=lines)
    assert "problem:" not in await prosody.shell("muc_webhook:status()")
    assert "until this is fixed" not in prosody.log()
    assert "There is no option" not in prosody.log()


async def test_the_events_that_the_upgrade_names_lock_nobody_out(start_prosody: StartProsody, room: str) -> None:
    (events,) = {value for name, value in options_of(ROOT / "docs" / "upgrading.md") if name == "muc_webhook_events"}
    assert '"recording"' in events
    prosody = await start_prosody(extra=f"\tmuc_webhook_events = {events}")
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, nick="ann")).joined


async def test_a_document_names_no_option_that_there_is_not() -> None:
    known = set(NAMED.findall((ROOT / "lua" / "muc_webhook" / "options.lib.lua").read_text()))
    named = {(file.name, name) for file in DOCUMENTS for name in NAMED.findall(file.read_text())}
    assert {(file, name) for file, name in named if name not in known} == set()
