"""Rooms with a policy of their own."""

from __future__ import annotations

from sidecar.core.model import Lifetimes, Source
from sidecar.core.policy import OnUnavailable
from tests.unit.builders import a_policy
from tests.unit.harness import (
    CONFIG_POLICY,
    Harness,
    broken,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_shorter_limits_hold_for_what_is_remembered_already() -> None:
    harness = Harness()
    await harness.asks()
    harness.decision = a_policy(allow=Lifetimes(1.0, 0.0, 0.0))
    await harness.passes(2)
    harness.backend.always(broken())
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_longer_limits_do_not_revive_what_was_stored_under_shorter_ones() -> None:
    harness = Harness(decision=a_policy(allow=Lifetimes(1.0, 0.0, 0.0)))
    await harness.asks()
    harness.decision = a_policy()
    await harness.passes(2)
    harness.backend.always(broken())
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_an_operators_default_settings_are_used_only_when_nothing_is_remembered() -> None:
    harness = Harness(
        config=a_policy(on_unavailable=OnUnavailable.DEFAULT, default_body=b"{}", allow=CONFIG_POLICY.allow)
    )
    await harness.asks_config()
    await harness.passes(100)
    harness.backend.always(broken())
    assert (await harness.asks_config()).source is Source.STALE
