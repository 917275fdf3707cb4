"""The command `prosody-sidecar`, which is also `python -m sidecar`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from sidecar.cli import service


def main() -> None:
    """Run the service, as systemd starts it, or else the command that the arguments say."""
    match sys.argv[1:]:
        case ["run"]:
            service.main(None)
        case ["run", "--config", file]:
            service.main(Path(file))
        case _:
            importlib.import_module("sidecar.cli.commands").main()


if __name__ == "__main__":
    main()
