"""The machine of several sidecars notices each check that is missing: its stories are told with one switched off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core import sealed
from sidecar.core.contact import Contact
from sidecar.core.fences import Standing
from tests.unit.decisions import test_shards_machine as machine
from tests.unit.decisions.engine_model import EngineModel


def without_gaps(patch: pytest.MonkeyPatch) -> None:
    """Numbers that are missing in the stream are not noticed."""
    patch.setattr(Contact, "_why_lost", lambda self, batch: "another" if batch.epoch != self.epoch else "")


def without_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Contact, "_set_back_ms", lambda *_: 0)


def without_epoch_of_the_stream(patch: pytest.MonkeyPatch) -> None:
    real = Contact._why_lost
    patch.setattr(Contact, "_why_lost", lambda it, batch: real(it, batch._replace(epoch=it.epoch or batch.epoch)))


def without_epoch_of_an_answer(patch: pytest.MonkeyPatch) -> None:
    real = sealed.usable

    def usable(kept: sealed.Kept, found: sealed.Found, now: float, *, in_touch: bool) -> Any:
        return real(kept._replace(epoch=found.epoch), found, now, in_touch=in_touch)

    patch.setattr(machine, "usable", usable)


def without_fences_at_a_write(patch: pytest.MonkeyPatch) -> None:
    real = EngineModel.keep

    def keep(self: EngineModel, name: str, scopes: Any, verdict: str, epoch: str, _: Any, *rest: Any) -> str:
        vector = tuple(self._fence(scope, "new") for scope in scopes)
        return real(self, name, scopes, verdict, epoch, vector, *rest)

    patch.setattr(EngineModel, "keep", keep)


def without_fences_at_a_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sealed, "standing", lambda *_: Standing.HOLDS)


def without_changes_of_the_last_day(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EngineModel, "changes", lambda _: [])


@pytest.mark.parametrize(
    "switch_off",
    [
        without_gaps,
        without_clock,
        without_epoch_of_the_stream,
        without_epoch_of_an_answer,
        without_fences_at_a_write,
        without_fences_at_a_read,
        without_changes_of_the_last_day,
    ],
)
def test_a_check_that_is_missing_is_noticed(
    monkeypatch: pytest.MonkeyPatch, switch_off: Callable[[pytest.MonkeyPatch], None]
) -> None:
    switch_off(monkeypatch)
    with pytest.raises(AssertionError, match=r"let in|used for longer|kept although"):
        machine.tell_all()
