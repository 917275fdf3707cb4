"""A part of the failures of docs/failures.md, on a booted Debian 12 and 13. `make failures` produces all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import Debian, Machine
from tests.failures.booted import boot, run
from tests.failures.booted_rows import ON_THE_PAGE
from tests.failures.table import Failure

SOME = [it for it in ON_THE_PAGE if it.always]


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    with boot(debian, packages[debian], tmp_path_factory.mktemp("failures") / "shared") as booted:
        yield booted


@pytest.mark.parametrize("it", SOME, ids=lambda it: it.name)
def test_a_failure_is_said_and_the_cure_works(machine: Machine, it: Failure) -> None:
    run(it, machine)
