"""What the documents name is there: files and folders, links, targets of make; and the hooks are `make lint`."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("bench", "config", "demo", "docs", "frontend", "lua", "packaging", "sidecar", "systemd", "tests", "tools")
BASES = (ROOT, ROOT / "sidecar", ROOT / "lua", ROOT / "lua" / "muc_webhook")
"""A document may name a file from here."""

CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?!\.|/)[\w.*/-]+(?:/|\.(?:py|lua|md|yaml|json|sh|mk|toml|cfg|html))")
MADE_OR_MEANT = {
    "CHANGELOG.md",
    "dist/",
    "meet.example.com.cfg.lua",
    "plugin.head.html",
    "prosody.cfg.lua",
    "sidecar.yaml",
}


def files_of_the_project() -> set[str]:
    """The names of all files, without their folders."""
    return {file.name for folder in FOLDERS for file in (ROOT / folder).rglob("*")} | {f.name for f in ROOT.iterdir()}


def is_there(name: str, known: set[str]) -> bool:
    return ("/" not in name and name in known) or any(list(base.glob(name)) for base in BASES)


def named(text: str) -> set[str]:
    return {name for name in CODE.findall(text) if PATH.fullmatch(name)} - MADE_OR_MEANT


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(file: Path) -> None:
    known = files_of_the_project()
    assert [name for name in sorted(named(file.read_text())) if not is_there(name, known)] == []


def test_a_path_that_is_gone_is_noticed() -> None:
    text = "`sidecar/helpers.py`, `helpers.py`, `web/helpers/`, `core/policy.py`, `policy.py`, `/etc/x.yaml`, `x/y`"
    known = files_of_the_project()
    gone = [name for name in sorted(named(text)) if not is_there(name, known)]
    assert gone == ["helpers.py", "sidecar/helpers.py", "web/helpers/"]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#\s]+)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_every_target_of_make_that_a_document_names_exists() -> None:
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / "packaging" / "packaging.mk").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefiles, re.M))
    text = "\n".join(file.read_text() for file in DOCUMENTS)
    assert set(re.findall(r"(?:`|^|sudo )make ([a-z-]+)", text, re.M)) - targets == set()


def test_the_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("$(PYTHON)", ".venv/bin/python")
    lint = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == re.findall(r"^\t@(?!tools/)(.+)$", lint, re.M)
