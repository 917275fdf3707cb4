"""A sidecar that is restarted under load, on sockets that stay open, as systemd does it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.prosody.conftest import GATE, StartProsody, eventually
from tests.rig.answers import allow, deny
from tests.rig.backend import PREFIX, Backend
from tests.rig.xmpp import Client
from tests.system.test_under_systemd import Manager

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = """
state_dir: {state}
backend: {{url: '{url}'}}
endpoints: {{validate-access: {{allow: {{fresh: 0.05, stale_while_revalidate: 0}}}}}}
identity: {{anonymous_domains: [localhost]}}
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_under_load_refuses_nobody_lets_in_no_stranger_and_loses_no_event(
    start_prosody: StartProsody, room: str, tmp_path: Path, how: signal.Signals
) -> None:
    async with Backend() as backend, AsyncExitStack() as stack:
        manager = Manager(tmp_path, listens=False)
        stack.callback(manager.close)
        manager.config.write_text(SETTINGS.format(state=tmp_path / "state", url=backend.url))
        backend.on("validate-access", allow(after=0.05))
        for number in range(8):
            backend.on("validate-access", deny("No", after=0.05), room=f"{room}-no-{number}")
        manager.start()
        url = f"http://127.0.0.1:{manager.webhook}{PREFIX}"
        # More time than by default: a busy machine takes seconds to start the next sidecar.
        options = {"muc_webhook_events": ["user-joined", "user-left"], "muc_webhook_timeout": 25}
        prosody = await start_prosody(fresh=True, webhook_url=url, options=options, log_level="info")
        joined, stop = [0] * 8, asyncio.Event()

        async def is_linked() -> bool:
            return bool(await prosody.module(f"return {GATE}.parts.link.is_up()"))

        async def come_and_go(client: Client, number: int) -> None:
            while not stop.is_set():
                result = await client.join(f"{room}-{number}", nick="n", within=30)
                assert result.joined, result.error
                joined[number] += 1
                await client.leave(f"{room}-{number}", "n")
                assert (await client.join(f"{room}-no-{number}", nick="n", within=30)).denied

        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in joined]
        load = [asyncio.ensure_future(come_and_go(client, number)) for number, client in enumerate(crowd)]
        await eventually(is_linked, True, within=20)
        await asyncio.sleep(1.0)
        assert manager.process is not None
        manager.process.send_signal(how)
        await asyncio.to_thread(manager.process.wait, 15)
        manager.start()
        await eventually(is_linked, True, within=20)
        stop.set()
        await asyncio.gather(*load)

        async def delivered() -> int:
            return sum(len(backend.first_arrivals(f"{room}-{number}")) for number in range(len(joined)))

        assert min(joined) >= 2
        await eventually(delivered, 2 * sum(joined), within=20)
