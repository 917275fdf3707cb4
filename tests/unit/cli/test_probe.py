"""`check --online` against real listeners: each step says what it found, the first that fails what to do."""

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from sidecar.backend.client import Target
from sidecar.cli.probe import Step, look
from sidecar.config.loader import parse
from tests.unit.builders import make_certificate

SECRET = "0123456789abcdef"
Handler = Callable[[web.Request], Awaitable[web.Response]]


async def strict(request: web.Request) -> web.Response:
    if request.headers.get("X-Webhook-Secret") != SECRET:
        return web.json_response({"error": "who are you?"}, status=401)
    return web.json_response({"allowed": False, "reason": "no such meeting"})


async def trusting(_: web.Request) -> web.Response:
    return web.json_response({"allowed": True})


async def missing(_: web.Request) -> web.Response:
    return web.Response(status=404, text="<html>not here</html>")


@pytest.fixture
def serve(aiohttp_server: AiohttpServer) -> Callable[..., Awaitable[int]]:
    """Gives the port on which this handler is the backend."""

    async def start(handler: Handler, tls: ssl.SSLContext | None = None) -> int:
        app = web.Application()
        app.router.add_post("/webhooks/jitsi/validate-access", handler)
        server = await aiohttp_server(app, ssl=tls)
        assert server.port is not None
        return server.port

    return start


def certificate(folder: Path, days: int = 90, name: str = "localhost") -> ssl.SSLContext:
    pem, key = folder / "cert.pem", folder / "key.pem"
    make_certificate(pem, key, name, days)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return context


async def steps(url: str, secret: str | None = SECRET, tls: ssl.SSLContext | None = None) -> list[Step]:
    settings = parse(f"backend: {{url: '{url}'}}", "f.yaml")
    return await look(settings, Target(settings.backend.url, secret, tls=tls))


def states(walked: list[Step]) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in walked]


async def test_all_is_well(serve: Callable[..., Awaitable[int]]) -> None:
    walked = await steps(f"http://127.0.0.1:{await serve(strict)}/webhooks/jitsi")
    assert states(walked) == [(name, "ok") for name in ("DNS", "TCP", "secret", "latency", "outage")]


async def test_a_name_that_is_none() -> None:
    walked = await steps("http://nowhere.invalid/webhooks/jitsi")
    assert states(walked) == [("DNS", "failed")]
    assert "getent hosts nowhere.invalid" in walked[0].advice


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        walked = await steps(f"http://127.0.0.1:{taken.getsockname()[1]}/webhooks/jitsi")
    assert states(walked) == [("DNS", "ok"), ("TCP", "failed")]


async def test_a_wrong_secret(serve: Callable[..., Awaitable[int]]) -> None:
    walked = await steps(f"http://127.0.0.1:{await serve(strict)}/webhooks/jitsi", secret="wrong")
    assert states(walked)[-1] == ("secret", "failed")
    assert "differ" in walked[-1].advice


async def test_a_backend_that_does_not_ask_for_the_secret(serve: Callable[..., Awaitable[int]]) -> None:
    walked = await steps(f"http://127.0.0.1:{await serve(trusting)}/webhooks/jitsi")
    assert states(walked)[2] == ("secret", "unwise")


@pytest.mark.parametrize(
    ("cache_control", "state", "found"),
    [
        ("no-cache, no-store, max-age=0, must-revalidate", "unwise", "no-store, no-cache or must-revalidate"),
        ("no-cache, private", "unwise", "no-cache or must-revalidate"),
        ("must-revalidate", "unwise", "no-cache or must-revalidate"),
        ("max-age=60, stale-if-error=0", "unwise", "stale-if-error=0"),
        ("max-age=0", "ok", "allow.stale_if_error (60.0 min)"),
        ("private", "ok", "allow.stale_if_error"),
    ],
)
async def test_a_backend_whose_answers_cannot_be_kept_for_an_outage(
    serve: Callable[..., Awaitable[int]], cache_control: str, state: str, found: str
) -> None:
    async def framework(request: web.Request) -> web.Response:
        response = await strict(request)
        response.headers["Cache-Control"] = cache_control
        return response

    outage = (await steps(f"http://127.0.0.1:{await serve(framework)}/webhooks/jitsi"))[-1]
    assert (outage.name, outage.state) == ("outage", state)
    assert found in outage.found
    assert ("backend.cache_control: ignore" in outage.advice) is (state == "unwise")


async def test_a_wrong_path(serve: Callable[..., Awaitable[int]]) -> None:
    walked = await steps(f"http://127.0.0.1:{await serve(missing)}/webhooks/jitsi")
    assert states(walked)[-1] == ("answer", "failed")
    assert "check the path in backend.url" in walked[-1].advice


async def test_a_certificate_nobody_has_signed(serve: Callable[..., Awaitable[int]], tmp_path: Path) -> None:
    port = await serve(strict, certificate(tmp_path))
    walked = await steps(f"https://localhost:{port}/webhooks/jitsi")
    assert states(walked)[-1] == ("TLS", "failed")
    assert "backend.ca_file" in walked[-1].advice


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (10, "unwise")])
async def test_a_trusted_certificate_tells_its_days(
    serve: Callable[..., Awaitable[int]], tmp_path: Path, days: int, state: str
) -> None:
    port = await serve(strict, certificate(tmp_path, days))
    trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    walked = await steps(f"https://localhost:{port}/webhooks/jitsi", tls=trust)
    assert states(walked)[2] == ("TLS", state)
    assert f"valid for {days} more days" in walked[2].found
    assert walked[-1].name == "outage"


async def test_a_certificate_for_another_name(serve: Callable[..., Awaitable[int]], tmp_path: Path) -> None:
    port = await serve(strict, certificate(tmp_path, name="other.example.com"))
    trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    walked = await steps(f"https://localhost:{port}/webhooks/jitsi", tls=trust)
    assert states(walked)[-1] == ("TLS", "failed")
    assert "for another name" in walked[-1].advice


async def test_plain_http_where_tls_was_expected(serve: Callable[..., Awaitable[int]]) -> None:
    walked = await steps(f"https://localhost:{await serve(strict)}/webhooks/jitsi")
    assert states(walked)[-1] == ("TLS", "failed")
    assert "write http://" in walked[-1].advice
