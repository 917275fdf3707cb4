"""Writes config/sidecar.schema.json and docs/configuration.md; `--check` only says whether they are current.

Types, defaults and bounds come from the models (sidecar/config/models.py). Meanings and reasons come from the comments
in config/sidecar.yaml. So nothing is written twice. A test runs this with `--check`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from sidecar.config.models import Settings  # noqa: E402

SCHEMA = ROOT / "config" / "sidecar.schema.json"
DOCUMENT = ROOT / "docs" / "configuration.md"
EXAMPLE = re.compile(r"EXAMPLE, in comments:$", re.M)

INTRODUCTION = """# Configuration

<!-- Made by tools/reference.py from sidecar/config/models.py and the comments in config/sidecar.yaml; edit those. -->

One YAML file, `/etc/prosody-sidecar/sidecar.yaml` unless `--config` names another.
[minimal.yaml](../config/minimal.yaml) has the settings that you must set.
[sidecar.yaml](../config/sidecar.yaml) has all settings.
[high-availability.yaml](../config/high-availability.yaml) uses cached answers earlier and longer.

`prosody-sidecar check` shows everything in a file that is wrong or not advisable, with line and column. An editor with
JSON Schema support completes and checks the file while you type: the first line of each file names
[sidecar.schema.json](../config/sidecar.schema.json). All durations are seconds. An unknown setting is an error.

Every setting can also be an environment variable, which replaces what the file says: `backend.url` is
`PROSODY_SIDECAR_BACKEND__URL`. [In docker-jitsi-meet](docker-jitsi-meet.md#settings) has the rules.

`systemctl reload prosody-sidecar` applies a changed file. It loses no request and no cached answer. If anything in the
file is wrong, all of the old settings stay, and the log and `status` say why. The addresses in `listen`, `admin`
and `control`, `state_dir`, `cache` and `outbox` need a restart; the reload says so.
"""


def comments() -> dict[str, str]:
    """Dotted setting -> the comment above it in sidecar.yaml."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    block: list[str] = []
    for line in (ROOT / "config" / "sidecar.yaml").read_text().splitlines():
        if comment := re.fullmatch(r"\s*# ?(.*)", line):
            block.append(comment[1])
        elif key := re.match(r"( *)([\w-]+):", line):
            path = [(indent, name) for indent, name in path if indent < len(key[1])]
            path.append((len(key[1]), key[2]))
            if block:
                found[".".join(name for _, name in path)] = "\n".join(block).removeprefix("EXAMPLE. ")
            block = []
        else:
            block = []
    return found


def schema() -> dict[str, Any]:
    """The JSON Schema of the config file, described by its comments."""
    document = Settings.model_json_schema(by_alias=True)
    document["title"] = "prosody-sidecar"
    document.pop("description", None)
    said = comments()
    _describe(document, document, said, "")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _describe(node: dict[str, Any], document: dict[str, Any], said: dict[str, str], path: str) -> None:
    for name, child in node.get("properties", {}).items():
        child.pop("title", None)
        dotted = f"{path}.{name}" if path else name
        if dotted in said:
            child["description"] = _prose(said[dotted])
        section = section_of(child, document)
        if section is not None:
            section.pop("title", None)
            _describe(section, document, said, dotted)


def section_of(child: dict[str, Any], document: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a section, if this setting is one."""
    reference = child.get("$ref") or child.get("items", {}).get("$ref")
    section: dict[str, Any] | None = document["$defs"].get(reference.rpartition("/")[2]) if reference else None
    return section


def _prose(comment: str) -> str:
    return " ".join(EXAMPLE.split(comment)[0].split())


def document() -> str:
    """docs/configuration.md."""
    whole, said = schema(), comments()
    return "\n".join((INTRODUCTION, *_sections(whole, whole, said, "")))


def _sections(node: dict[str, Any], whole: dict[str, Any], said: dict[str, str], path: str) -> Iterator[str]:
    rows: list[str] = []
    inner: list[str] = []
    for name, child in node["properties"].items():
        dotted = f"{path}.{name}" if path else name
        section = section_of(child, whole)
        if section is not None and child.get("type") != "array":
            inner += ["", f"{'##' if not path else '###'} {dotted}", "", _prose(said.get(dotted, "")), ""]
            inner += list(_sections(section, whole, said, dotted))
        elif not path:
            inner += [
                "",
                f"## {dotted}",
                "",
                f"{_prose(said[dotted])} Takes: {takes(child)}.",
                *_example(said[dotted]),
            ]
        else:
            default = "" if name in node.get("required", []) else f"`{json.dumps(child.get('default'))}`"
            rows.append(f"| `{name}` | {default} | {takes(child)} | {_prose(said.get(dotted, ''))} |")
    if rows:
        yield from ("| setting | default | takes | meaning |", "|---|---|---|---|", *rows)
    yield from inner


def takes(child: dict[str, Any]) -> str:
    """In words, which values a setting may have."""
    if "anyOf" in child:
        return " or ".join(takes(each) for each in child["anyOf"])
    if "enum" in child:
        return " or ".join(f"`{value}`" for value in child["enum"])
    words = {"number": "number", "integer": "whole number", "boolean": "`true` or `false`", "null": "`null`"}
    text = words.get(child.get("type", ""), {"array": "list", "object": "section"}.get(child.get("type", ""), "text"))
    bounds = {"minimum": "from {:g}", "exclusiveMinimum": "above {:g}", "maximum": "to {:,g}"}
    said = [words.format(child[name]) for name, words in bounds.items() if name in child]
    return " ".join((text, *(each.replace("3.1536e+07", "a year").replace("1e+07", "10,000,000") for each in said)))


def _example(comment: str) -> Iterator[str]:
    parts = EXAMPLE.split(comment)
    if len(parts) > 1:
        yield from ("", "```yaml", parts[1].strip("\n"), "```")


def write_or_name(texts: dict[Path, str], program: str) -> int:
    """Write the files that are not current; with `--check`, name them and return 1."""
    stale = [file for file, text in texts.items() if not file.exists() or file.read_text() != text]
    for file in stale:
        if "--check" in sys.argv[1:]:
            sys.stderr.write(f"{file.relative_to(ROOT)} is not current; run: python {program}\n")
        else:
            file.write_text(texts[file])
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    made = {SCHEMA: json.dumps(schema(), indent=2) + "\n", DOCUMENT: document() + "\n"}
    sys.exit(write_or_name(made, "tools/reference.py"))
