"""Each kind of fact, with any values. `broadcast` skips an observer that fails, so nothing else would show it."""

from io import StringIO
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.facts import Emit, Fact
from sidecar.telemetry.health import Health
from sidecar.telemetry.logs import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent import Recent
from tests.unit.disk import FakeClock

st.register_type_strategy(BaseException, st.builds(ValueError, st.text()))


def observers() -> dict[str, Emit]:
    clock = FakeClock()
    return {
        "health": Health(clock).observe,
        "metrics": Metrics().observe,
        "recent": Recent(clock).observe,
        "log as JSON": Log("debug", "json", StringIO()).observe,
        "log on a console": Log("debug", "console", StringIO()).observe,
    }


@pytest.mark.parametrize("kind", get_args(Fact))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_each_observer_takes_each_fact(kind: type[Fact], data: st.DataObject) -> None:
    fact = data.draw(st.from_type(kind))
    for observe in observers().values():
        observe(fact)
