"""The daemon before a backend that speaks HTTP badly, or forbids keeping its answers."""

from __future__ import annotations

from typing import Any

from tests.rig.raw import RawBackend, http
from tests.rig.sidecar import Sidecar

ALLOW, DENY = {"allowed": True, "reason": None}, {"allowed": False, "reason": "no"}
LONG = ["Content-Security-Policy: " + "a" * 9000]
SPRING_SECURITY = ["Cache-Control: no-cache, no-store, max-age=0, must-revalidate"]
NEVER_FRESH = {"endpoints": {"validate-access": {"allow": {"fresh": 0, "stale_while_revalidate": 0}}}}


def by_user(question: dict[str, Any]) -> bytes:
    return http(DENY if "mallory" in question["userJid"] else ALLOW)


async def test_a_second_answer_to_one_user_is_not_the_answer_to_the_next() -> None:
    async with RawBackend(by_user) as backend, Sidecar.start(backend.url) as sidecar:
        assert (await sidecar.decides("standup", "ann@example.com")).allowed is True
        backend.write_unasked(http(ALLOW))
        assert (await sidecar.decides("retro", "mallory@example.com")).allowed is False
        assert backend.connections == [0, 1]


async def test_a_refusal_with_a_long_header_replaces_an_old_allow() -> None:
    async with RawBackend(by_user) as backend, Sidecar.start(backend.url, NEVER_FRESH) as sidecar:
        assert (await sidecar.decides("standup", "ann@example.com")).allowed is True
        backend.answer = lambda _: http(DENY, headers=LONG)
        assert (await sidecar.decides("standup", "ann@example.com")).allowed is False


async def test_that_nothing_may_be_kept_is_said_before_the_outage() -> None:
    async with (
        RawBackend(lambda _: http(ALLOW, headers=SPRING_SECURITY)) as backend,
        Sidecar.start(backend.url) as sidecar,
    ):
        await sidecar.decides("standup", "ann@example.com")
        code, status = await sidecar.command("status")
        _, online = await sidecar.command("check", "--online")
        ready = (await sidecar.get("/readyz")).document
        assert await sidecar.metric("useless_in_an_outage", endpoint="validate-access") == 1
        await backend.stop()
        assert (await sidecar.decides("standup", "ann@example.com")).allowed is False
    assert (code, ready["status"], ready["reasons"]) == (0, "ready", [])
    for text in (status, online, ready["notes"][0]):
        assert "Cache-Control: no-store" in text
        assert "backend.cache_control: ignore" in text
