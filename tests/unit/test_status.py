"""What `status`, `status --watch` and the status page show."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import sidecar
from sidecar.cli.live_status import screen, spark
from sidecar.cli.render import overview
from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Asked, Reloaded, Resolved
from sidecar.telemetry.recent import SECONDS, Recent


class Now:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1_700_000_000.0 + self.at


def resolved(source: Source | None = Source.HIT, seconds: float = 0.001) -> Resolved:
    answer = None if source is None else Answer(200, b"{}", source)
    return Resolved("validate-access", 200, seconds, answer)


def a_status(**changed: Any) -> dict[str, Any]:
    clock = Now()
    recent = Recent(clock)
    for source in (Source.HIT, Source.HIT, Source.STALE, Source.BACKEND, Source.POLICY, None):
        recent.observe(resolved(source, 0.004))
    recent.observe(Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1))
    clock.at += 1
    return {
        "serving": True,
        "reasons": [],
        "notes": [],
        "version": "1.2.3",
        "uptime_seconds": 4000.0,
        "started_at": clock.wall(),
        "memory_bytes": 61_000_000,
        "loop_lag_seconds": 0.0012,
        "recent": recent.document(),
        "config": "/etc/prosody-sidecar/sidecar.yaml",
        "backend": "https://api.example.com/webhooks/jitsi",
        "modules": [{"host": "conference.example.com", "up_seconds": 7200}],
        "hosts": [
            {"host": "conference.example.com", "linked": True, "had_link": True, "silent_seconds": 0},
            {"host": "conference.example.net", "linked": False, "had_link": True, "silent_seconds": 600},
        ],
        "files_set_aside": ["outbox.db.corrupt-20231114T221320Z"],
        "endpoints": {"validate-access": {"breaker": "open", "calls_under_way": 2, "calls_waiting": 0}},
        "shared": {"in_touch": True, "members": 3, "replicas": 1, "behind": 0, "unsaid": 2},
        "cache": {"allow": 12345, "deny": 1, "config": 3},
        "outbox": {"pending": 7, "parked": 1, "oldest_seconds": 90},
        **changed,
    }


def seen(document: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"), highlight=False)  # noqa: SIM115
    with console.file:
        console.print(screen(document, width))
    return console.export_text()


def test_recent_counts_by_second_and_leaves_out_the_one_that_has_begun() -> None:
    clock = Now()
    recent = Recent(clock)
    recent.observe(resolved(seconds=0.002))
    recent.observe(resolved(Source.POLICY, seconds=0.010))
    assert sum(recent.document()["sources"]["memory"]) == 0
    clock.at += 1
    document = recent.document()
    assert document["sources"]["memory"][-1] == document["sources"]["policy"][-1] == 1
    assert (document["median_ms"][-1], document["slow_ms"][-1], document["median_ms"][0]) == (10.0, 10.0, None)
    clock.at += SECONDS
    assert sum(recent.document()["sources"]["memory"]) == 0


def test_recent_tells_the_last_reload() -> None:
    recent = Recent(Now())
    assert recent.document()["last_reload"] is None
    recent.observe(Reloaded(problems=("f.yaml:1:1: no",)))
    assert recent.document()["last_reload"] == {
        "at": 1_700_001_000.0,
        "problems": ["f.yaml:1:1: no"],
        "needs_restart": [],
    }


def test_a_graph_shows_whatever_is_above_nothing() -> None:
    assert spark([0, 1, 500, 1000]) == " ▁▄█"
    assert spark([0, 0]) == "  "
    assert spark([5, 5], top=10) == "▄▄"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_screen_fits_the_terminal(width: int) -> None:
    text = seen(a_status(), width)
    assert max(map(len, text.splitlines())) <= width
    for word in (
        "well",
        "breaker open",
        "12,345 allow",
        "in touch, 3 members; 0 messages behind, 2 unsaid",
        "conference.example.com is connected for 2.0 h",
        "conference.example.net has no link",
        "7 pending",
        "1 parked",
        "61 MB",
        "memory",
        "policy",
        "outbox.db.corrupt-2023",
    ):
        assert word in text


def test_a_memory_that_is_shared_is_shown_also_out_of_touch_and_none_where_there_is_none() -> None:
    shared = a_status()["shared"]
    assert "out of touch with the others; 2 unsaid" in seen(a_status(shared={**shared, "in_touch": False}))
    assert "in touch, 1 member;" in seen(a_status(shared={**shared, "members": 1}))
    assert "unsaid" not in seen(a_status(shared=None))


def test_the_reasons_come_first() -> None:
    text = seen(a_status(reasons=["backend: the last 3 calls failed"]))
    assert text.index("degraded") < text.index("the last 3 calls failed") < text.index("config")


def test_a_refused_reload_is_shown() -> None:
    document = a_status()
    document["recent"]["last_reload"] = {"at": 1_700_000_000.0, "problems": ["f:1:1: no"], "needs_restart": []}
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        console.print(overview(document))
    assert "refused; the old settings stay" in captured.get()


def test_a_new_secret_that_waits_for_a_restart_is_tested_first() -> None:
    document = a_status()
    last = {"at": 1_700_000_000.0, "problems": [], "needs_restart": ["webhook-secret"]}
    document["recent"]["last_reload"] = last
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        console.print(overview(document))
    assert "needs a restart; first run: sudo prosody-sidecar doctor, which tests the new secret" in captured.get()


def test_the_page_needs_nothing_from_anywhere_else() -> None:
    page = (Path(sidecar.__file__).parent / "web" / "status_page.html").read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[\w/.-]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never asked for
    assert not re.search(r"<(link|img|iframe)|@import|url\(|innerHTML", page)


def test_the_page_asks_only_for_what_the_status_has() -> None:
    page = (Path(sidecar.__file__).parent / "web" / "status_page.html").read_text()
    document = json.loads(json.dumps(a_status()))
    assert set(re.findall(r"\ball\.(\w+)", page)) <= set(document)
    assert set(re.findall(r"\brecent\.(\w+)", page)) <= set(document["recent"])
