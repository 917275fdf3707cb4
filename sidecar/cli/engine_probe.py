"""`check --online` and `doctor`: tests the engine that several sidecars share.

reachable, password -> version -> role -> rights -> replicas -> eviction -> persistence -> latency
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from sidecar.cli.probe import Step
from sidecar.config.credentials import read_token
from sidecar.config.models import Shared
from sidecar.core.contact import PATIENCE
from sidecar.core.engine_facts import judge
from sidecar.daemon.shared import open_engine
from sidecar.errors import EngineError, StartError

NAME = "engine"


async def look_at_engine(shared: Shared, environ: Mapping[str, str], new_text: Callable[[int], str]) -> list[Step]:
    """Each finding is a step; no step if no engine is used. `new_text(n)` gives n random bytes in hex."""
    if shared.url is None:
        return []
    try:
        password = read_token("shared-password", shared.password_file, environ)
        engine = open_engine(shared, password, new_text)
    except StartError as error:
        return [Step(NAME, "failed", str(error), "run it with sudo, or correct shared.password_file")]
    try:
        facts = await engine.examine()
    except EngineError as error:
        return [_away(shared.url, str(error))]
    finally:
        await engine.close()
    user = urlsplit(shared.url).username or "default"
    return [Step(NAME, *finding) for finding in judge(facts, user, shared.namespace, PATIENCE)]


def _away(url: str, why: str) -> Step:
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or 6379}"
    if "Authentication" in why or "WRONGPASS" in why or "NOAUTH" in why:
        advice = "the user is in shared.url, the password in shared.password_file: compare them with the ACL there"
    elif "certificate" in why.lower() or "ssl" in why.lower():
        advice = "name the CA of the engine in shared.ca_file, or write redis:// in shared.url if it has no TLS"
    else:
        advice = "check that the engine runs, that this is its port, and that no firewall drops the connection"
    return Step(NAME, "failed", f"{where} cannot be used: {why}", advice)
