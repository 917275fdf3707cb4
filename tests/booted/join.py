"""Joins a room on the Prosody of the booted machine: python -m tests.booted.join ROOM -> "joined", or the error.

Runs outside of the machine, in its network.
"""

import asyncio
import sys
from types import SimpleNamespace
from typing import cast

from tests.rig.prosody import Prosody
from tests.rig.xmpp import Client

SERVER = cast("Prosody", SimpleNamespace(c2s_port=5222, domain="localhost", muc="conference.localhost"))


async def main(room: str) -> None:
    async with Client.connect(SERVER) as user:
        result = await user.join(room)
        sys.stdout.write("joined" if result.joined else f"{result.error}: {result.error.text if result.error else ''}")


asyncio.run(main(sys.argv[1]))
