"""`make test`: whole systems, real Prosodys and real browsers side by side, since all mostly wait.

    python -m tests                              everything
    python -m tests tests/unit -k cancelled -x   a part, with pytest's options

What failed gets one more try, alone and loudly.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

SIDE_BY_SIDE = (("tests/unit", "tests/system"), ("tests/prosody",), ("tests/browser", "tests/shards"))
FAILED, NOTHING_FOUND = 1, 5
"""Exit codes of pytest."""

SECOND_TRY = """
!!! UNSTABLE OR BROKEN: the tests named above get one more try, alone. One that passes now depends on time:
!!! a busy machine, or a race of ours. Look at it all the same.
"""


def begin(number: int, paths: tuple[str, ...], options: list[str], out: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """One pytest; each has its own memory of what failed."""
    memory = f"cache_dir=.cache/pytest-{number}"
    return subprocess.Popen([sys.executable, "-m", "pytest", "-o", memory, *paths, *options], stdout=out, stderr=out)


def main(arguments: list[str]) -> int:
    """0 if everything passed, if need be at the second try; else pytest's code."""
    paths = tuple(each for each in arguments if "/" in each and Path(each.partition("::")[0]).exists())
    options = [each for each in arguments if each not in paths]
    groups = (paths,) if paths else SIDE_BY_SIDE
    with ExitStack() as stack:
        asides = [stack.enter_context(tempfile.TemporaryFile()) for _ in groups[1:]]
        outputs = [None, *asides]
        running = [
            begin(n, group, options, aside) for n, (group, aside) in enumerate(zip(groups, outputs, strict=True))
        ]
        codes = [each.wait() for each in running]
        for aside in asides:
            aside.seek(0)
            sys.stdout.buffer.write(aside.read())
        sys.stdout.flush()
    for number, code in enumerate(codes):
        if code == FAILED:
            print(SECOND_TRY, flush=True)
            again = ["--last-failed", "--last-failed-no-failures", "none", "-v"]
            codes[number] = begin(number, groups[number], again, None).wait()
    found = [code for code in codes if code != NOTHING_FOUND]
    return max(found, default=NOTHING_FOUND)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
