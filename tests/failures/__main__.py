"""Produces each failure on a booted Debian 12 and 13, and writes the table of docs/failures.md. Needs root.

python -m tests.failures             all of them
python -m tests.failures disk        only those with this in their name; prints them, and writes nothing
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.booted.build import build
from tests.booted.machine import DEBIANS, CannotBoot
from tests.failures.booted import boot, run
from tests.failures.booted_rows import ON_THE_PAGE
from tests.failures.table import row, write


def main(part: str) -> int:
    """1 if one of them is not said, or if its cure does not work."""
    chosen = [it for it in ON_THE_PAGE if part in it.name]
    rows, bad = [], 0
    with tempfile.TemporaryDirectory(prefix="failures-") as name, ExitStack() as stack:
        machines = [stack.enter_context(boot(debian, build(debian), Path(name) / debian.suite)) for debian in DEBIANS]
        for it in chosen:
            try:
                rows.append(row(it, [run(it, machine) for machine in machines]))
                line = rows[-1]
            except AssertionError as error:
                bad += 1
                line = f"FAILED: {it.name}: {error}"
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    if not part and not bad:
        write(rows)
    return bool(bad)


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:])))
    except CannotBoot as reason:
        sys.exit(str(reason))
