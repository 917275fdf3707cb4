"""Reads from the sidecar's metrics where its answers came from."""

from __future__ import annotations

from collections import Counter

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

Sources = Counter[tuple[str, str]]
"""(endpoint, source) -> requests answered so far."""


def parse(metrics: str) -> Sources:
    return Counter(
        {
            (sample.labels["endpoint"], sample.labels["source"]): int(sample.value)
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == "prosody_sidecar_requests_total"
        }
    )


async def read(session: aiohttp.ClientSession, url: str) -> Sources:
    async with session.get(url) as response:
        response.raise_for_status()
        return parse(await response.text())


def in_words(before: Sources, after: Sources, endpoint: str) -> str:
    """The sources of the answers between the two readings; a dash if the sidecar was not asked."""
    new = after - before
    return ", ".join(sorted(source for asked, source in new if asked == endpoint)) or "–"
