"""config/*.yaml are what they say: loadable, and sidecar.yaml names every setting with its default."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.loader import load
from sidecar.config.models import Settings

CONFIG = Path(__file__).parents[3] / "config"
ALERTS = CONFIG / "prometheus-alerts.yaml"
CONFIGS = sorted(set(CONFIG.glob("*.yaml")) - {ALERTS})
EXAMPLES = {"backend.url", "backend.secret_file"}


def leaves(section: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything that is no section."""
    if not isinstance(section, dict) or not section:
        return {path: section}
    return {
        dotted: value
        for name, inner in section.items()
        for dotted, value in leaves(inner, f"{path}.{name}" if path else name).items()
    }


def defaults() -> dict[str, Any]:
    settings = Settings.model_validate({"backend": {"url": "https://api.example.com/webhooks/jitsi"}})
    return leaves(settings.model_dump(mode="json", by_alias=True))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_shipped_config_loads(file: Path) -> None:
    load(file)


def test_sidecar_yaml_states_every_setting() -> None:
    stated = leaves(yaml.safe_load((CONFIG / "sidecar.yaml").read_text()))
    assert set(stated) == set(defaults())


def test_sidecar_yaml_states_the_true_defaults() -> None:
    stated = leaves(yaml.safe_load((CONFIG / "sidecar.yaml").read_text()))
    default = defaults()
    wrong = {name: value for name, value in stated.items() if default[name] != value and name not in EXAMPLES}
    assert not wrong


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_shipped_config_tells_editors_its_schema(file: Path) -> None:
    line = file.read_text().splitlines()[0]
    assert line == "# yaml-language-server: $schema=sidecar.schema.json"


def test_schema_and_reference_are_current() -> None:
    done = subprocess.run([sys.executable, "tools/reference.py", "--check"], cwd=CONFIG.parent, check=False)
    assert done.returncode == 0


def test_readme_names_every_section_of_settings() -> None:
    table = (CONFIG.parent / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}" not in table] == []
