"""A reload in which any line fails changes nothing, or is complete; systemd hears of its end in both cases.

The lines are found by tracing a reload, and then each of them raises once.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import sidecar
from sidecar.config.loader import load
from sidecar.daemon.build import Parts
from sidecar.daemon.current import read_secrets
from sidecar.daemon.lifecycle import Daemon
from tests.unit.daemon.builders import a_sidecar, at_once, in_this_thread
from tests.unit.daemon.in_force import in_words, state_of

OLD = """
state_dir: null
backend: {{url: 'http://127.0.0.1:1/old', secret_file: {folder}/secret}}
log: {{level: error}}
"""
NEW = """
state_dir: null
backend: {{url: 'http://127.0.0.1:1/new', secret_file: {folder}/secret, max_in_flight: 7}}
listen: {{token_file: {folder}/secret}}
admin: {{token_file: {folder}/secret}}
breaker: {{open_for: 9}}
cache: {{allows: 5}}
rooms:
- {{match: 'Lecture-*', validate-access: {{on_unavailable: allow}}}}
default_room_config: {{lobbyEnabled: true}}
log: {{level: info, format: console}}
"""
ROOT = Path(sidecar.__file__).parent
ONLY_ENTRIES = re.compile(r"config/(plain_yaml|messages|lint|room_names|room_patterns|loader)\.py|telemetry/")
"""Here the first line of each function is enough: these files only return values, or observe."""


class Injected(Exception):
    """What no line expects."""


class Reloading:
    """A daemon that serves, as far as a reload can see, with its file and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "sidecar.yaml"
        (folder / "secret").write_text("a-secret-of-enough-length")
        (folder / "secret").chmod(0o600)
        self.file.write_text(OLD.format(folder=folder))
        self.output = io.StringIO()
        self.told: list[str] = []
        settings = load(self.file)
        self.parts = a_sidecar(
            self.file.read_text(), read_secrets(settings, {}), self.file, output=self.output, notify=self.told.append
        )
        self.parts.health.serving = True
        self.daemon = Daemon(self.parts, {}, {}, self.told.append, in_thread=in_this_thread)
        self.file.write_text(NEW.format(folder=folder))

    def reload(self) -> None:
        at_once(self.daemon.reload_now())

    def refused(self) -> float:
        """What the metric says."""
        text = self.metrics()
        found = re.search(r'reloads_total\{result="refused"\} (\S+)', text)
        return float(found[1]) if found else 0.0

    def metrics(self) -> str:
        return next(each for each in observers(self.parts) if hasattr(each, "expose")).expose().decode()  # type: ignore[no-any-return]


def observers(parts: Parts) -> list[Any]:
    """The parts that hear each fact; `emit` holds them."""
    (cell,) = (each for each in parts.emit.__closure__ or () if isinstance(each.cell_contents, tuple))
    return [observe.__self__ for observe in cell.cell_contents]


def lines_run(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(str(ROOT))


def run_traced(reload: Callable[[], None], visit: Callable[[str, int], None]) -> None:
    """Reload, and visit each line of the program before it runs."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            visit(frame.f_code.co_filename, frame.f_lineno)
        return local

    def entry(frame: FrameType, event: str, _: Any) -> Any:
        if not lines_run(frame):
            return None
        if ONLY_ENTRIES.search(frame.f_code.co_filename):
            visit(frame.f_code.co_filename, frame.f_lineno)
            return None
        return local

    before = sys.gettrace()
    sys.settrace(entry)
    try:
        reload()
    finally:
        sys.settrace(before)


def places_in_a_reload(folder: Path) -> list[tuple[str, int]]:
    """The lines of a reload, in their order, without those before it begins and the one that ends it."""
    seen: dict[tuple[str, int], None] = {}
    reloading = Reloading(folder)
    run_traced(reloading.reload, lambda file, line: seen.setdefault((file, line)))
    source, first = inspect.getsourcelines(Daemon.reload_now)
    begin, end = (first + next(n for n, line in enumerate(source) if word in line) for word in ("try:", "except"))
    file = inspect.getfile(Daemon)
    return [place for place in seen if place[0] != file or begin < place[1] < end]


def reload_failing_at(reloading: Reloading, place: tuple[str, int], error: type[Exception]) -> None:
    left = [place]

    def visit(*here: str | int) -> None:
        if left and here == left[0]:
            left.clear()
            raise error("injected")

    run_traced(reloading.reload, visit)
    assert not left


async def test_a_reload_is_whole_or_has_not_been_whichever_line_of_it_fails(tmp_path: Path) -> None:
    good = Reloading(tmp_path)
    old_words = in_words(good.parts)
    good.reload()
    new_words = in_words(good.parts)
    assert old_words != new_words
    places = places_in_a_reload(tmp_path)
    kept = whole = 0
    for place in places:
        reloading = Reloading(tmp_path)
        before = dict(state_of(reloading.parts))
        reload_failing_at(reloading, place, Injected)
        where = f"{Path(place[0]).relative_to(ROOT)}:{place[1]}"
        assert reloading.told[-1] == "READY=1", where
        if in_words(reloading.parts) == new_words:
            whole += 1
            assert reloading.refused() == 0, where
            continue
        kept += 1
        assert in_words(reloading.parts) == old_words, where
        assert dict(state_of(reloading.parts)) == before, where
        if not where.startswith(("telemetry/", "facts.py")):
            events = [json.loads(line)["event"] for line in reloading.output.getvalue().splitlines()]
            assert any(each.startswith(("reload refused", "defect in reload")) for each in events), where
    assert (kept > 100, whole > 10) == (True, True), f"{kept} of {len(places)} kept the old settings"


async def test_what_cannot_be_put_back_does_not_keep_the_rest_from_it(tmp_path: Path) -> None:
    reloading = Reloading(tmp_path)
    old_words = in_words(reloading.parts)
    first, second = reloading.parts.guards.values()
    second.configure = lambda *_: 1 / 0  # type: ignore[assignment, method-assign]
    reloading.reload()
    assert in_words(reloading.parts) == old_words
    assert first.breaker.rules == second.breaker.rules
    assert reloading.refused() == 1
    assert reloading.told[-1] == "READY=1"


@pytest.mark.parametrize(
    "text", [NEW, "backend: {{url: nonsense}}", "[", "backend: {{url: 'http://a', secret_file: /none}}"]
)
async def test_systemd_hears_when_a_reload_began_and_that_it_is_over(tmp_path: Path, text: str) -> None:
    reloading = Reloading(tmp_path)
    reloading.file.write_text(text.format(folder=tmp_path))
    earliest = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading.reload()
    latest = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    begun, over = reloading.told
    assert over == "READY=1"
    first, _, second = begun.partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert earliest - 1 <= int(second) <= latest
    assert reloading.refused() == (0 if text == NEW else 1)


async def test_an_observer_that_fails_does_not_keep_the_others_from_hearing_of_it(tmp_path: Path) -> None:
    reloading = Reloading(tmp_path)
    reloading.file.write_text("[")
    reloading.output.close()
    reloading.reload()
    assert reloading.refused() == 1
    assert reloading.parts.health.reasons()[0].startswith("config: the last reload was refused: ")
