"""What the guard relies on in the module's files; reads them, and needs no Prosody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sidecar

LUA = Path(sidecar.__file__).parents[1] / "lua"
GUARD = LUA / "mod_muc_webhook.lua"
LIBRARIES = sorted((LUA / "muc_webhook").glob("*.lib.lua"))
FILES = [GUARD, *LIBRARIES]


def name_of(path: Path) -> str:
    return path.name.removesuffix(".lib.lua").removesuffix(".lua")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_all_files_are_of_the_sidecars_version(path: Path) -> None:
    versions = re.findall(r'\bversion = "(\d[^"]*)"', path.read_text())
    assert versions == [sidecar.__version__]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_file_begins_with_its_reason(path: Path) -> None:
    assert re.match(r"-- \S.*\.\n", path.read_text())


@pytest.mark.parametrize("path", LIBRARIES, ids=name_of)
def test_a_library_returns_its_table_at_its_end_and_nowhere_before(path: Path) -> None:
    *before, last = path.read_text().splitlines()
    assert re.fullmatch(r'return \{ version = "[^"]+"; .*\};', last)
    assert not [line for line in before if line.startswith("return")]


@pytest.mark.parametrize("path", LIBRARIES, ids=name_of)
def test_a_library_does_nothing_while_it_is_loaded(path: Path) -> None:
    """The guard runs libraries to see whether they are whole: at their left margin they only define."""
    calls = re.findall(r"^(?!local |function |return |for |end|--|\}|\]\])\S.*", path.read_text(), re.MULTILINE)
    assert [call for call in calls if not re.match(r"\w+_mt\.__index = ", call)] == []
    assert not re.search(r"^local \w+ = module:", path.read_text(), re.MULTILINE)


def test_the_guard_is_told_of_every_library() -> None:
    listed = re.search(r"local names = \{(.*?)\};", (LUA / "muc_webhook" / "start.lib.lua").read_text(), re.DOTALL)
    assert listed is not None
    assert sorted([*re.findall(r'"(\w+)"', listed[1]), "start"]) == [name_of(path) for path in LIBRARIES]
