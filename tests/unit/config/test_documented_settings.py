"""Each setting that a document shows or names is one of the sidecar, with a value that it takes."""

import re
import textwrap
from pathlib import Path

import pytest

from sidecar.config.loader import examine
from sidecar.config.models import Settings
from tests.unit.config.test_shipped_configs import defaults

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.M | re.S)
VARIABLE = re.compile(r"\bPROSODY_SIDECAR_([A-Z_]+)(?:=(\S+))?")
SECTIONS = "|".join(Settings.model_fields)
NAMED = re.compile(rf"`(?!outbox\.db|admin\.sock)((?:{SECTIONS})\.[a-z_.-]+[a-z_])(?:: [^`]*)?`")
OF_A_RULE = ("rooms.", "endpoints.")
"""Settings of these have names of endpoints or patterns in the middle; the shipped files have them all."""


def shown(file: Path) -> list[str]:
    """The blocks of YAML that are a part of a config of the sidecar."""
    blocks = [textwrap.dedent(text) for _, text in BLOCK.findall(file.read_text())]
    return [text for text in blocks if text.partition(":")[0] in Settings.model_fields]


WITH_CONFIG = [file for file in DOCUMENTS if shown(file)]


@pytest.mark.parametrize("file", WITH_CONFIG, ids=lambda file: file.name)
def test_the_config_that_a_document_shows_has_no_mistake(file: Path) -> None:
    parts = ["backend: {url: 'https://api.example.com/webhooks/jitsi'}", *shown(file)]
    assert examine("\n".join(parts), file.name).problem_lines() == []


def test_documents_show_configs() -> None:
    assert len(WITH_CONFIG) >= 2


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_a_document_names_no_setting_that_there_is_not(file: Path) -> None:
    known = {*defaults(), *(name.rpartition(".")[0] for name in defaults())}
    named = {name for name in NAMED.findall(file.read_text()) if not name.startswith(OF_A_RULE)}
    assert named - known == set()


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_a_document_names_no_variable_that_there_is_not(file: Path) -> None:
    found = {f"PROSODY_SIDECAR_{name}": value or "" for name, value in VARIABLE.findall(file.read_text())}
    unknown = [line for line in examine("backend: {url: 'http://127.0.0.1/x'}", "x", found).problem_lines()
               if "there is no such" in line]  # fmt: skip
    assert unknown == []
