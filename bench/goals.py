"""What the figures should be, on any machine."""

from __future__ import annotations

from bench.judging import Goal
from bench.peers import EMPTY, LINK, NGINX, OURS
from bench.prosodys import ALONE, BARE, FLOOR, SIDECAR
from bench.prosodys import NGINX as BESIDE_NGINX

GOALS = (
    Goal("cost", SIDECAR, "KB a join", "rooms of 1,", to=FLOOR, at_most=1.15),
    Goal("cost", SIDECAR, "KB a join", "rooms of 10,", to=FLOOR, at_most=1.05),
    Goal("cost", SIDECAR, "CPU µs a join", "rooms of 1,", to=FLOOR, at_most=1.15),
    Goal("cost", SIDECAR, "CPU µs a join", "rooms of 10,", to=FLOOR, at_most=1.05),
    Goal("joins", SIDECAR, "joins/s", "warm", to=BESIDE_NGINX, at_least=1),
    Goal("joins", SIDECAR, "joins/s", "warm", to=ALONE, at_least=1),
    Goal("joins", SIDECAR, "joins/s", "cold", to=ALONE, at_least=0.8),
    Goal("bosh", SIDECAR, "p50 ms", "20 ms", to=BARE, at_most=1.1),
    Goal("bosh", SIDECAR, "p50 ms", "beside", to=BARE, at_most=1.1),
    Goal("answering", LINK, "decisions/s", "kept", to=EMPTY, at_least=1),
    Goal("answering", LINK, "decisions/s", "kept", to=NGINX, at_least=0.5),
    Goal("answering", OURS, "decisions/s", "kept", to=EMPTY, at_least=0.65),
    Goal("answering", OURS, "decisions/s", "each", to=EMPTY, at_least=0.9),
    Goal("herd", LINK, "last in s", "users with names", to=NGINX, at_most=1.3),
    Goal("herd", OURS, "last in s", "users with names", to=NGINX, at_most=1.3),
    Goal("herd", LINK, "refused", at_most=0),
    Goal("herd", OURS, "refused", at_most=0),
    Goal("scale", OURS, "p50 ms", "1,000,000 entries", to_case="1,000 entries", at_most=1.1),
    Goal("scale", OURS, "loop waits at the bound ms", at_most=20),
    Goal("scale", OURS, "without its body", at_most=400),
    Goal("idle", OURS, "RSS MB", at_most=60),
    Goal("idle", OURS, "CPU ms/s", at_most=0.5),
    Goal("idle", OURS, "answers after s", at_most=0.5),
)
