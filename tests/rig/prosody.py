"""Real Prosody servers for tests, the demo and benchmarks.

    options = {"muc_webhook_timeout": 1}
    async with Prosody.start(version="0.12", webhook_url=hook.url, options=options) as server:
        async with Client.connect(server) as user:
            result = await user.join("room", nick="ann")

Each server has free ports of 127.0.0.1, a folder of its own, memory instead of storage, and our module
loaded from `lua/`. 0.12 is the machine's package; 13.0 lives in the chroot that `tools/prosody13.sh` makes.

| host                    | who                                                                      |
|-------------------------|--------------------------------------------------------------------------|
| `localhost`             | anonymous users, as most of Jitsi's are                                   |
| `token.localhost`       | users of Jitsi's authentication by token, with a token or without         |
| `auth.localhost`        | accounts: any name, password "secret"; `focus` is jicofo, and an admin    |
| `recorder.localhost`    | accounts of recorders                                                     |
| `conference.localhost`  | the rooms, with our module                                                |
| `component.localhost`   | an external component, secret "secret"                                    |
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.rig import jitsi
from tests.rig.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
CHROOT = ROOT / ".cache" / "prosody13"
VERSIONS = ("0.12", "13.0")

LuaValue = str | int | float | bool | list["LuaValue"] | Mapping[str, "LuaValue"]


def why_missing(version: str) -> str | None:
    """Why this version cannot be started here, or None if it can."""
    if version == "0.12":
        found = Path("/usr/bin/prosody").exists()
        return jitsi.why_unusable(None) if found else "the Debian package prosody is not installed"
    if not (CHROOT / "usr/bin/prosody").exists():
        return f"there is no {CHROOT.relative_to(ROOT)} (tools/prosody13.sh makes it)"
    return jitsi.why_unusable(CHROOT) if os.geteuid() == 0 else "a chroot needs root"


def lua_literal(value: LuaValue) -> str:
    """A value as Prosody's configuration writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
        case list():
            return "{ " + "; ".join(lua_literal(v) for v in value) + " }"
        case _:
            return "{ " + "; ".join(f"[{lua_literal(k)}] = {lua_literal(v)}" for k, v in value.items()) + " }"


def _config(folder: str, plugins: list[str], ports: list[int], muc_modules: Iterable[str], **kw: Any) -> str:
    c2s, http, component = ports
    options: Mapping[str, LuaValue] = kw["options"]
    lines = "\n".join(f"\t{name} = {lua_literal(value)}" for name, value in options.items())
    wanted = list(muc_modules)
    modules = lua_literal(list(jitsi.on_component(wanted)))
    on_host: list[LuaValue] = ["rig_token", *jitsi.on_virtual_host(wanted)]
    host_modules = lua_literal(on_host)
    with_jitsi = jitsi.INSTALLED is not None
    host_options, components = (jitsi.HOST_OPTIONS, jitsi.COMPONENTS) if with_jitsi else ("", "")
    return f"""
run_as_root = true
daemonize = false
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
plugin_paths = {lua_literal(list(plugins))}
admin_socket = "{folder}/admin.sock"
log = {{ {{ levels = {{ min = "{kw["log_level"]}" }}, to = "file", filename = "{folder}/prosody.log" }} }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
c2s_direct_tls_ports = {{}}
http_ports = {{ {http} }}
https_ports = {{}}
component_ports = {{ {component} }}
component_interfaces = {{ "127.0.0.1" }}
http_default_host = "localhost"
modules_enabled = {{ "disco", "saslauth", "ping", "bosh", "websocket", "smacks", "admin_shell", "rig" }}
modules_disabled = {{ "s2s", "offline" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_bosh_secure = true
consider_websocket_secure = true
storage = "{kw["storage"]}"
admins = {{ "focus@auth.localhost" }}
statistics = "internal"
statistics_interval = "manual"
limits = {{}}
{jitsi.GLOBAL_OPTIONS if with_jitsi else ""}{kw["extra_global"]}
VirtualHost "localhost"
	authentication = "anonymous"
	modules_enabled = {host_modules}{host_options}
VirtualHost "token.localhost"
	authentication = "token"
	modules_enabled = {{ "rig_token" }}{host_options}
VirtualHost "auth.localhost"
	authentication = "rig"
	modules_enabled = {{ "rig_token" }}{host_options}
VirtualHost "recorder.localhost"
	authentication = "rig"
Component "component.localhost"
	component_secret = "secret"
Component "conference.localhost" "muc"
	modules_enabled = {modules}
	muc_room_locking = false
	muc_room_cache_size = 10000
{lines}
{components}{kw["extra"]}
"""


