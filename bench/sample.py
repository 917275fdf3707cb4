"""One figure of one round, which every part of the benchmark gives to the report."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """`value` of `figure` (with its unit, such as "joins/s" or "p99 ms") for `who`, doing `case`, in part `part`.

    Samples that differ only in `round` and `value` are repeated measurements.
    """

    part: str
    case: str
    who: str
    figure: str
    value: float
    round: int
