"""Durations as people read them."""

from __future__ import annotations


def span(seconds: float, decimals: int = 0) -> str:
    """A duration in words, such as `2.5 h`; `decimals` are those of seconds."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.{decimals}f} s"
