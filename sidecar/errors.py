"""The errors that may end a command. Each says on one line what is wrong and what to do."""

from __future__ import annotations


class SidecarError(Exception):
    """Base of all errors for operators; the command prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SidecarError):
    """The config file cannot be used; `problems` are complete lines, in the order of the file."""

    def __init__(self, problems: list[str]) -> None:
        """Keep the lines; the text is all of them."""
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(SidecarError):
    """The daemon cannot start: a port in use, a secret that cannot be read, a folder that cannot be written."""


class DiskError(SidecarError):
    """The state on disk cannot be read or written now."""


class EngineError(SidecarError):
    """The engine of the shared memory does not answer in time, or with an error."""


class EngineIncomplete(EngineError):
    """The engine may not know all shards that may have rooms."""


class OutboxFull(SidecarError):
    """The outbox is full; the caller keeps its event and sends it again later."""


class OrderRefused(SidecarError):
    """An order is not taken. `status` is the one of HTTP; `field` is what is wrong with it."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        """`detail` is a sentence for the sender."""
        super().__init__(detail)
        self.status = status
        self.field = field


class Unreachable(SidecarError):
    """No daemon answers at the address of the admin listener."""

    exit_code = 3
