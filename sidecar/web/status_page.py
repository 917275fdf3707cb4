"""The status in a browser: one page that asks /status every second, and loads nothing from other servers."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

_PAGE = (Path(__file__).parent / "status_page.html").read_text("utf-8")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


async def page(_: web.Request) -> web.Response:
    """`GET /` of the admin listener."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)
