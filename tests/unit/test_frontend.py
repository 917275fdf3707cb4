"""docs/frontend.md says what becomes of each setting in Jitsi's page. The script's own tests are in tests/frontend."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "frontend" / "room-config.js"
PAGE = ROOT / "docs" / "frontend.md"
ROW = re.compile(r"^\| `([a-z]\w+)` \|", re.M)


def test_the_page_says_of_each_setting_that_the_frontend_gets_what_becomes_of_it() -> None:
    library = (ROOT / "lua" / "muc_webhook" / "setting_types.lib.lua").read_text(encoding="utf-8")
    booleans = library.partition("for name in ([[")[2].partition("]]")[0].split()
    others = library.partition("local frontend_settings = {")[2].partition("};")[0]
    known = {*booleans, *re.findall(r"(\w+) = ", others)}
    assert known == set(ROW.findall(PAGE.read_text(encoding="utf-8")))


def test_each_setting_that_the_script_applies_is_in_the_table_of_what_is_applied() -> None:
    applied = PAGE.read_text(encoding="utf-8").partition("## What is applied")[2].partition("\n## ")[0]
    table = SCRIPT.read_text(encoding="utf-8").partition("const WHEN_FALSE = {")[2].partition("\n    };")[0]
    assert set(re.findall(r"^        (\w+): {", table, re.M)) - set(ROW.findall(applied)) == set()
