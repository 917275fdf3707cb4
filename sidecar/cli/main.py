"""The group of all commands, and `run`. The others are in commands.py. A service is run without both, by service.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sidecar import __version__
from sidecar.cli.service import DEFAULT_FILES, complain, serve
from sidecar.cli.unwritten import discard_unwritten, is_of_output, unwritable
from sidecar.config.loader import parse
from sidecar.daemon import lifecycle
from sidecar.errors import SidecarError, StartError

EXIT_CODES = {
    0: "no problem",
    1: "a problem was found, or the order was not carried out",
    2: "wrong usage",
    3: "the daemon cannot be reached",
}

DEMO_PORT = 8790
DEMO_SECRET = "demo-secret"
DEMO_CONFIG = f"""
state_dir: null
backend:
  url: http://127.0.0.1:{DEMO_PORT}/webhooks/jitsi
  secret_env: SIDECAR_DEMO_SECRET
log: {{format: console}}
"""


class _Cli(click.Group):
    """Prints the errors for operators on one line each, without a traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run one command; what cannot be printed (`--help > /dev/full`) is no reason for a traceback."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            if not is_of_output(error):
                raise
            discard_unwritten()
            with contextlib.suppress(OSError):
                click.echo(unwritable(error), err=True)
            raise SystemExit(1) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SidecarError as error:
            complain(str(error))
            ctx.exit(error.exit_code)


@click.group(
    cls=_Cli,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)
@click.version_option(__version__, prog_name="prosody-sidecar")
def main() -> None:
    """Access decisions and room configs for Jitsi's Prosody, also while the meeting service is down."""


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the option `--config`."""
    option = click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False, readable=False),
        help=f"The config file. Default: {DEFAULT_FILES[0]}, or else {DEFAULT_FILES[1]}.",
    )
    return option(command)


@main.command()
@config_option
@click.option("--demo", is_flag=True, help=f"Also run a demo backend on port {DEMO_PORT}; needs no config.")
def run(file: Path | None, demo: bool) -> None:
    """Run the sidecar in the foreground."""
    if demo and file is None:
        os.environ.setdefault("SIDECAR_DEMO_SECRET", DEMO_SECRET)
        settings = parse(DEMO_CONFIG, "the demo's config")
        secret = os.environ["SIDECAR_DEMO_SECRET"]
        asyncio.run(lifecycle.run(settings, None, lambda: demo_backend("127.0.0.1", DEMO_PORT, secret)))
        return
    serve(file)


async def demo_backend(host: str, port: int, secret: str | None) -> None:
    """Serve the demo backend until cancelled; raises StartError."""
    from sidecar.demo_backend.server import serve  # noqa: PLC0415 - only a demo needs it

    try:
        await serve(host, port, secret)
    except OSError as error:
        what = f"the demo backend cannot listen on {host} port {port}: {error.strerror}"
        raise StartError(f"{what}; stop the program that uses it, or give `demo-backend` another --port") from None
