"""A short run of `make soak-shards`: no answer is wrong, and all shards are in touch again after each fault."""

from tests.shards.soak import soak


async def test_no_failure_of_the_engine_at_random_bends_a_decision() -> None:
    result = await soak(40.0, 7, every=6.0)
    assert result.problems == []
    counts = result.model.counts
    happened = ("failures of the engine", "shards killed", "times without the backend", "invitations changed")
    assert all(counts[name] for name in happened), counts
    assert counts["allowed by memory"], counts
