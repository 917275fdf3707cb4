"""Prints debian/changelog, made from CHANGELOG.md: changelog.py VERSION SECONDS MAINTAINER

VERSION: that of the package; SECONDS: since 1970, its date if its heading has none. An earlier version without a date
is left out, since Debian's format needs one.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path


def entries(text: str, version: str, now: datetime, maintainer: str) -> Iterator[str]:
    """One entry for each `## [VERSION] - DATE`, the newest first; the newest is that of the package."""
    for number, part in enumerate(re.split(r"^## ", text, flags=re.M)[1:]):
        heading, _, body = part.partition("\n")
        released = re.fullmatch(r"\[(.+?)\](?: - (\d{4}-\d\d-\d\d))?.*", heading)
        if released is None:
            sys.exit(f"CHANGELOG.md: expected `## [VERSION] - DATE`, not `## {heading}`")
        if number and not released[2]:
            continue
        date = datetime.fromisoformat(released[2]).replace(tzinfo=UTC) if released[2] else now
        yield f"prosody-sidecar ({released[1] if number else version}) unstable; urgency=medium\n"
        for line in body.splitlines():
            yield from lines(line)
        yield f"\n -- {maintainer}  {format_datetime(date)}\n\n"


def lines(line: str) -> Iterator[str]:
    """A heading, or an item with its marks of Markdown taken off."""
    if line.startswith("### "):
        yield f"\n  [ {line[4:]} ]\n"
    elif line.startswith("- "):
        text = line[2:].replace("`", "")
        yield textwrap.fill(text, 78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    when = datetime.fromtimestamp(int(sys.argv[2]), UTC)
    sys.stdout.write("".join(entries(Path("CHANGELOG.md").read_text(), sys.argv[1], when, sys.argv[3])))
