"""A short run of `make crash`."""

from tests.crash import crash


async def test_a_sidecar_that_is_killed_comes_back_and_never_answers_wrongly() -> None:
    report = await crash(kills=3, seed=7)
    assert report.held, report
    assert report.right > 0
