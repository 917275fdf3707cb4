"""Writes docs/commands.md and config/commands.schema.json; `--check` only says whether they are current.

The commands come from click, the JSON documents from tools/command_documents.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click
from pydantic import TypeAdapter

from sidecar.cli.commands import EXIT_CODES, main
from tools.command_documents import COMMANDS
from tools.reference import ROOT, write_or_name

SCHEMA = ROOT / "config" / "commands.schema.json"
DOCUMENT = ROOT / "docs" / "commands.md"

INTRODUCTION = """# Commands

<!-- Made by tools/commands.py from sidecar/cli/commands.py and tools/command_documents.py; edit those. -->

`prosody-sidecar COMMAND --help` says the same. `man prosody-sidecar` has it too, and `man 5 prosody-sidecar` the
settings. The package and `make install` install the completion for bash, zsh and fish.

## Exit codes

| code | meaning |
|---|---|
"""

PRINTED = """
Without a terminal, or with `NO_COLOR=1`, the output has no colours. If its reader closes a pipe, as `head` does, a
command prints nothing more, and its exit code is the same as without the pipe. If the output cannot be written, such as
to a full disk, the exit code is 1.

## JSON

With `--json`, a command prints one JSON document. [commands.schema.json](../config/commands.schema.json) has the JSON
Schema of each; the examples in the package have it too. Later versions may add fields, but do not change the meaning of
a field. Errors are text on standard error, also with `--json`.

```sh
prosody-sidecar status --json | jq .reasons
```
"""


def leaves(context: click.Context) -> Iterator[click.Context]:
    """The commands that do something, in the order of their names."""
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        inner = group.get_command(context, name)
        if inner is not None:
            yield from leaves(click.Context(inner, info_name=name, parent=context))


def every_command() -> list[click.Context]:
    """All commands."""
    return list(leaves(click.Context(main, info_name="prosody-sidecar")))


def usage(context: click.Context) -> str:
    """The command line, as `explain [OPTIONS] ROOM [USER]`."""
    return " ".join((context.command_path, *context.command.collect_usage_pieces(context)))


def options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Each option as it is written, and what it does."""
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in record[0]:
            yield record


def schema() -> dict[str, Any]:
    """The JSON Schema of all documents: `#/$defs/Status` is that of `status --json`."""
    kinds = list(dict.fromkeys(kind for printed in COMMANDS.values() for kind in printed))
    whole: dict[str, Any] = {}
    for kind in kinds:
        found = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        whole.update(found.pop("$defs", {}))
        whole[found["title"]] = found
    for each in whole.values():
        each.pop("additionalProperties", None)  # later versions may add fields
        for child in each["properties"].values():
            child.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the commands of prosody-sidecar print with --json",
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": dict(sorted(whole.items())),
    }


def document() -> str:
    """docs/commands.md."""
    parts = [INTRODUCTION]
    parts += [f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items()]
    parts.append(PRINTED)
    for context in every_command():
        name = context.command_path.removeprefix("prosody-sidecar ")
        parts.append(f"\n## {name}\n\n```\n{usage(context)}\n```\n\n{context.command.help}\n")
        if name in COMMANDS:
            parts.append(f"\nJSON: {' or '.join(f'`{kind.__name__}`' for kind in COMMANDS[name])}.\n")
        rows = [f"| `{option}` | {text} |\n" for option, text in options(context)]
        parts += ["\n| option | meaning |\n|---|---|\n", *rows] if rows else []
    return "".join(parts)


if __name__ == "__main__":
    texts = {SCHEMA: json.dumps(schema(), indent=2) + "\n", DOCUMENT: document()}
    sys.exit(write_or_name(texts, "-m tools.commands"))
