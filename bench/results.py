"""results.json: the last run of each part, with all its samples. A run of a part replaces all of the run before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sample import Failure, Measured, Sample


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a part has measured. The loads are averages of one minute, in processes."""

    when: str
    machine: Mapping[str, str]
    rounds: int
    load_before: float
    load_after: float
    measured: tuple[Measured, ...]

    @property
    def samples(self) -> list[Sample]:
        """The figures."""
        return [each for each in self.measured if isinstance(each, Sample)]

    @property
    def failures(self) -> list[Failure]:
        """What could not be measured."""
        return [each for each in self.measured if isinstance(each, Failure)]


def read(file: Path, parts: Iterable[str]) -> dict[str, Run]:
    """The runs of these parts that are in the file; those of other parts, which no longer exist, are left out."""
    found = json.loads(file.read_text()).get("parts", {}) if file.exists() else {}
    return {name: _run(found[name]) for name in parts if name in found}


def write(file: Path, runs: Mapping[str, Run]) -> None:
    """One line for each sample, so that a difference between two files can be read."""
    file.write_text('{"parts": {\n' + ",\n".join(_part(name, run) for name, run in runs.items()) + "\n}}\n")


def _part(name: str, run: Run) -> str:
    about = {
        "when": run.when,
        "machine": run.machine,
        "rounds": run.rounds,
        "load": [run.load_before, run.load_after],
    }
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in run.measured)
    return f'{json.dumps(name)}: {{"about": {json.dumps(about, ensure_ascii=False)},\n"measured": [\n{lines}\n]}}'


def _run(found: Mapping[str, Any]) -> Run:
    about, measured = found["about"], found["measured"]
    before, after = about["load"]
    kinds = {len(Sample._fields): Sample, len(Failure._fields): Failure}
    return Run(
        about["when"],
        about["machine"],
        about["rounds"],
        before,
        after,
        tuple(kinds[len(each)](*each) for each in measured),
    )
