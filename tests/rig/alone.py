"""A sidecar of its own process with a demo backend, on free ports, for tests that look at it from outside."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Sidecar:
    """One that is running, with a demo backend. The arguments are more YAML for a section, or at the end."""

    def __init__(
        self,
        folder: Path,
        *,
        listen: str = "",
        admin: str = "",
        backend: str = "",
        state: str = "null",
        extra: str = "",
        demo: tuple[str, ...] = (),
    ) -> None:
        """Start both; `demo` are options of the demo backend."""
        self.port, self.admin, self.backend = free_port(), free_port(), free_port()
        self.config = folder / "f.yaml"
        self.config.write_text(
            f"listen: {{port: {self.port}{listen}}}\nadmin: {{port: {self.admin}{admin}}}\nstate_dir: {state}\n"
            f"backend: {{url: 'http://127.0.0.1:{self.backend}/webhooks/jitsi'{backend}}}\n{extra}"
        )
        self.log = folder / "log"
        self._output = self.log.open("wb")
        run = [sys.executable, "-m", "sidecar", "run", "--config", str(self.config)]
        serve = [sys.executable, "-m", "sidecar", "demo-backend", "--port", str(self.backend), *demo]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=self._output, stderr=self._output) for command in (serve, run)
        ]

    def signal(self, number: signal.Signals) -> None:
        """Send the sidecar a signal, and give it a moment."""
        self._processes[1].send_signal(number)
        time.sleep(0.5)

    def wait(self) -> None:
        """Return when both answer."""
        waited_for = [f"http://127.0.0.1:{self.admin}/livez", f"http://127.0.0.1:{self.backend}/"]
        until = time.monotonic() + 30
        while waited_for and time.monotonic() < until:
            try:
                with urllib.request.urlopen(waited_for[0], timeout=1):
                    waited_for.pop(0)
            except OSError:
                time.sleep(0.1)
        if not waited_for:
            return
        raise AssertionError(self.log.read_text())

    def stop(self) -> list[int]:
        """End both; returns their exit codes, the backend's first."""
        for process in reversed(self._processes):
            process.terminate()
        codes = [process.wait(15) for process in self._processes]
        self._output.close()
        return codes
