"""What a measurement gives to the report: a figure of one round, or the reason why there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple


class Sample(NamedTuple):
    """`value` of `figure` (with its unit, such as "joins/s" or "p99 ms") for `who`, doing `case`, in a table.

    Samples that differ only in `round` and `value` are repeated measurements.
    """

    table: str
    case: str
    who: str
    figure: str
    value: float
    round: int


class Failure(NamedTuple):
    """`who` could not be measured for a table, or gave wrong answers."""

    table: str
    who: str
    why: str


Measured = Sample | Failure


class WentWrong(Exception):
    """The measurement has no meaning: a program does not run, or its answers are wrong."""


FAILURES = (WentWrong, RuntimeError, AssertionError, OSError, TimeoutError)
"""How a program fails, and what the rig raises if one does not start."""


async def tried(table: str, who: str, samples: AsyncIterator[Sample]) -> AsyncIterator[Measured]:
    """All samples; only the failure if the program fails at any time, since its figures have no meaning then."""
    try:
        found: list[Measured] = [sample async for sample in samples]
    except FAILURES as error:
        found = [failure(table, who, error)]
    for each in found:
        yield each


def failure(table: str, who: str, error: BaseException) -> Failure:
    """In words."""
    return Failure(table, who, str(error) or type(error).__name__)
