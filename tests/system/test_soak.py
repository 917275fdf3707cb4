"""A short run of `make soak`: each thing goes wrong at least once, and no answer and no event is wrong."""

from pathlib import Path

from tests.soak.run import soak


async def test_nothing_that_goes_wrong_at_random_bends_a_decision_or_loses_an_event(tmp_path: Path) -> None:
    result = await soak(20.0, 7, tmp_path)
    assert result.problems == []
    counts = result.model.counts
    happened = ("kills", "restarts", "reloads applied", "reloads refused", "clock steps", "full disks")
    assert all(counts[name] for name in (*happened, "failures of the backend")), counts
    assert counts["invited, while the backend was well"] > 0, counts
    assert sum(result.model.accepted.values()) > 0
