"""What `doctor` says of a secret in the file that the running service does not have yet."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cli.doctor import Said, has_newer_secret, judge, of_newer_secret
from sidecar.cli.probe import Step
from sidecar.config.models import Listen

NO_PROSODY = Said(missing="there is none here")
REFUSED = [Step("TCP", "ok", "port 443 answers"), Step("secret", "failed", "status 401", "compare them")]
UNREACHED = [Step("TCP", "failed", "no connection to port 443")]
ACCEPTED = [Step("secret", "ok", "accepted")]
RESTART = "run: systemctl restart prosody-sidecar"


def status(*needs_restart: str) -> dict[str, Any]:
    last = {"at": 0.0, "problems": [], "needs_restart": list(needs_restart)}
    common = {"modules": [], "hosts": [], "reasons": [], "notes": [], "version": "1.2.3", "uptime_seconds": 9.0}
    return {**common, "recent": {"last_reload": last}}


def restart(status: dict[str, Any], backend: list[Step]) -> Step:
    """The step that names what only a restart reads."""
    steps = judge(NO_PROSODY, status, Listen(), backend=backend)
    return next(step for step in steps if "only a restart reads it" in step.found)


def test_a_refused_secret_of_the_file_is_corrected_before_any_restart() -> None:
    _, step = of_newer_secret(REFUSED)
    assert "was tested and refused; the running service still has the older one (status 401)" in step.found
    assert step.advice.startswith("correct this file before any restart")
    assert restart(status("webhook-secret"), REFUSED).advice.startswith("correct /etc/prosody-sidecar/webhook-secret ")


def test_an_accepted_secret_of_the_file_needs_only_the_restart() -> None:
    assert of_newer_secret(ACCEPTED) == ACCEPTED
    assert restart(status("webhook-secret"), ACCEPTED).advice == RESTART


def test_a_secret_of_the_file_that_could_not_be_tested_is_no_reason_for_a_restart_yet() -> None:
    assert restart(status("webhook-secret"), UNREACHED).advice.startswith("first let the backend answer")


def test_a_refused_secret_that_the_service_has_too_is_no_reason_against_a_restart() -> None:
    assert restart(status("cache"), REFUSED).advice == RESTART


@pytest.mark.parametrize(
    ("document", "newer"),
    [(None, False), (status(), False), (status("cache"), False), (status("webhook-secret"), True)],
)
def test_the_status_knows_that_the_last_reload_has_not_read_the_secret(
    document: dict[str, Any] | None, newer: bool
) -> None:
    assert has_newer_secret(document) == newer


def test_who_asks_without_a_link_is_named() -> None:
    hosts = [{"host": "conference.a", "asked_seconds": 3.0}, {"host": "conference.b", "asked_seconds": None}]
    steps = judge(NO_PROSODY, {**status(), "hosts": hosts}, Listen())
    (link,) = [step for step in steps if step.name == "link"]
    assert link.found == "no module of Prosody is connected; conference.a asked 3 s ago"
