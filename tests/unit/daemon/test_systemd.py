"""What the sidecar reads from the environment that systemd gives it, and what it tells systemd."""

import socket
from pathlib import Path

import pytest

from sidecar.clock import SystemClock
from sidecar.daemon.heartbeat import Heartbeat
from sidecar.daemon.systemd import notify, passed_sockets, watchdog_seconds


def test_a_notice_reaches_a_named_and_an_abstract_socket(tmp_path: Path) -> None:
    for address, bound in [(str(tmp_path / "n"), str(tmp_path / "n")), ("@sidecar-test", "\0sidecar-test")]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(bound)
            notify("READY=1", address)
            assert systemd.recv(100) == b"READY=1"


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    notify("READY=1", None)
    notify("READY=1", str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_or_nobodys(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ, pid=7) == seconds


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    assert passed_sockets({"LISTEN_PID": "8", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "webhook:admin"}, pid=7) == {}
    assert passed_sockets({}, pid=7) == {}


def test_status_is_sent_when_it_changes_and_the_watchdog_at_every_beat() -> None:
    sent: list[str] = []
    words = ["Well", "Well", "Degraded"]
    heartbeat = Heartbeat(SystemClock(), 10.0, lambda: words.pop(0), sent.append)
    for _ in range(3):
        heartbeat.beat()
    assert sent == ["STATUS=Well\nWATCHDOG=1", "WATCHDOG=1", "STATUS=Degraded\nWATCHDOG=1"]


def test_without_a_watchdog_only_news_is_sent() -> None:
    sent: list[str] = []
    heartbeat = Heartbeat(SystemClock(), None, lambda: "Well", sent.append)
    heartbeat.beat()
    heartbeat.beat()
    assert sent == ["STATUS=Well"]
