"""What the commands print, on an output that may be closed (`| head`) or full (`> /dev/full`)."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from sidecar.cli.unwritten import discard, unwritable
from sidecar.errors import SidecarError


class Output(Console):
    """Without colours where there is no terminal, or with NO_COLOR.

    Who closes a pipe has read enough: the rest is not printed, and the exit code is the same as without a pipe.
    """

    def __init__(self, **options: Any) -> None:
        """Colours only where rich would have them by default: no marks for numbers and names."""
        super().__init__(highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        discard()

    def print(self, *objects: Any, **options: Any) -> None:
        """Raises SidecarError if the output cannot be written."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            discard()
            raise SidecarError(unwritable(error)) from None
