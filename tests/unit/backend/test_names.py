"""The backend's name in DNS: a name server that fails or is slow does not take a known backend away."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.backend.names import KNOWN_FOR, PATIENCE, Names
from tests.unit.virtual import in_virtual_time

TEMPORARY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Dns(AbstractResolver):
    """Answers as a test says."""

    def __init__(self) -> None:
        self.address = "192.0.2.1"
        self.takes = 0.0
        self.error: OSError | None = None
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.lookups += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def addresses(names: Names) -> list[str]:
    return [found["host"] for found in await names.resolve("backend.test", 443)]


@in_virtual_time
async def test_a_name_has_the_addresses_that_dns_says_now() -> None:
    dns = Dns()
    names = Names(dns)
    assert await addresses(names) == ["192.0.2.1"]
    dns.address = "192.0.2.2"
    assert await addresses(names) == ["192.0.2.2"]


@in_virtual_time
async def test_questions_at_the_same_time_share_one_lookup() -> None:
    dns = Dns()
    names = Names(dns)
    await asyncio.gather(*(addresses(names) for _ in range(10)))
    assert dns.lookups == 1


@in_virtual_time
async def test_while_the_name_server_fails_the_last_addresses_are_used_for_an_hour() -> None:
    dns = Dns()
    names = Names(dns)
    await addresses(names)
    dns.error = TEMPORARY
    await asyncio.sleep(KNOWN_FOR - 1)
    assert await addresses(names) == ["192.0.2.1"]
    await asyncio.sleep(2)
    with pytest.raises(socket.gaierror):
        await addresses(names)


@in_virtual_time
async def test_a_slow_name_server_is_not_waited_for_and_its_answer_counts_when_it_comes() -> None:
    dns = Dns()
    names = Names(dns)
    await addresses(names)
    dns.address, dns.takes = "192.0.2.2", 5.0
    begun = asyncio.get_running_loop().time()
    assert await addresses(names) == ["192.0.2.1"]
    assert asyncio.get_running_loop().time() - begun == PATIENCE
    await asyncio.sleep(5)
    assert (await addresses(names), dns.lookups) == (["192.0.2.2"], 3)


@in_virtual_time
async def test_a_name_that_does_not_exist_any_more_has_no_address() -> None:
    dns = Dns()
    names = Names(dns)
    await addresses(names)
    dns.error = NO_SUCH_NAME
    with pytest.raises(socket.gaierror):
        await addresses(names)


@in_virtual_time
async def test_a_lookup_that_is_under_way_ends_with_the_client() -> None:
    dns = Dns()
    dns.takes = 60.0
    names = Names(dns)
    waiting = asyncio.ensure_future(addresses(names))
    await asyncio.sleep(1)
    await names.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
