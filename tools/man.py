"""Writes the man pages, prosody-sidecar.1 and prosody-sidecar.5, into a folder: python -m tools.man FOLDER

The commands come from click, the settings from the models and the comments in config/sidecar.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sidecar import __version__
from sidecar.cli.commands import EXIT_CODES, main
from tools.commands import every_command, options, usage
from tools.reference import schema, section_of, takes

FILES = {
    "/etc/prosody-sidecar/sidecar.yaml": "The config, see prosody\\-sidecar(5).",
    "/etc/prosody-sidecar/webhook-secret": "The secret that the backend knows; only root can read it.",
    "/var/lib/private/prosody-sidecar": "The cached answers, and the events that wait.",
    "/run/prosody-sidecar/admin.sock": "The socket of the commands that change something; for root and the group "
    "prosody\\-sidecar\\-admin.",
}
ENVIRONMENT = {
    "PROSODY_SIDECAR_SECTION__SETTING": "Replaces a setting of the config file.",
    "NO_COLOR": "If set, the output has no colours.",
}


def commands() -> str:
    """prosody-sidecar(1)."""
    return "".join(
        (
            heading(1, main.help or ""),
            ".SH SYNOPSIS\n.B prosody\\-sidecar\n.I COMMAND\n[\\fIOPTION\\fR ...]\n",
            ".SH COMMANDS\n",
            *(command(context) for context in every_command()),
            ".SH EXIT STATUS\n",
            *(item(str(code), plain(meaning)) for code, meaning in EXIT_CODES.items()),
            ".SH FILES\n",
            *(item(plain(name), what) for name, what in FILES.items()),
            ".SH ENVIRONMENT\n",
            *(item(plain(name), what) for name, what in ENVIRONMENT.items()),
            ".SH SEE ALSO\n.BR prosody\\-sidecar (5),\n.BR systemctl (1),\n"
            "/usr/share/doc/prosody\\-sidecar/operating.md\n",
        )
    )


def command(context: click.Context) -> str:
    """One command with its options."""
    parts = (item(plain(option), plain(text)) for option, text in options(context))
    return f'.SS "{plain(usage(context))}"\n{plain(context.command.help or "")}\n{"".join(parts)}'


def settings() -> str:
    """prosody-sidecar(5)."""
    return "".join(
        (
            heading(5, "The config of prosody-sidecar, /etc/prosody-sidecar/sidecar.yaml."),
            ".SH DESCRIPTION\nA YAML file. All durations are seconds. An unknown setting is an error. ",
            'After a change, run\n.B prosody\\-sidecar check\nand then\n.BR "systemctl reload prosody\\-sidecar" .\n',
            ".SH SETTINGS\n",
            *described(schema(), schema(), ""),
            ".SH EXAMPLE\n.EX\n",
            plain((Path(__file__).parent.parent / "config" / "minimal.yaml").read_text().partition("\n")[2]),
            ".EE\n.SH SEE ALSO\n.BR prosody\\-sidecar (1),\n/usr/share/doc/prosody\\-sidecar/configuration.md\n",
        )
    )


def described(node: dict[str, Any], whole: dict[str, Any], path: str) -> Iterator[str]:
    """Each setting of a section: what it takes, its default, its meaning."""
    for name, child in node["properties"].items():
        dotted = f"{path}.{name}" if path else name
        section = section_of(child, whole)
        text = child.get("description", "")
        taken = f" Takes: {takes(child)}." if section is None else ""
        default = f" Default: {json.dumps(child['default'])}." if "default" in child and section is None else ""
        yield item(plain(dotted), plain(text + taken + ("" if "Default" in text else default)).strip())
        if section is not None:
            yield from described(section, whole, f"{dotted}[]" if child.get("type") == "array" else dotted)


def heading(section: int, text: str) -> str:
    """The title line, and the name for `apropos`."""
    name = f'.TH PROSODY\\-SIDECAR {section} "" "prosody\\-sidecar {__version__}"\n'
    summary = re.split(r"(?<=\w)\.\s|\.$", text.strip())[0]
    return f"{name}.SH NAME\nprosody\\-sidecar \\- {plain(summary)}\n"


def item(name: str, text: str) -> str:
    """A name, and below it an indented text."""
    return f".TP\n.B {name}\n{text}\n"


def plain(text: str) -> str:
    """Text that troff shows as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "").replace("'", "\\(aq").replace('"', "\\(dq")
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.M)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "prosody-sidecar.1").write_text(commands())
    (folder / "prosody-sidecar.5").write_text(settings())
