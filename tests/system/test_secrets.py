"""Secret and tokens: demanded where they are wanted, and nowhere to be found where they are not."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.alone import ROOT, Sidecar

SECRET, LISTEN, ADMIN, BEARER, KEY = (
    f"canary-{name}-0123456789" for name in ("secret", "listen", "admin", "jwt", "key")
)


class Guarded(Sidecar):
    """With a secret for the backend, a token on each listener, everything on disk, and the log at debug."""

    def __init__(self, folder: Path) -> None:
        files = {"secret": SECRET, "listen": LISTEN, "admin": ADMIN, "key": KEY}
        for name, text in files.items():
            (folder / name).write_text(text)
        self.state = folder / "state"
        super().__init__(
            folder,
            listen=f", token_file: {folder}/listen",
            admin=f", token_file: {folder}/admin",
            backend=f", secret_file: {folder}/secret, signing_key_file: {folder}/key",
            state=str(self.state),
            extra="log: {level: debug}\n",
            demo=("--secret", SECRET),
        )

    def answer(self, url: str, body: object = None, **headers: str) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, head), timeout=10) as answered:
                return answered.status, answered.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def join(self, user: str, token: str = LISTEN) -> tuple[int, str]:
        body = {"roomName": "standup", "userJid": user, "timestamp": 0, "bearerToken": BEARER}
        url = f"http://127.0.0.1:{self.port}/webhooks/jitsi/validate-access"
        return self.answer(url, body, X_Webhook_Secret=token)

    def look(self, path: str, authorization: str = f"Bearer {ADMIN}") -> tuple[int, str]:
        return self.answer(f"http://127.0.0.1:{self.admin}{path}", Authorization=authorization)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    running = Guarded(tmp_path)
    try:
        running.wait()
        yield running
    finally:
        running.stop()


def test_only_who_sends_the_token_is_answered(guarded: Guarded) -> None:
    assert guarded.join("ann@example.org")[0] == 200
    for wrong in ("", "wrong", LISTEN[:-1], f"{LISTEN}x", "Ω".encode().decode("latin-1")):
        status, said = guarded.join("ann@example.org", token=wrong)
        assert (status, "muc_webhook_secret" in said) == (401, True)
    basic = base64.b64encode(f"me:{ADMIN}".encode()).decode()
    assert guarded.look("/status")[0] == guarded.look("/status", f"Basic {basic}")[0] == 200
    for wrong in ("", "Bearer wrong", "Basic ???", "Basic " + base64.b64encode(b"\xff:x").decode()):
        assert guarded.look("/metrics", wrong)[0] == 401
    assert guarded.look("/livez", "")[0] == 200


def test_the_commands_send_the_admins_token(guarded: Guarded) -> None:
    order = [sys.executable, "-m", "sidecar", "status", "--json", "--config", str(guarded.config)]
    done = subprocess.run(order, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["serving"] is True


def test_a_new_secret_takes_effect_at_a_reload(guarded: Guarded) -> None:
    (guarded.config.parent / "secret").write_text("another-secret-0123")
    guarded.signal(signal.SIGHUP)
    assert json.loads(guarded.join("first@example.org")[1])["allowed"] is False  # the backend does not know it
    assert "check the webhook secret" in guarded.look("/readyz")[1]
    (guarded.config.parent / "secret").write_text(SECRET)
    guarded.signal(signal.SIGHUP)
    assert json.loads(guarded.join("second@example.org")[1])["allowed"] is True


def test_no_secret_and_no_token_is_anywhere_it_should_not_be(guarded: Guarded) -> None:
    seen = []
    for fault in ("none", "500", "garbage", "reset"):
        guarded.answer(f"http://127.0.0.1:{guarded.backend}/demo/fault", {"fault": fault})
        seen += [guarded.join(f"user{number}-{fault}@example.org")[1] for number in range(5)]
        seen.append(guarded.join("ann@example.org", token="wrong")[1])
        seen += [guarded.look(path)[1] for path in ("/", "/status", "/metrics", "/explain?room=standup", "/outbox")]
    guarded.config.write_text("backend: {url: 1}\n")
    guarded.signal(signal.SIGHUP)
    seen.append(guarded.look("/readyz")[1])
    guarded.stop()
    seen.append(guarded.log.read_text())
    seen += [file.read_bytes().decode("latin-1") for file in guarded.state.rglob("*") if file.is_file()]
    everything = "\n".join(seen)
    assert "standup" in everything  # so something was written
    assert "500" in everything
    for canary in (SECRET, LISTEN, ADMIN, BEARER, KEY):
        assert canary not in everything
    assert any(SECRET in file.read_text() for file in guarded.config.parent.glob("secret"))  # it can be found


def test_a_state_folder_is_for_the_sidecar_alone(guarded: Guarded) -> None:
    guarded.join("ann@example.org")
    assert [oct(file.stat().st_mode) for file in guarded.state.rglob("*") if file.stat().st_mode & 0o077] == []
    assert os.stat(guarded.state).st_mode & 0o077 == 0
