"""A sidecar of its own process with a demo backend, on free ports, for tests that look at it from outside."""

from __future__ import annotations

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
    """One that is running, with a demo backend."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port, self.admin, backend = free_port(), free_port(), free_port()
        config = folder / "f.yaml"
        config.write_text(
            f"listen: {{port: {self.port}}}\nadmin: {{port: {self.admin}}}\nstate_dir: null\n"
            f"backend: {{url: 'http://127.0.0.1:{backend}/webhooks/jitsi'}}\n"
        )
        with config.open("a") as more:
            more.write(extra)
        self.log = folder / "log"
        self._output = self.log.open("wb")
        run = [sys.executable, "-m", "sidecar", "run", "--config", str(config)]
        serve = [sys.executable, "-m", "sidecar", "demo-backend", "--port", str(backend)]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=self._output, stderr=self._output) for command in (serve, run)
        ]

    def wait(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self) -> list[int]:
        for process in reversed(self._processes):
            process.terminate()
        codes = [process.wait(15) for process in self._processes]
        self._output.close()
        return codes
