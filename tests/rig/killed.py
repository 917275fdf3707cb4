"""`python -m tests.rig.killed run …` is `python -m sidecar run …` that kills itself at one exact point.

KILL_AT names the point, KILL_NTH which passing of it (from 1):

    accepted    an event is committed, and its 202 has not been sent
    delivered   the backend has taken an event, and that has not been marked
    denied      a deny is on disk, and has not been answered
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.backend.client import Backend
from sidecar.cli.commands import main
from sidecar.decisions.write_behind import WriteBehind
from sidecar.store.events import Events

_left = int(os.environ.get("KILL_NTH", "1"))


def _pass_by() -> None:
    global _left  # noqa: PLW0603
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _after(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def killed(*args: Any, **kwargs: Any) -> Any:
        result = await method(*args, **kwargs)
        _pass_by()
        return result

    return killed


def _place(point: str) -> None:
    match point:
        case "accepted":
            Events.add = _after(Events.add)  # type: ignore[method-assign]
        case "delivered":
            Backend.deliver = _after(Backend.deliver)  # type: ignore[method-assign]
        case "denied":
            WriteBehind.persist = _after(WriteBehind.persist)  # type: ignore[method-assign]
        case _:
            raise SystemExit(f"KILL_AT={point} is no point")


if __name__ == "__main__":
    _place(os.environ["KILL_AT"])
    main()
