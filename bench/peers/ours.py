"""The sidecar, as `prosody-sidecar run` starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from bench.backend import PREFIX, SECRET
from bench.installed import python
from bench.peers.place import Place, Server, serving
from bench.sample import WentWrong
from tests.rig.ports import free_port
from tests.rig.sidecar import merged


@dataclass(frozen=True, slots=True)
class Ours:
    """A sidecar with these settings in addition to the defaults."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(self, place: Place) -> AsyncIterator[Server]:
        """Run it."""
        file = write_config(place, self.settings)
        async with serving(place, "sidecar", python(), "-P", "-m", "sidecar", "run", "--config", file) as server:
            yield server
            if "Traceback" in (said := server.programs[0].last_words()):
                raise WentWrong(said)


def write_config(place: Place, settings: Mapping[str, Any]) -> str:
    """The path of its config."""
    lifetimes = {"fresh": place.fresh, "stale_while_revalidate": 0, "stale_if_error": place.stale}
    secret = place.folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    base = {
        "listen": {"port": place.port},
        "admin": {"port": free_port()},
        "state_dir": str(place.folder / "state"),
        "backend": {"url": f"http://127.0.0.1:{place.backend_port}{PREFIX}", "secret_file": str(secret)},
        "endpoints": {
            "validate-access": {"allow": lifetimes, "deny": lifetimes},
            "room-created": lifetimes,
        },
    }
    file = place.folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(merged(base, settings)))
    return str(file)
