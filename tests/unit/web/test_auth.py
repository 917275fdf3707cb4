"""The token of the admin listener."""

from __future__ import annotations

import base64

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from sidecar.web.auth import require_token


async def nothing(_: web.Request) -> web.Response:
    return web.Response()


def an_app(*tokens: str) -> web.Application:
    app = web.Application(middlewares=[require_token(lambda: tokens)])
    app.add_routes([web.get("/livez", nothing), web.get("/status", nothing)])
    return app


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


async def test_a_listener_without_a_token_asks_for_none(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(an_app())
    assert (await client.get("/status")).status == 200


@pytest.mark.parametrize("given", ["Bearer secret", basic("secret"), basic("secret").replace("Basic", "basic")])
async def test_the_token_opens_as_a_bearer_token_and_as_a_password(aiohttp_client: AiohttpClient, given: str) -> None:
    client = await aiohttp_client(an_app("secret"))
    assert (await client.get("/status", headers={"Authorization": given})).status == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer secret2", basic("Secret"), "Basic ?", "Basic c2VjcmV0", "Bearer \u00e9"]
)
async def test_anything_else_gets_a_401_that_a_browser_asks_a_password_for(
    aiohttp_client: AiohttpClient, given: str
) -> None:
    client = await aiohttp_client(an_app("secret"))
    response = await client.get("/status", headers={"Authorization": given})
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert "admin.token_file" in (await response.json())["detail"]


async def test_the_new_and_the_old_token_both_count(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(an_app("new", "old"))
    given = {token: f"Bearer {token}" for token in ("new", "old", "older")}
    found = {
        each: (await client.get("/status", headers={"Authorization": sent})).status for each, sent in given.items()
    }
    assert found == {"new": 200, "old": 200, "older": 401}


async def test_livez_needs_no_token(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(an_app("secret"))
    assert (await client.get("/livez")).status == 200
