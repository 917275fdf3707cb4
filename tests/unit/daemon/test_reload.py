"""A reload takes over all of a config or nothing of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.loader import load
from sidecar.core.breaker import Permit
from sidecar.core.model import Endpoint
from sidecar.daemon.build import Parts
from sidecar.daemon.current import read_secrets
from sidecar.daemon.reload import reload
from tests.unit.daemon.builders import a_sidecar, at_once, in_this_thread, open_the_breaker

OLD = """
state_dir: null
backend: {{url: 'http://127.0.0.1:1/old', secret_file: {folder}/secret}}
admin: {{token_file: {folder}/admin}}
listen: {{token_file: {folder}/listen}}
log: {{level: error}}
"""
NEW = """
state_dir: null
backend: {{url: 'http://127.0.0.1:1/new', secret_file: {folder}/secret, max_in_flight: 7}}
admin: {{token_file: {folder}/admin}}
listen: {{token_file: {folder}/listen}}
breaker: {{open_for: 9}}
endpoints: {{validate-access: {{deadline: 2.5}}}}
identity: {{anonymous_domains: [Guest.example.com]}}
log: {{level: info}}
"""
SECRETS = ("secret", "admin", "listen")


class Reloading:
    """A sidecar, the files that its config names, and its log."""

    def __init__(self, folder: Path, text: str = OLD) -> None:
        self.folder = folder
        self.file = folder / "sidecar.yaml"
        self.output = io.StringIO()
        for name in SECRETS:
            (folder / name).write_text(f"old-{name}")
        self.write(text)
        settings = load(self.file)
        self.parts = a_sidecar(self.file.read_text(), read_secrets(settings, {}), self.file, output=self.output)

    def write(self, text: str) -> None:
        self.file.write_text(text.format(folder=self.folder))

    def renew_secrets(self) -> None:
        for name in SECRETS:
            (self.folder / name).write_text(f"new-{name}")

    def reload(self) -> None:
        at_once(reload(self.parts, {}, in_this_thread))

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def in_force(parts: Parts) -> dict[str, Any]:
    """All that a reload may change."""
    guards = parts.guards.values()
    return {
        "settings": parts.current.settings,
        "admin token": parts.current.admin_tokens,
        "target": parts.backend.target,
        "policies": parts.resolver.policy_for,
        "webhooks": parts.questions.settings,
        "breakers": [guard.breaker.rules for guard in guards],
    }


@pytest.fixture
def reloading(tmp_path: Path) -> Reloading:
    return Reloading(tmp_path)


def test_everything_is_taken_over(reloading: Reloading) -> None:
    reloading.write(NEW)
    reloading.renew_secrets()
    reloading.reload()
    parts = reloading.parts
    target, webhooks = parts.backend.target, parts.questions.settings
    assert (target.url, target.secret) == ("http://127.0.0.1:1/new", "new-secret")
    assert (parts.current.admin_tokens, webhooks.tokens) == (("new-admin",), ("new-listen",))
    assert webhooks.anonymous_domains == {"guest.example.com"}
    assert {guard.breaker.rules.open_for for guard in parts.guards.values()} == {9}
    assert parts.resolver.policy_for(Endpoint.VALIDATE_ACCESS, "standup").deadline == 2.5
    assert parts.current.settings.backend.max_in_flight == 7
    assert reloading.logged()[0]["event"] == "reloaded"


@pytest.mark.parametrize("missing", SECRETS)
def test_a_secret_that_cannot_be_read_leaves_everything_as_it_was(reloading: Reloading, missing: str) -> None:
    before = in_force(reloading.parts)
    reloading.write(NEW)
    reloading.renew_secrets()
    (reloading.folder / missing).unlink()
    reloading.reload()
    assert in_force(reloading.parts) == before
    (line,) = reloading.logged()
    assert line["event"] == "reload refused, the old settings stay"
    assert str(reloading.folder / missing) in line["problems"][0]


@pytest.mark.parametrize("more", ["bakend: {}", "breaker: {open_for: soon}", "{", "backend: {}"])
def test_a_file_that_cannot_be_used_leaves_everything_as_it_was(reloading: Reloading, more: str) -> None:
    before = in_force(reloading.parts)
    reloading.renew_secrets()
    reloading.file.write_text(f"{reloading.file.read_text()}\n{more}\n")
    reloading.reload()
    assert in_force(reloading.parts) == before
    assert reloading.logged()[0]["event"] == "reload refused, the old settings stay"


@pytest.mark.parametrize("broken", ["default_room_config: {meetingTitle: 2026-12-01}", "rooms: !!set {a}", "a: \x1b"])
def test_what_a_file_has_that_json_has_not_is_refused_with_its_place(reloading: Reloading, broken: str) -> None:
    before = in_force(reloading.parts)
    reloading.file.write_text(f"{NEW.format(folder=reloading.folder)}\n{broken}\n")
    reloading.reload()
    assert in_force(reloading.parts) == before
    assert re.match(rf"{reloading.file}:\d+:\d+: ", reloading.logged()[0]["problems"][0])


def test_an_unwise_setting_is_warned_of_with_its_place(reloading: Reloading) -> None:
    reloading.write(NEW + "rooms:\n  - {{match: Board, room-created: {{fresh: 1}}}}\n")
    reloading.reload()
    warned = [line["event"] for line in reloading.logged() if line["level"] == "warning"]
    assert f"config: {reloading.file}:11:6: warning: rooms[0].match: no room of Jitsi" in "\n".join(warned)


def test_what_needs_a_restart_is_counted_from_the_start(reloading: Reloading) -> None:
    for text in (NEW + "cache: {{allows: 5}}\n", NEW + "cache: {{allows: 5}}\n", NEW + "[", NEW):
        reloading.write(text)
        reloading.reload()
    recent = [line for line in reloading.logged() if line["event"].startswith("reload")]
    assert [line.get("needs_restart") for line in recent] == [["cache"], ["cache"], None, None]


async def test_a_refused_reload_still_shows_what_waits_for_a_restart(reloading: Reloading, aiohttp_client: Any) -> None:
    reloading.write(NEW.replace("state_dir: null", "state_dir: /elsewhere"))
    reloading.reload()
    reloading.write(NEW + "[")
    reloading.reload()
    client = await aiohttp_client(reloading.parts.admin.app())
    headers = {"Authorization": "Bearer new-admin"}
    document = await (await client.get("/status", headers=headers)).json()
    assert document["recent"]["last_reload"]["needs_restart"] == ["state_dir"]
    assert document["recent"]["last_reload"]["problems"]
    assert document["state_dir"] is None


def test_what_needs_a_restart_is_named_and_stays(reloading: Reloading) -> None:
    reloading.write(NEW.replace("listen: {{", "listen: {{prefix: /other, ") + "cache: {{allows: 5}}")
    reloading.reload()
    assert reloading.logged()[0]["needs_restart"] == ["listen.prefix", "cache"]
    assert reloading.parts.questions.settings.prefix == "/webhooks/jitsi"


def test_a_new_key_or_password_of_the_shared_memory_needs_a_restart(tmp_path: Path) -> None:
    files = {"key": "0" * 32, "password": "old"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    shared = "shared: {{url: 'redis://127.0.0.1:1', key_file: {folder}/key, password_file: {folder}/password}}\n"
    reloading = Reloading(tmp_path, NEW + shared)
    named = {"key": "shared.key_file", "password": "shared.password_file"}
    for name, content in files.items():
        (tmp_path / name).write_text("n" * 32)
        reloading.reload()
        (tmp_path / name).write_text(content)
        reloading.reload()
        needed, then = [line for line in reloading.logged() if line["event"] == "reloaded"][-2:]
        assert needed["needs_restart"] == [named[name]]
        assert "needs_restart" not in then
    assert "nnnn" not in reloading.output.getvalue()


@pytest.mark.parametrize("section", ["listen", "admin"])
def test_a_token_goes_and_comes_and_changes_at_once(reloading: Reloading, section: str) -> None:
    def tokens() -> tuple[str, ...]:
        parts = reloading.parts
        return parts.questions.settings.tokens if section == "listen" else parts.current.admin_tokens

    without = re.sub(rf"{section}: .*\n", "", OLD)
    for text, content, expected in (
        (OLD, "second", ("second",)),
        (OLD, "third\nsecond\n", ("third", "second")),
        (without, "third", ()),
        (OLD, "fourth", ("fourth",)),
    ):
        (reloading.folder / section).write_text(content)
        reloading.write(text.replace("level: error", "level: info"))
        reloading.reload()
        assert tokens() == expected
        assert "needs_restart" not in reloading.logged()[-1]


@pytest.mark.parametrize("section", ["listen", "admin"])
def test_a_listener_that_is_open_to_other_machines_keeps_its_token(tmp_path: Path, section: str) -> None:
    remote = OLD.replace(f"{section}: {{{{", f"{section}: {{{{host: 0.0.0.0, allow_remote: true, ")
    reloading = Reloading(tmp_path, remote)
    before = in_force(reloading.parts)
    reloading.write(re.sub(rf"{section}: .*\n", "", OLD))
    reloading.reload()
    assert in_force(reloading.parts) == before
    assert f"{section}.token_file: other machines can connect until a restart" in reloading.logged()[0]["problems"][0]


def test_a_module_timeout_needs_no_restart(reloading: Reloading) -> None:
    reloading.write(NEW.replace("listen: {{", "listen: {{module_timeout: 9, "))
    reloading.reload()
    assert "needs_restart" not in reloading.logged()[0]


@pytest.mark.parametrize(("text", "permit"), [(NEW, Permit.PROBE_FREE), (OLD, Permit.OPEN)])
def test_a_breaker_tries_at_once_only_where_the_backend_is_another(
    reloading: Reloading, text: str, permit: Permit
) -> None:
    parts = reloading.parts
    guard, now = parts.guards[Endpoint.VALIDATE_ACCESS], parts.clock.monotonic()
    open_the_breaker(guard, now)
    assert guard.permit(now, "standup") is Permit.OPEN
    reloading.write(text)
    reloading.reload()
    assert guard.permit(parts.clock.monotonic(), "standup") is permit


async def test_while_a_long_file_is_read_the_event_loop_goes_on(reloading: Reloading) -> None:
    rule = "- {{{{match: board-{}, validate-access: {{{{answer_within: 3}}}}}}}}\n"
    rules = "".join(rule.format(number) for number in range(200))
    reloading.write(f"{OLD}rooms:\n{rules}")
    under_way = asyncio.create_task(reload(reloading.parts, {}))
    rounds = 0
    while not under_way.done():
        await asyncio.sleep(0.001)
        rounds += 1
    assert rounds > 5
    assert reloading.parts.resolver.policy_for(Endpoint.VALIDATE_ACCESS, "board-7").answer_within == 3


def test_settings_that_are_built_in_are_not_read_again() -> None:
    output = io.StringIO()
    parts = a_sidecar(output=output)
    before = in_force(parts)
    at_once(reload(parts, {}, in_this_thread))
    assert in_force(parts) == before
    assert output.getvalue() == ""
