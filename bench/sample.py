"""One figure of one round: what every part of the benchmark hands to the report."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """`value` of `figure` (with its unit, such as "joins/s" or "p99 ms") for `who`, doing `case`, in part `part`.

    Samples that differ in nothing but `round` and `value` are the same thing measured again.
    """

    part: str
    case: str
    who: str
    figure: str
    value: float
    round: int
