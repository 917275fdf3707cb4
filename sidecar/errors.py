"""The errors that may end a command: each says what is wrong and what to do next, on one line."""

from __future__ import annotations


class SidecarError(Exception):
    """Base of all errors meant for people; the command prints it without a traceback and exits with `exit_code`."""

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


class OutboxFull(SidecarError):
    """The outbox holds as many events as it may; the caller keeps its event and comes again."""


class Unreachable(SidecarError):
    """No daemon answers on the admin listener."""

    exit_code = 3
