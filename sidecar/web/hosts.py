"""The MUC components whose modules ask: which of them have a link, and when each was heard last.

Their names come from outside and become labels of a metric, so only the first ones are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sidecar.clock import Clock
from sidecar.core.durations import span

MOST, MOST_OVER_HTTP = 64, 16
"""Names that are kept; questions over HTTP add none beyond the second number, so that there is space for links."""

_DOMAIN = re.compile(r'@([\w.:-]{1,255})"$')
"""The domain of a room, at the end of its address as JSON text."""

LONG = 300.0
"""Seconds of silence of a module that had a link, after which an operator should look for it."""


@dataclass(slots=True)
class Host:
    """One component. Times are of the monotonic clock."""

    links: int = 0
    """Links that are up."""
    had_link: bool = False
    asked_at: float | None = None
    """The last question."""
    left_at: float = 0.0
    """When the last link ended."""

    def silent(self, now: float) -> float:
        """Seconds for which nothing was heard; 0 while a link is up."""
        return 0.0 if self.links else now - max(self.asked_at or 0.0, self.left_at)


class Hosts:
    """All components that were heard since the start."""

    def __init__(self, clock: Clock) -> None:
        """None yet."""
        self._clock = clock
        self._hosts: dict[str, Host] = {}

    def linked(self, name: str) -> Host:
        """A link of this component is up. What is returned has to be given back when it ends."""
        host = self._known(name, MOST)
        host.links += 1
        host.had_link = True
        return host

    def left(self, host: Host) -> None:
        """One of its links has ended."""
        host.links -= 1
        host.left_at = self._clock.monotonic()

    def asked_over_http(self, room_jid: str | None) -> None:
        """A question about a room. `room_jid`: its address as JSON text, if the question has one."""
        found = _DOMAIN.search(room_jid or "")
        if found is not None:
            self._known(found[1], MOST_OVER_HTTP).asked_at = self._clock.monotonic()

    def _known(self, name: str, most: int) -> Host:
        if name in self._hosts or len(self._hosts) < most:
            return self._hosts.setdefault(name, Host())
        return Host()

    def silence(self) -> dict[str, float]:
        """The seconds of silence by the name of the component."""
        now = self._clock.monotonic()
        return {name: host.silent(now) for name, host in self._hosts.items()}

    def document(self) -> list[dict[str, Any]]:
        """The components, for the status."""
        now = self._clock.monotonic()
        return [
            {
                "host": name,
                "linked": host.links > 0,
                "had_link": host.had_link,
                "asked_seconds": None if host.asked_at is None else round(now - host.asked_at, 1),
                "silent_seconds": round(host.silent(now), 1),
            }
            for name, host in self._hosts.items()
        ]

    def gone(self) -> list[str]:
        """A sentence about each module that had a link, and is silent for long."""
        now = self._clock.monotonic()
        return [
            GONE.format(name=name, silence=span(host.silent(now)))
            for name, host in self._hosts.items()
            if host.had_link and host.silent(now) > LONG
        ]


GONE = (
    "prosody: the module on {name} had a link, and nothing was heard of it for {silence}. Prosody is down there, or it "
    "runs without the module, and everybody can join. Run prosody-sidecar doctor on the machine of this Prosody"
)
