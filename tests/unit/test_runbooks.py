"""Each alert has its page, each page its alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "runbooks"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "config" / "prometheus-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert {page.stem for page in PAGES.glob("*")} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_what_it_means_what_to_do_and_where_its_page_is(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(rule["annotations"]["summary"]) > 30
    assert rule["annotations"]["action"]
    assert rule["annotations"]["runbook_url"] == f"file:///usr/share/doc/prosody-sidecar/runbooks/{name}.md"


@pytest.mark.parametrize("name", RULES)
def test_a_page_has_meaning_impact_diagnosis_and_fix(name: str) -> None:
    title, *parts = re.split(r"^#+ (.+)\n", (PAGES / f"{name}.md").read_text(), flags=re.M)[1::2]
    assert title == name
    assert parts == ["Meaning", "Impact", "Diagnosis", "Fix"]
