"""Writes config/grafana-dashboard.json; `--check` only says whether it is current. A test runs that."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "config" / "grafana-dashboard.json"
P = "prosody_sidecar"
WHERE = 'instance=~"$instance"'
COLOURS = {
    "hit": "green",
    "stale": "yellow",
    "backend": "blue",
    "rejected": "purple",
    "policy": "red",
    "outbox": "super-light-blue",
    "problem": "orange",
}

GRAPHS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (
        "Requests a second, by where the answer came from",
        "policy: nothing was cached and the backend could not be asked.",
        "reqps",
        [(f"sum by (source) (rate({P}_requests_total{{{WHERE}}}[$__rate_interval]))", "{{source}}")],
    ),
    (
        "Joins a second: let in and refused, by where the decision came from",
        "deny policy: users who were refused because the backend could not be asked.",
        "reqps",
        [
            (
                f"sum by (decision, source) (rate({P}_joins_total{{{WHERE}}}[$__rate_interval]))",
                "{{decision}} {{source}}",
            )
        ],
    ),
    (
        "Time to answer",
        "Half, 95 and 99 of 100 requests are faster than this.",
        "s",
        [
            (
                f"histogram_quantile({share}, sum by (le) (rate({P}_request_seconds_bucket{{{WHERE}}}"
                "[$__rate_interval])))",
                name,
            )
            for share, name in ((0.5, "half"), (0.95, "95 of 100"), (0.99, "99 of 100"))
        ],
    ),
    (
        "Calls to the backend, by outcome",
        "misconfigured: an operator must fix the secret or the certificate. unreadable: a config has a wrong type.",
        "reqps",
        [
            (
                f"sum by (endpoint, outcome) (rate({P}_backend_requests_total{{{WHERE}}}[$__rate_interval]))",
                "{{endpoint}} {{outcome}}",
            )
        ],
    ),
    (
        "Latency of the backend",
        "99 of 100 calls are faster than this.",
        "s",
        [
            (
                f"histogram_quantile(0.99, sum by (endpoint, le) (rate({P}_backend_seconds_bucket{{{WHERE}}}"
                "[$__rate_interval])))",
                "{{endpoint}}",
            )
        ],
    ),
    (
        "Breaker",
        "0 closed, 1 half-open, 2 open.",
        "short",
        [(f"max by (endpoint) ({P}_breaker_state{{{WHERE}}})", "{{endpoint}}")],
    ),
    ("Cached answers", "", "short", [(f"sum by (verdict) ({P}_cache_entries{{{WHERE}}})", "{{verdict}}")]),
    (
        "Events in an hour, by what became of them",
        "",
        "short",
        [(f"sum by (fate) (increase({P}_events_total{{{WHERE}}}[1h]))", "{{fate}}")],
    ),
    (
        "Orders in an hour, by what became of them",
        "expired: no module carried them out in time.",
        "short",
        [
            (f"sum by (verb, result) (increase({P}_orders_total{{{WHERE}}}[1h])) > 0", "{{verb}} {{result}}"),
            (f"sum({P}_orders_waiting{{{WHERE}}})", "waiting"),
        ],
    ),
    (
        "Why it is degraded, links of modules, and minutes of their silence",
        "0 of a kind: no reason. A module without a link asks over HTTP, or is gone.",
        "short",
        [
            (f"sum by (kind) ({P}_degraded_by{{{WHERE}}})", "{{kind}}"),
            (f"sum({P}_links{{{WHERE}}})", "links"),
            (f"max by (host) ({P}_module_silent_seconds{{{WHERE}}}) / 60", "silent: {{host}}"),
        ],
    ),
    (
        "Events that wait",
        "Pending events are tried again; parked events wait for an operator.",
        "short",
        [
            (f"sum({P}_outbox_pending{{{WHERE}}})", "pending"),
            (f"sum({P}_outbox_parked{{{WHERE}}})", "parked"),
        ],
    ),
    (
        "The process",
        "Memory, and how late the event loop is.",
        "short",
        [
            (f"max({P}_loop_lag_seconds{{{WHERE}}})", "event loop late, s"),
            (
                f"max(process_resident_memory_bytes{{{WHERE}}} and on (job, instance) {P}_build_info) / 1e9",
                "memory, GB",
            ),
        ],
    ),
]


def panel(number: int, title: str, text: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    """One graph; two stand side by side."""
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in COLOURS.items()
    ]
    stacked = number == 0
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 40 if stacked else 8,
                    "stacking": {"mode": "normal" if stacked else "none"},
                    "showPoints": "never",
                },
            },
            "overrides": overrides if stacked else [],
        },
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole document, as Grafana imports it."""
    return {
        "title": "prosody-sidecar",
        "uid": "prosody-sidecar",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${source}"},
                    "query": f"label_values({P}_build_info, instance)",
                    "includeAll": True,
                    "multi": True,
                    "refresh": 2,
                },
            ]
        },
        "panels": [panel(number, *graph) for number, graph in enumerate(GRAPHS)],
    }


def main() -> int:
    """Write it, or with `--check` say whether it is current."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return int(not FILE.exists() or FILE.read_text() != text)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
