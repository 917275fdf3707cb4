"""docs/compatibility.md has a row for each module that the load-time advice knows, in the same words."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
LUA = (ROOT / "lua" / "muc_webhook" / "neighbours.lib.lua").read_text(encoding="utf-8")
ENTRY = re.compile(r'\{ "(\w+)", ("[^"]*"(?:\s*\.\."[^"]*")*) \};')
ROW = re.compile(r"^\| `(\w+)` \| (?:Jitsi|jitsi-contrib) \| (.*) \|$", re.MULTILINE)


def advice() -> dict[str, str]:
    return {name: "".join(re.findall(r'"([^"]*)"', text)) for name, text in ENTRY.findall(LUA)}


def test_the_page_says_what_the_module_says() -> None:
    assert dict(ROW.findall(PAGE)) == advice()


def test_each_module_is_known_once() -> None:
    names = [name for name, _ in ENTRY.findall(LUA)]
    assert sorted(set(names)) == sorted(names)
    assert len(names) == LUA.count("\t{ "), "an entry is written in another way"


def test_a_row_in_other_words_is_noticed() -> None:
    changed = PAGE.replace("the setting moderated is not applied", "moderated is applied")
    assert dict(ROW.findall(changed)) != advice()