@dataclass(slots=True)
class Prosody:
    """A running server. Make one with `Prosody.start`."""

    version: str
    c2s_port: int
    http_port: int
    component_port: int
    folder: Path
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    command: list[str]
    domain: str = "localhost"
    token_domain: str = "token.localhost"
    auth_domain: str = "auth.localhost"
    muc: str = "conference.localhost"

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        version: str = "0.12",
        webhook_url: str | None = None,
        options: Mapping[str, LuaValue] | None = None,
        muc_modules: Iterable[str] = ("muc_webhook",),
        extra: str = "",
        extra_global: str = "",
        log_level: str = "debug",
        storage: str = "memory",
    ) -> AsyncIterator[Self]:
        """Starts a server and stops it again; `options` go to the MUC component.

        `extra` is configuration text for the end of the file (further hosts), `extra_global` for its
        global part.
        Raises RuntimeError with the log if the server does not get ready.
        """
        missing = why_missing(version)
        if missing:
            raise RuntimeError(f"Prosody {version} cannot be started: {missing}")
        chroot = None if version == "0.12" else CHROOT.resolve()
        folder = Path(tempfile.mkdtemp(prefix="prosody-rig-", dir=chroot / "tmp" if chroot else None))
        inside = "/" + str(folder.relative_to(chroot)) if chroot else str(folder)
        for name in ("data", "certs"):
            (folder / name).mkdir()
        plugins = []
        for source in jitsi.sources():
            shutil.copytree(source, folder / source.name)
            plugins.append(f"{inside}/{source.name}")
        ports = free_ports(3)
        all_options = dict(options or {})
        if webhook_url is not None:
            all_options.setdefault("muc_webhook_url", webhook_url)
        text = _config(
            inside,
            plugins,
            ports,
            muc_modules,
            options=all_options,
            extra=extra,
            extra_global=extra_global,
            log_level=log_level,
            storage=storage,
        )
        (folder / "prosody.cfg.lua").write_text(text)
        command = ["lua5.4", "/usr/bin/prosody", "--config", f"{inside}/prosody.cfg.lua", "-F"]
        command = [*(["chroot", str(chroot)] if chroot else []), *command]
        process = await _launch(command, folder)
        server = None
        try:
            timeout = aiohttp.ClientTimeout(total=30)
            async with aiohttp.ClientSession(timeout=timeout) as http:
                server = cls(version, ports[0], ports[1], ports[2], folder, process, http, command)
                await server._until_ready()
                yield server
        finally:
            await _stop(server.process if server else process)
            shutil.rmtree(folder, ignore_errors=True)

    async def restart(self, while_down: Callable[[], None] = lambda: None) -> None:
        """Stops the server and starts it again on the same ports, with what it has on disk. Waits for the clients to
        be gone: Prosody 0.12 trips over a session that ends just as it stops."""
        async with asyncio.timeout(5):
            while await self.lua("return next(prosody.full_sessions) ~= nil"):
                await asyncio.sleep(0.02)
        await _stop(self.process)
        while_down()
        await self.start_again()

    async def stop(self) -> None:
        """Stops the server for good."""
        await _stop(self.process)

    async def start_again(self) -> None:
        """Starts a server that has ended, on the same ports."""
        self.process = await _launch(self.command, self.folder)
        await self._until_ready()

    async def crash(self) -> None:
        """Kills the server, as -9 does, and starts it again on the same ports."""
        self.process.kill()
        await self.process.wait()
        await self.start_again()

    async def lua(self, code: str) -> Any:
        """Runs a piece of Lua inside the server; its `return` value comes back as JSON would have it."""
        url = f"http://127.0.0.1:{self.http_port}/rig"
        async with self.http.post(url, data=code.encode()) as response:
            answer = await response.json()
        if response.status != 200:
            raise RuntimeError(answer["error"])
        return answer["result"]

    async def module(self, code: str) -> Any:
        """Like `lua`, with `muc` the rooms' component and `webhook` our module's own environment."""
        return await self.lua(
            f'local host = prosody.hosts["{self.muc}"]; local muc, webhook = host.modules.muc, '
            f"host.modules.muc_webhook\n{code}"
        )

    async def rooms(self) -> list[str]:
        """The JIDs of the rooms that are in memory, without their domain."""
        rooms = await self.module(
            "local t = {}; for room in muc.live_rooms() do t[#t+1] = room.jid; end return table.concat(t, ' ')"
        )
        return sorted(jid.partition("@")[0] for jid in rooms.split())

    async def occupants(self, room: str) -> list[str]:
        """The nicks in a room."""
        nicks = await self.module(
            f'local room, t = muc.get_room_from_jid("{room}@{self.muc}"), {{}} '
            "for nick in pairs(room and room._occupants or {}) do t[#t+1] = nick:match('/(.*)'); end "
            "return table.concat(t, '\\n')"
        )
        return sorted(nicks.splitlines())

    async def has_session(self, jid: str) -> bool:
        """Whether the server still knows this full JID."""
        return bool(await self.lua(f'return prosody.full_sessions["{jid}"] ~= nil'))

    async def destroy(self, room: str) -> None:
        """Destroys a room as its owner would."""
        await self.module(f'assert(muc.get_room_from_jid("{room}@{self.muc}")):destroy(nil, "test")')

    async def reload(self, module: str = "muc_webhook", host: str | None = None) -> None:
        code = f'require "core.modulemanager".reload("{host or self.muc}", "{module}")'
        await self.lua(f"assert({code})")

    async def unload(self, module: str = "muc_webhook", host: str | None = None) -> None:
        code = f'require "core.modulemanager".unload("{host or self.muc}", "{module}")'
        await self.lua(f"assert({code})")

    async def load(self, module: str = "muc_webhook", host: str | None = None) -> None:
        code = f'require "core.modulemanager".load("{host or self.muc}", "{module}")'
        await self.lua(f"assert({code})")

    @property
    def prosodyctl(self) -> str:
        """The command that speaks to this server."""
        chroot = "" if self.version == "0.12" else f"chroot {CHROOT.resolve()} "
        folder = str(self.folder) if self.version == "0.12" else f"/tmp/{self.folder.name}"
        return f"{chroot}lua5.4 /usr/bin/prosodyctl --root --config {folder}/prosody.cfg.lua"

    async def shell(self, line: str) -> str:
        """What `prosodyctl shell` prints for this line."""
        process = await asyncio.create_subprocess_exec(
            *self.prosodyctl.split(),
            "shell",
            line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return output.decode()

    def sockets(self) -> int:
        """How many sockets the process has open."""
        count = 0
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += os.readlink(fd).startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def log(self) -> str:
        """What the server has logged so far, and what it printed."""
        parts = [self.folder / "output", self.folder / "prosody.log"]
        return "".join(p.read_text(errors="replace") for p in parts if p.exists())

    def mark(self) -> int:
        """A position in the log, for `log_since`."""
        return len(self.log())

    def log_since(self, mark: int) -> str:
        return self.log()[mark:]

    async def _until_ready(self) -> None:
        for _ in range(600):
            if self.process.returncode is not None:
                break
            try:
                await self.lua("return true")
                return
            except (aiohttp.ClientError, OSError, RuntimeError, ValueError):
                await asyncio.sleep(0.02)
        raise RuntimeError(f"Prosody {self.version} did not get ready:\n{self.log()[-4000:]}")


async def _launch(command: list[str], folder: Path) -> asyncio.subprocess.Process:
    with (folder / "output").open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LANG": "C.UTF-8"},
        )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(3):  # it waits longer for clients that do not hang up
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
