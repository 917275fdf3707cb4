"""The token between Prosody and the sidecar is changed, in the order of docs/operating.md, while users join."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.prosody.conftest import GATE, Server, StartProsody, eventually
from tests.prosody.test_doctor import look
from tests.rig.backend import Backend
from tests.rig.sidecar import ROOT, Sidecar
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD, NEW = "the-old-token-of-prosody", "the-new-token-of-prosody"
PAGE = (ROOT / "docs" / "operating.md").read_text()
SHELL = re.findall(r'^ +sudo prosodyctl shell "(.*)"$', PAGE.partition("### A new token")[2], re.M)


async def listens_to(sidecar: Sidecar, *tokens: str) -> None:
    """A reload with these tokens, the new one first."""
    before = len(sidecar.log("reloaded"))
    Path(sidecar.config["listen"]["token_file"]).write_text("\n".join(tokens))
    sidecar.signal(signal.SIGHUP)
    async with asyncio.timeout(10):
        while len(sidecar.log("reloaded")) == before:
            await asyncio.sleep(0.02)


async def sends(prosody: Server, token: str) -> None:
    """Prosody gets another token, with the commands of the page."""
    file = prosody.folder / "prosody.cfg.lua"
    file.write_text(re.sub(r"the-\w+-token-of-prosody", token, file.read_text()))
    assert len(SHELL) == 2
    for line in SHELL:
        assert "Error" not in await prosody.shell(line)


async def link_step(prosody: Server, sidecar: Sidecar) -> str:
    _, found = await look(sidecar, prosody.prosodyctl)
    return str(found["link"][0]["found"])


async def is_up(prosody: Server) -> Any:
    return await prosody.module(f"return {GATE}.parts.link.is_up()")


@asynccontextmanager
async def linked(start_prosody: StartProsody, token_file: Path) -> AsyncIterator[tuple[Sidecar, Server]]:
    """A sidecar and a Prosody that have the old token, with a link."""
    token_file.write_text(OLD)
    settings = {"listen": {"token_file": str(token_file)}}
    async with Backend() as backend, Sidecar.start(backend.url, settings) as sidecar:
        options = {"muc_webhook_secret": OLD}
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks, options=options)
        await eventually(lambda: is_up(prosody), True)
        yield sidecar, prosody


async def test_nobody_is_refused_while_the_token_is_changed(
    start_prosody: StartProsody, room: str, tmp_path: Path
) -> None:
    async with linked(start_prosody, tmp_path / "token") as (sidecar, prosody):
        over, refused, numbers = asyncio.Event(), [], count()

        async def users() -> None:
            async with Client.connect(prosody) as client:
                while not over.is_set():
                    if not (joined := await client.join(f"{room}-{next(numbers)}")).joined:
                        refused.append(str(joined.error))

        joining = [asyncio.ensure_future(users()) for _ in range(3)]
        await listens_to(sidecar, NEW, OLD)
        assert "sends the old token" in await link_step(prosody, sidecar)
        await sends(prosody, NEW)
        await eventually(lambda: is_up(prosody), True)
        assert (await link_step(prosody, sidecar)).startswith("connected: ")
        await listens_to(sidecar, NEW)
        await asyncio.sleep(1.5)  # links with the old token would be closed
        assert (await link_step(prosody, sidecar)).startswith("connected: ")
        over.set()
        await asyncio.gather(*joining)
        assert (refused, next(numbers) > 20) == ([], True)


async def test_a_token_that_is_removed_too_early_is_seen_at_once(
    start_prosody: StartProsody, room: str, tmp_path: Path
) -> None:
    async with linked(start_prosody, tmp_path / "token") as (sidecar, prosody):
        await listens_to(sidecar, NEW)
        await eventually(lambda: is_up(prosody), False)
        async with Client.connect(prosody) as ann:
            assert (await ann.join(room)).denied
            assert await link_step(prosody, sidecar) == "no module of Prosody is connected"
            await listens_to(sidecar, NEW, OLD)
            assert (await ann.join(room)).joined
