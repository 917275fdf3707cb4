"""A real Prosody with the module of this checkout, to try a change by hand.

    make run                                     the sidecar and a demo backend, in one terminal
    .venv/bin/python -m tests.rig.by_hand        Prosody 0.12, in another; `--version 13.0` for the other one

It asks the sidecar of `make run` (or `--url`), reads commands from the terminal, and prints what a user and an
operator would see. It ends with Ctrl-D.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from contextlib import AsyncExitStack

from tests.rig.prosody import ROOT, VERSIONS, Prosody, why_missing
from tests.rig.xmpp import Client, ConnectionGone

HELP = """\
  join ROOM USER     USER@auth.localhost joins; each user has one session and comes with the nick USER
  leave ROOM USER
  who ROOM           the nicks in a room
  reload             takes lua/ from the checkout again and reloads the module
  status             what `prosodyctl shell "muc_webhook:status()"` says
  log                what Prosody has logged since the last time, as far as the module says it
"""


class Session:
    """One Prosody, and the users that have come so far."""

    def __init__(self, server: Prosody, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack
        self._users: dict[str, Client] = {}
        self._mark = server.mark()

    async def _user(self, name: str) -> Client:
        if name not in self._users or self._users[name].gone.is_set():
            self._users[name] = await self._stack.enter_async_context(Client.connect(self._server, user=name))
        return self._users[name]

    async def join(self, room: str, name: str) -> str:
        result = await (await self._user(name)).join(room, nick=name)
        said = "\n".join(str(message) for message in result.messages)
        answer = f"joined as {result.affiliation}, {result.role}" if result.joined else f"refused: {result.error}"
        return f"{answer}, after {result.took * 1000:.0f} ms\n{said}".rstrip()

    async def leave(self, room: str, name: str) -> str:
        await (await self._user(name)).leave(room, nick=name)
        return "left"

    async def who(self, room: str) -> str:
        return ", ".join(await self._server.occupants(room)) or "no one"

    async def reload(self) -> str:
        shutil.copytree(ROOT / "lua", self._server.folder / "lua", dirs_exist_ok=True)
        await self._server.reload()
        return "reloaded"

    async def status(self) -> str:
        return await self._server.shell("muc_webhook:status()")

    async def log(self) -> str:
        since, self._mark = self._server.log_since(self._mark), self._server.mark()
        return "\n".join(line for line in since.splitlines() if "webhook" in line)


async def obey(session: Session, line: str) -> str:
    """What one command prints; a mistake of any kind is a line and no end."""
    name, *words = line.split()
    try:
        match name, words:
            case ("join", [room, user]):
                return await session.join(room, user)
            case ("leave", [room, user]):
                return await session.leave(room, user)
            case ("who", [room]):
                return await session.who(room)
            case ("reload", []):
                return await session.reload()
            case ("status", []):
                return await session.status()
            case ("log", []):
                return await session.log()
            case _:
                return HELP
    except (RuntimeError, TimeoutError, ConnectionGone) as error:
        return f"failed: {error or type(error).__name__}"


async def run(version: str, url: str) -> None:
    async with Prosody.start(version=version, webhook_url=url) as server, AsyncExitStack() as stack:
        print(f"Prosody {version}: XMPP on 127.0.0.1:{server.c2s_port}, BOSH and WebSocket on {server.http_port}")
        print(f"Its config and log are in {server.folder}; it asks {url}\n{HELP}")
        session = Session(server, stack)
        print("> ", end="", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip():
                print(await obey(session, line))
            print("> ", end="", flush=True)
        print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rig.by_hand", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", choices=VERSIONS, default=VERSIONS[0])
    parser.add_argument("--url", default="http://127.0.0.1:8788/webhooks/jitsi")
    options = parser.parse_args()
    if missing := why_missing(options.version):
        print(f"Prosody {options.version} cannot be started: {missing}", file=sys.stderr)
        return 1
    asyncio.run(run(options.version, options.url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
