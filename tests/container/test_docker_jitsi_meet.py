"""The overlay for docker-jitsi-meet: its volumes prepared by the image, its variables written out as the template of
docker-jitsi-meet does it, and a join through the real Prosody 13 that has them."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.container.podman import ROOT, Image
from tests.rig.answers import allow, deny
from tests.rig.backend import Backend
from tests.rig.ports import free_ports
from tests.rig.prosody import CHROOT, Prosody
from tests.rig.xmpp import Client

OVERLAY = ROOT / "packaging" / "docker-jitsi-meet" / "prosody-sidecar.yml"
TOKEN_IN = "/run/prosody-sidecar-token"


def overlay() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(OVERLAY.read_text())["services"]
    return loaded


def interpolated(text: str, environment: dict[str, str]) -> str:
    """What Compose makes of `${A}`, `${A-}`, `${A:-b}`, `${A:?text}` and `${A:+b}`; a value is not looked at again."""
    before, found, rest = text.partition("${")
    if not found:
        return text
    end, depth = 0, 1
    while depth:
        depth += {"{": 1, "}": -1}.get(rest[end], 0)
        end += 1
    matched = re.fullmatch(r"(\w+)(:[-+?]|-)?(.*)", rest[: end - 1])
    assert matched is not None, text
    known, word = environment.get(matched[1], ""), interpolated(matched[3], environment)
    match matched[2]:
        case ":-":
            value = known or word
        case ":+":
            value = word if known else ""
        case ":?":
            assert known, word
            value = known
        case _:
            value = known
    return before + value + interpolated(rest[end:], environment)


def variables(service: str, environment: dict[str, str]) -> dict[str, str]:
    listed = overlay()[service]["environment"]
    return dict(interpolated(each, environment).split("=", 1) for each in listed)


def written_out(value: str) -> str:
    """docker-jitsi-meet's template: split at commas, without empty pieces, one a line."""
    return "\n    ".join(piece for piece in value.split(",") if piece)


@pytest.fixture
def volumes() -> Iterator[dict[str, Path]]:
    """The four folders, below the root that Prosody 13 sees."""
    home = CHROOT / "tmp" / f"overlay-{secrets.token_hex(4)}"
    made = {name: home / name for name in ("plugins", "token", "state", "config")}
    for each in made.values():
        each.mkdir(parents=True)
    yield made
    for file in sorted(home.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    home.rmdir()


def prepare(image: Image, volumes: dict[str, Path]) -> None:
    service = overlay()["prosody-sidecar-prepare"]
    command, *arguments = service["entrypoint"]
    ended = image.once(
        *arguments,
        entrypoint=command,
        user=service["user"],
        network=service["network_mode"],
        volumes=dict(zip(volumes.values(), arguments, strict=True)),
    )
    assert ended.code == 0, ended.out


def test_the_preparation_puts_the_module_and_makes_a_token_once(image: Image, volumes: dict[str, Path]) -> None:
    secrets_of_theirs = [volumes["config"] / "webhook-secret", volumes["config"] / "control-token"]
    for file in secrets_of_theirs:
        file.write_text("s" * 32)
    prepare(image, volumes)
    token = (volumes["token"] / "token").read_text()
    assert len(token) == 64
    prepare(image, volumes)
    assert (volumes["token"] / "token").read_text() == token
    for source in [ROOT / "lua/mod_muc_webhook.lua", *(ROOT / "lua/muc_webhook").glob("*.lua")]:
        assert (volumes["plugins"] / source.relative_to(ROOT / "lua")).read_bytes() == source.read_bytes()
    for file in (volumes["token"] / "token", *secrets_of_theirs):
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (1000, 0o600)


def test_the_preparation_keeps_a_foreign_module_of_the_same_name(image: Image, volumes: dict[str, Path]) -> None:
    (volumes["plugins"] / "mod_muc_webhook.lua").write_text("-- another's")
    prepare(image, volumes)
    assert (volumes["plugins"] / "mod_muc_webhook.lua.before-prosody-sidecar").read_text() == "-- another's"


def test_what_the_operator_has_in_these_variables_stays() -> None:
    theirs = {"XMPP_MUC_MODULES": "muc_census", "XMPP_MUC_CONFIGURATION": "a = 1,b = { 2; 3 }"}
    merged = variables("prosody", theirs)
    assert merged["XMPP_MUC_MODULES"] == "muc_webhook,muc_census"
    assert written_out(merged["XMPP_MUC_CONFIGURATION"]).endswith("a = 1\n    b = { 2; 3 }")


def test_no_option_of_the_overlay_has_a_comma() -> None:
    pieces = variables("prosody", {})["XMPP_MUC_CONFIGURATION"].split(",")
    assert all(re.fullmatch(r'\w+ = (FileLine )?("[^"]*"|true)', each) for each in pieces), pieces


def test_the_overlay_needs_nothing_but_the_address_of_the_backend() -> None:
    text = OVERLAY.read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {"PROSODY_SIDECAR_BACKEND__URL"}


async def test_joins_through_docker_jitsi_meets_prosody_are_allowed_and_denied(
    image: Image, volumes: dict[str, Path]
) -> None:
    await asyncio.to_thread(prepare, image, volumes)
    ports = free_ports(2)
    inside = "/" + str(volumes["token"].relative_to(CHROOT))
    async with Backend() as backend:
        for name, answer in (("open", allow()), ("closed", deny("cancelled"))):
            backend.on("validate-access", answer, room=name)
        given = variables("prosody-sidecar", {"PROSODY_SIDECAR_BACKEND__URL": backend.url})
        given |= {"PROSODY_SIDECAR_LISTEN__PORT": str(ports[0]), "PROSODY_SIDECAR_ADMIN__PORT": str(ports[1])}
        mounts = {volumes["token"]: f"{TOKEN_IN}:ro", volumes["state"]: "/var/lib/prosody-sidecar"}
        with image.running(volumes=mounts, environment=given) as sidecar:
            await asyncio.to_thread(sidecar.becomes_ready)
            merged = variables("prosody", {})
            lines = written_out(merged["XMPP_MUC_CONFIGURATION"])
            lines = lines.replace("prosody-sidecar:8788", f"127.0.0.1:{ports[0]}").replace(TOKEN_IN, inside)
            modules = merged["XMPP_MUC_MODULES"].split(",")
            async with (
                Prosody.start(version="13.0", muc_modules=modules, extra=f"    {lines}\n") as prosody,
                Client.connect(prosody) as ann,
            ):
                assert (await ann.join("open", nick="ann")).joined
                refused = await ann.join("closed", nick="ann")
                assert not refused.joined
                assert refused.error is not None
                assert refused.error.text == "cancelled"
                # The command uses the socket in the state, and the link, which has the token.
                ordered = await asyncio.to_thread(sidecar.do, "prosody-sidecar", "end", "open")
                assert (ordered.code, ordered.out) == (0, "ended: yes\n")
