"""config/*.yaml are what they say: loadable, and sidecar.yaml names every setting with its default."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config import Settings, load

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = {"backend.url", "backend.secret_file"}
ALTERNATIVES = {"backend.secret_env"}


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


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_a_shipped_config_loads(file: Path) -> None:
    load(file)


def test_sidecar_yaml_states_every_setting() -> None:
    stated = leaves(yaml.safe_load((CONFIG / "sidecar.yaml").read_text()))
    assert set(stated) == set(defaults()) - ALTERNATIVES


def test_sidecar_yaml_states_the_true_defaults() -> None:
    stated = leaves(yaml.safe_load((CONFIG / "sidecar.yaml").read_text()))
    default = defaults()
    wrong = {name: value for name, value in stated.items() if default[name] != value and name not in EXAMPLES}
    assert not wrong


def test_readme_names_every_section_of_settings() -> None:
    table = (CONFIG.parent / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}" not in table] == []
