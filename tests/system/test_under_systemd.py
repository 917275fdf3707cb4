"""The sidecar as systemd runs it; only here the test holds the sockets."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = "state_dir: null\nbackend: {{url: 'http://127.0.0.1:{port}/x'}}\n"


class Manager:
    """Holds the listening sockets and the notify socket, starts and stops the sidecar."""

    def __init__(self, folder: Path, *, listens: bool = True) -> None:
        """Without `listens` the sidecar is given no notify socket: somebody would have to read all it says there."""
        self.config = folder / "sidecar.yaml"
        self.config.write_text(CONFIG.format(port=1))
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.webhook, self.admin = (each.getsockname()[1] for each in self._sockets)
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        self._environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "300000"}
        if not listens:
            del self._environ["NOTIFY_SOCKET"]
        self._log = (folder / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        numbers = [each.fileno() for each in self._sockets]
        order = " ".join(f"{wanted}<&{number}" for wanted, number in zip((103, 104), numbers, strict=True))
        serve = f"exec {sys.executable} -m sidecar run --config {self.config}"
        run = f"exec {order} && exec 3<&103 4<&104 && LISTEN_PID=$$ {serve}"
        environ = {**self._environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "webhook:admin"}
        self.process = subprocess.Popen(
            ["bash", "-c", run], env=environ, cwd=ROOT, pass_fds=numbers, stdout=self._log, stderr=self._log
        )

    def wait_for(self, word: str, seconds: float = 10) -> str:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._notices.settimeout(left)
            try:
                said = self._notices.recv(4096).decode()
            except TimeoutError:
                break
            if word in said:
                return said
        pytest.fail(f"systemd did not get {word!r}")

    def silence(self, seconds: float) -> bool:
        self._notices.settimeout(0.05)
        until = time.monotonic() + seconds
        heard = 0
        while time.monotonic() < until:
            try:
                self._notices.recv(4096)
                heard += 1
            except TimeoutError:
                continue
        return heard == 0

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for each in (*self._sockets, self._notices):
            each.close()
        self._log.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    try:
        yield manager
    finally:
        manager.close()


def status_of(port: int, path: str, timeout: float = 10) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_serves_the_sockets_it_was_passed_and_says_when(manager: Manager) -> None:
    manager.start()
    manager.wait_for("READY=1")
    manager.wait_for("STATUS=Well: 0 answers remembered")
    assert status_of(manager.admin, "/livez") == 200
    assert status_of(manager.webhook, "/nothing") == 404
    assert manager.stop() == 0
    manager.wait_for("STOPPING=1")


def test_the_watchdog_is_fed_while_the_loop_runs_and_not_while_it_is_stuck(manager: Manager) -> None:
    manager.start()
    manager.wait_for("READY=1")
    for _ in range(3):
        manager.wait_for("WATCHDOG=1", seconds=1)
    manager.send(signal.SIGSTOP)
    manager.silence(0.2)
    assert manager.silence(0.6)
    manager.send(signal.SIGCONT)
    manager.wait_for("WATCHDOG=1", seconds=2)


def test_a_reload_of_a_bad_file_says_where_in_the_status(manager: Manager) -> None:
    manager.start()
    manager.wait_for("READY=1")
    manager.config.write_text("backend: {url: nonsense}\n")
    manager.send(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")
    said = manager.wait_for("STATUS=Degraded")
    assert f"{manager.config}:1:11: backend.url" in said
    manager.config.write_text(CONFIG.format(port=2))
    manager.send(signal.SIGHUP)
    manager.wait_for("STATUS=Well")


def test_who_connects_while_it_restarts_waits_and_is_answered(manager: Manager) -> None:
    manager.start()
    manager.wait_for("READY=1")
    manager.stop()
    answers: list[int] = []
    waiting = [threading.Thread(target=lambda: answers.append(status_of(manager.webhook, "/"))) for _ in range(20)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    assert answers == []
    manager.start()
    for thread in waiting:
        thread.join(10)
    assert answers == [404] * 20


async def test_nobody_who_had_just_connected_when_it_stopped_is_dropped(manager: Manager) -> None:
    """They are connected, and their question is on its way: it is still answered."""
    manager.start()
    manager.wait_for("READY=1")
    connected = [await asyncio.open_connection("127.0.0.1", manager.webhook) for _ in range(50)]
    await asyncio.sleep(0.2)
    manager.send(signal.SIGTERM)
    await asyncio.sleep(0.2)
    for _, writer in connected:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = []
    for reader, writer in connected:
        async with asyncio.timeout(5):
            answers.append((await reader.read())[:12])
        writer.close()
        await writer.wait_closed()
    assert answers == [b"HTTP/1.1 404"] * 50
    assert manager.process is not None
    assert manager.process.wait(10) == 0


UNREADABLE = "state_dir: null\nbackend: {url: 'http://127.0.0.1:1/x', secret_file: /nowhere}\n"


@pytest.mark.parametrize(
    ("config", "command", "lines"),
    [
        ("backend: {url: nonsense, more: 1}\n", "run", ["<3>"] * 2),
        (UNREADABLE, "run", ["<3>"]),
        (CONFIG.format(port=1) + "listen: {port: 0}\nadmin: {port: TAKEN}\n", "run", ["<3>"]),
        (CONFIG.format(port=1) + "log: {identities: true}\n", "check", ["<4>"] * 3),
    ],
    ids=["a bad config", "a secret that is not there", "a port that is not free", "a warning at a reload"],
)
def test_the_journal_gets_the_priority_of_what_ends_a_start(
    config: str, command: str, lines: list[str], tmp_path: Path
) -> None:
    """Standard output and standard error of a service are one socket of the journal."""
    taken = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "sidecar.yaml").write_text(config.replace("TAKEN", str(taken.getsockname()[1])))
    journal, service = socket.socketpair()
    found = os.fstat(service.fileno())
    environ = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    order = [sys.executable, "-m", "sidecar", command, "--config", str(tmp_path / "sidecar.yaml")]
    number = service.fileno()
    subprocess.run(order, cwd=ROOT, env=environ, stdout=number, stderr=number, timeout=20, check=False)
    service.close()
    with taken, journal, journal.makefile() as read:
        said = read.read().splitlines()
    assert [line[:3] for line in said if line.startswith("<")] == lines, said
    assert command == "check" or len(said) == len(lines), said
    assert ("cannot listen on" in said[-1]) is ("TAKEN" in config)
