"""What `check --online` says of an engine that cannot be used."""

from __future__ import annotations

from pathlib import Path

from sidecar.cli.engine_probe import look_at_engine
from sidecar.config.models import Shared


async def test_a_name_that_no_host_can_have_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0" * 64)
    shared = Shared(url="redis://engine..example.com:6379", key_file=tmp_path / "key")
    [step] = await look_at_engine(shared, {}, lambda number: "00" * number)
    assert step.state == "failed"
    assert "check the name in shared.url" in step.advice
