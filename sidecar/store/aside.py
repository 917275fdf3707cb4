"""A file that cannot be used is renamed, with all that belongs to it; the new name says why and when."""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

COMPANIONS = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a file. Left behind, it would become a part of the next file of that name."""

KEPT = 5
"""Files moved aside that are kept for each name, so that they cannot fill the disk."""

DELETED = "deleted"
"""The kind of what is left of a file that somebody has deleted."""

_HEAD = 100
"""Bytes of the head of an SQLite file."""

_FILE_FORMAT = 2
"""The latest one that SQLite has: the write and the read version in bytes 18 and 19 of a file."""

Reason = tuple[str, str]
"""A word for the name of the file, and the reason in words."""


def what_is_wrong_with(path: Path) -> Reason | None:
    """Why a file must not be opened. None: it may be opened, or does not exist."""
    if path.exists() and not path.is_file():
        return "foreign", f"it is {_kind(path)}"
    if os.path.lexists(path) and not path.is_file():  # a link to nothing: perhaps a disk that is not mounted yet
        return None
    head = _head(path)
    if not head and any(_head(Path(f"{path}{log}")) for log in ("-wal", "-journal")):  # SQLite would delete them
        return ("empty", "it is empty, and its log is not") if path.exists() else (DELETED, "its log was left behind")
    if 0 < len(head) < _HEAD:
        return "corrupt", "it is too short to be a database"  # SQLite would write over it
    if head.startswith(b"SQLite format 3\0") and max(head[18:20], default=0) > _FILE_FORMAT:
        return "corrupt", "it is damaged, or of a later version of SQLite"
    return None


def set_aside(path: Path, kind: str, wall: float) -> Path:
    """Rename the file and its companions; returns the new name. Raises OSError."""
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = Path(f"{path}.{kind}-{stamp}")
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in COMPANIONS):
        aside = Path(f"{aside}+")
    for suffix in reversed(COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    _delete_oldest(path)
    return aside


def set_aside_strange_companions(path: Path, wall: float) -> list[Path]:
    """Rename what has the name of a log of SQLite, but is a folder or the like; returns the new names."""
    strange = [Path(f"{path}{suffix}") for suffix in COMPANIONS[1:]]
    return [set_aside(each, "foreign", wall) for each in strange if each.exists() and not each.is_file()]


def names(path: Path) -> list[str]:
    """The files that were moved aside for this one, the oldest first."""
    return [each.name for each in _all(path)]


def _all(path: Path) -> list[Path]:
    found = [each for each in path.parent.glob(f"{path.name}*.*-*Z*") if not each.name.endswith(COMPANIONS[1:])]
    return sorted(found, key=lambda each: each.lstat().st_mtime)


def _delete_oldest(path: Path) -> None:
    for old in _all(path)[:-KEPT]:
        for suffix in COMPANIONS:
            with contextlib.suppress(OSError):  # a folder, for example, stays
                os.unlink(f"{old}{suffix}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except (FileNotFoundError, PermissionError):
        return b""


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    return "a folder" if stat.S_ISDIR(mode) else "no file, but a device, a pipe or a socket"
