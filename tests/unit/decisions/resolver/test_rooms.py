"""Rooms with a policy of their own."""

from __future__ import annotations

from sidecar.core.model import Lifetimes, Source
from sidecar.core.policy import OnUnavailable
from tests.unit.harness import (
    CONFIG_RULES,
    Stage,
    broken,
    rules,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_shorter_limits_hold_for_what_is_remembered_already() -> None:
    stage = Stage()
    await stage.asks()
    stage.decision = rules(allow=Lifetimes(1.0, 0.0, 0.0))
    await stage.passes(2)
    stage.backend.always(broken())
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_longer_limits_do_not_revive_what_was_stored_under_shorter_ones() -> None:
    stage = Stage(decision=rules(allow=Lifetimes(1.0, 0.0, 0.0)))
    await stage.asks()
    stage.decision = rules()
    await stage.passes(2)
    stage.backend.always(broken())
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_operators_default_settings_are_used_only_when_nothing_is_remembered() -> None:
    stage = Stage(config=rules(on_unavailable=OnUnavailable.DEFAULT, default_body=b"{}", allow=CONFIG_RULES.allow))
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.always(broken())
    assert (await stage.asks_config()).source is Source.STALE
