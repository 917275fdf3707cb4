"""The status page as a browser gets it."""

from __future__ import annotations

from aiohttp import web
from pytest_aiohttp import AiohttpClient

from sidecar.web.status_page import page


async def test_the_page_may_run_its_own_script_and_load_nothing_from_other_servers(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    app.router.add_get("/", page)
    response = await (await aiohttp_client(app)).get("/")
    assert (response.status, response.content_type) == (200, "text/html")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert response.headers["Cache-Control"] == "no-store"
    assert "<title>prosody-sidecar</title>" in await response.text()
