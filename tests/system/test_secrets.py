"""Secret and tokens: demanded where they are wanted, and nowhere to be found where they are not."""

import asyncio
import base64
import hmac
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rig.answers import by_name, with_secret
from tests.rig.backend import Backend
from tests.rig.faults import Fault
from tests.rig.sidecar import Reply, Sidecar

SECRET, LISTEN, ADMIN, BEARER, KEY = (
    f"canary-{name}-0123456789" for name in ("secret", "listen", "admin", "jwt", "key")
)


@pytest.fixture
async def guarded(backend: Backend, tmp_path: Path) -> AsyncIterator[Sidecar]:
    """With a secret for the backend, a token on each listener, everything on disk, and the log at debug."""
    for name, text in {"secret": SECRET, "listen": LISTEN, "admin": ADMIN, "key": KEY}.items():
        (tmp_path / name).write_text(text)
    backend.on("validate-access", with_secret(SECRET, by_name))
    settings = {
        "listen": {"token_file": str(tmp_path / "listen")},
        "admin": {"token_file": str(tmp_path / "admin")},
        "backend": {
            "secret_file": str(tmp_path / "secret"),
            "signing_key_file": str(tmp_path / "key"),
            "forward_token": True,
        },
        "log": {"level": "debug"},
    }
    async with Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
        await sidecar.run()
        yield sidecar


async def join(sidecar: Sidecar, who: str, token: str = LISTEN) -> Reply:
    body = {"roomName": "standup", "userJid": who, "userId": who, "timestamp": 0, "bearerToken": BEARER}
    return await sidecar.post("validate-access", json.dumps(body).encode(), {"X-Webhook-Secret": token})


async def look(sidecar: Sidecar, path: str, authorization: str = f"Bearer {ADMIN}") -> Reply:
    return await sidecar.get(path, {"Authorization": authorization})


async def reload(sidecar: Sidecar, event: str) -> None:
    """Lets it read its files again, and waits until it says so."""

    def seen() -> int:
        return sum(line["event"].startswith(event) for line in sidecar.log())

    before = seen()
    sidecar.signal(signal.SIGHUP)
    async with asyncio.timeout(5):
        while seen() == before:
            await asyncio.sleep(0.02)


async def test_only_who_sends_the_token_is_answered(guarded: Sidecar) -> None:
    assert (await join(guarded, "ann@example.org")).status == 200
    for wrong in ("", "wrong", LISTEN[:-1], f"{LISTEN}x", "Ω".encode().decode("latin-1")):
        refused = await join(guarded, "ann@example.org", token=wrong)
        assert (refused.status, b"muc_webhook_secret" in refused.body) == (401, True)
    basic = base64.b64encode(f"me:{ADMIN}".encode()).decode()
    assert (await look(guarded, "/status")).status == (await look(guarded, "/status", f"Basic {basic}")).status == 200
    for wrong in ("", "Bearer wrong", "Basic ???", "Basic " + base64.b64encode(b"\xff:x").decode()):
        assert (await look(guarded, "/metrics", wrong)).status == 401
    assert (await look(guarded, "/livez", "")).status == 200


async def test_the_commands_send_the_admins_token(guarded: Sidecar) -> None:
    code, printed = await guarded.command("status", "--json")
    assert (code, json.loads(printed)["serving"]) == (0, True)


async def test_a_new_secret_takes_effect_at_a_reload(guarded: Sidecar, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("another-secret-0123")
    await reload(guarded, "reloaded")
    assert (await join(guarded, "first@example.org")).allowed is False  # the backend does not know it
    assert b"check the webhook secret" in (await look(guarded, "/readyz")).body
    (tmp_path / "secret").write_text(SECRET)
    await reload(guarded, "reloaded")
    assert (await join(guarded, "second@example.org")).allowed is True


def signature(key: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()


async def test_a_signing_key_is_changed_without_a_gap(backend: Backend, guarded: Sidecar, tmp_path: Path) -> None:
    signed: list[list[str]] = []
    for content in (KEY, f"another-key\n{KEY}", "another-key"):
        (tmp_path / "key").write_text(content)
        await reload(guarded, "reloaded")
        assert (await join(guarded, f"user{len(signed)}@example.org")).allowed is True
        asked = backend.asked("validate-access")[-1]
        keys = {key: signature(key, asked.content) for key in (KEY, "another-key")}
        header = asked.headers["X-Webhook-Signature"].split(" ")
        signed.append([key for each in header for key, expected in keys.items() if each == expected])
    assert signed == [[KEY], ["another-key", KEY], ["another-key"]]


async def test_the_users_token_goes_to_the_backend_and_only_with_a_decision(backend: Backend, guarded: Sidecar) -> None:
    await join(guarded, "ann@example.org")
    assert backend.asked("validate-access")[-1].headers["Authorization"] == f"Bearer {BEARER}"
    created = json.dumps({"roomName": "standup", "bearerToken": BEARER}).encode()
    await guarded.post("room-created", created, {"X-Webhook-Secret": LISTEN})
    assert "Authorization" not in backend.asked("room-created")[-1].headers


async def test_no_secret_and_no_token_is_anywhere_it_should_not_be(
    backend: Backend, guarded: Sidecar, tmp_path: Path
) -> None:
    replies = []
    for fault in (Fault.NONE, Fault.ERROR_500, Fault.GARBLED, Fault.RESET):
        await backend.goes(fault)
        replies += [await join(guarded, f"user{number}-{fault.value}@example.org") for number in range(5)]
        replies.append(await join(guarded, "ann@example.org", token="wrong"))
        replies += [
            await look(guarded, path) for path in ("/", "/status", "/metrics", "/explain?room=standup", "/outbox")
        ]
    guarded.file.write_text("backend: {url: 1}\n")
    await reload(guarded, "reload refused")
    replies.append(await look(guarded, "/readyz"))
    await guarded.end()
    state = guarded.folder / "state"
    seen = [reply.body.decode() for reply in replies] + [guarded.output()]
    seen += [file.read_bytes().decode("latin-1") for file in state.rglob("*") if file.is_file()]
    everything = "\n".join(seen)
    assert "standup" in everything  # so something was written
    assert "500" in everything
    for canary in (SECRET, LISTEN, ADMIN, BEARER, KEY):
        assert canary not in everything
    assert SECRET in (tmp_path / "secret").read_text()  # it can be found


async def test_a_state_folder_is_for_the_sidecar_alone(guarded: Sidecar) -> None:
    await join(guarded, "ann@example.org")
    state = guarded.folder / "state"
    files = [file for file in state.rglob("*") if not file.is_socket()]  # the folder protects the socket
    assert [oct(file.stat().st_mode) for file in files if file.stat().st_mode & 0o077] == []
    assert os.stat(state).st_mode & 0o077 == 0
