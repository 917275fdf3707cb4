"""What the sidecar shows and demands: signature, client certificate, own authority, files read again."""

import base64
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from sidecar.backend.client import Backend, signatures
from sidecar.clock import SystemClock
from sidecar.config.backend_target import target_from
from sidecar.config.credentials import read_signing_keys, read_tokens
from sidecar.config.loader import parse
from sidecar.config.models import Settings
from sidecar.core.model import Misconfigured, Replied, Unavailable
from sidecar.errors import StartError
from tests.unit.builders import a_query, make_certificate


def certify(folder: Path, name: str) -> None:
    """A certificate for localhost in two files of this name."""
    make_certificate(folder / f"{name}.pem", folder / f"{name}.key")


@pytest.fixture
async def port(aiohttp_server: AiohttpServer, tmp_path: Path) -> int:
    """A backend that wants to see the certificate `ours`."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"allowed": True})

    for name in ("theirs", "ours", "other"):
        certify(tmp_path, name)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ours.pem")
    tls.load_cert_chain(tmp_path / "theirs.pem", tmp_path / "theirs.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_post("/x/validate-access", answer)
    server = await aiohttp_server(app, ssl=tls)
    assert server.port is not None
    return server.port


def settings(folder: Path, port: int, *, ca: str = "theirs", certificate: str | None = "ours") -> Settings:
    lines = [f"url: 'https://localhost:{port}/x'", f"ca_file: {folder}/{ca}.pem"]
    if certificate is not None:
        lines += [f"client_certificate: {folder}/{certificate}.pem", f"client_key: {folder}/{certificate}.key"]
    return parse(f"backend: {{{', '.join(lines)}}}", "f.yaml")


async def test_both_sides_show_their_certificates(port: int, tmp_path: Path) -> None:
    async with Backend(target_from(settings(tmp_path, port), {}), SystemClock()) as backend:
        assert isinstance(await backend.ask(a_query(), 5), Replied)


async def test_a_backend_signed_by_somebody_else_never_gets_the_question(port: int, tmp_path: Path) -> None:
    async with Backend(target_from(settings(tmp_path, port, ca="other"), {}), SystemClock()) as backend:
        assert isinstance(await backend.ask(a_query(), 5), Misconfigured)


async def test_a_backend_that_does_not_know_our_certificate_is_unavailable(port: int, tmp_path: Path) -> None:
    async with Backend(target_from(settings(tmp_path, port, certificate=None), {}), SystemClock()) as backend:
        assert isinstance(await backend.ask(a_query(), 5), Unavailable)


async def test_a_new_certificate_takes_effect_at_a_reload_and_an_old_one_changes_nothing(
    port: int, tmp_path: Path
) -> None:
    first = target_from(settings(tmp_path, port), {})
    assert target_from(settings(tmp_path, port), {}) == first
    assert target_from(settings(tmp_path, port), {}).tls is first.tls
    certify(tmp_path, "ours")
    assert target_from(settings(tmp_path, port), {}) != first


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    certify(tmp_path, "ours")
    certify(tmp_path, "other")
    (tmp_path / "other.key").rename(tmp_path / "ours.key")
    with pytest.raises(StartError, match="cannot be used together"):
        target_from(settings(tmp_path, 1, ca="ours"), {})
    (tmp_path / "ours.pem").write_text("no certificate")
    with pytest.raises(StartError, match=r"backend\.ca_file: .* contains no certificate"):
        target_from(settings(tmp_path, 1, ca="ours"), {})
    (tmp_path / "ours.pem").unlink()
    with pytest.raises(StartError, match=r"backend\.ca_file: .* cannot be read"):
        target_from(settings(tmp_path, 1, ca="ours"), {})


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    certify(tmp_path, "ours")
    key, locked = tmp_path / "ours.key", tmp_path / "locked.key"
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:of-a-test", "-in", str(key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    locked.rename(key)
    with pytest.raises(StartError, match=r"client_certificate: .* have no passphrase"):
        target_from(settings(tmp_path, 1, ca="ours"), {})


def keys_of(folder: Path, text: str) -> tuple[bytes, ...]:
    (folder / "key").write_text(text)
    return read_signing_keys(folder / "key", {})


def test_a_signature_is_the_one_of_standard_webhooks(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signatures(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signed["webhook-timestamp"] == "1614265330"


def test_the_signature_of_the_body_alone_is_the_hmac_of_rfc_4231() -> None:
    signed = signatures((b"Jefe",), "id", 0, b"what do ya want for nothing?")
    expected = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    assert base64.b64decode(signed["X-Webhook-Signature"]) == expected


def test_with_two_keys_each_header_has_the_signatures_of_both() -> None:
    new, old, both = (signatures(keys, "id", 1, b"{}") for keys in ((b"new",), (b"old",), (b"new", b"old")))
    for name in ("X-Webhook-Signature", "webhook-signature"):
        assert both[name] == f"{new[name]} {old[name]}"


def test_a_signing_key_is_taken_as_it_is_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert keys_of(tmp_path, "plain\n") == (b"plain",)
    assert keys_of(tmp_path, "new\nwhsec_b2xk\n") == (b"new", b"old")
    assert read_signing_keys(None, {}) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("whsec_???", "not base64"),
        ("whsec_", "not base64"),
        ("", "is empty"),
        ("new\n\nold", "has 3 lines"),
        ("new\n \n", "begins or ends with a space"),
        ("1\n2\n3", "has 3 lines; write one, or the new one and the old one"),
        ("same\nsame", "has the same line twice"),
        ("k\u00e9y", "printable ASCII"),
    ],
)
def test_a_file_that_holds_no_usable_signing_keys_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(StartError, match=complaint):
        keys_of(tmp_path, text)


def test_signing_keys_come_from_a_credential_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "signing-key").write_text("passed\n")
    (tmp_path / "file").write_text("file\n")
    assert read_signing_keys(tmp_path / "file", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == (b"passed",)


def test_a_token_comes_from_a_credential_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "listen-token").write_text("credential\n")
    (tmp_path / "file").write_text("file\n")
    passed = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_tokens("listen-token", tmp_path / "file", passed) == ("credential",)
    assert read_tokens("listen-token", tmp_path / "file", {}) == ("file",)
    assert read_tokens("listen-token", None, {}) == ()


def test_a_token_file_has_the_new_and_the_old_token_and_no_third(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("new\nold\n")
    assert read_tokens("listen-token", file, {}) == ("new", "old")
    for text, says in (("new\nold\nolder\n", "has 3 lines"), ("new\nnew\n", "the same line twice"), ("\n", "is empty")):
        file.write_text(text)
        with pytest.raises(StartError, match=says):
            read_tokens("listen-token", file, {})
