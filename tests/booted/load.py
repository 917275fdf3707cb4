"""Joins, each on a connection of its own as Prosody makes them, for so many seconds: load.py SECONDS -> JSON.

Runs inside the booted machine. A failed one is a refused or broken connection, a time-out, or an answer other than 200.
"""

import asyncio
import collections
import json
import sys
import time

BODY = '{"roomName": "room-%d", "userJid": "user%d@example.org", "timestamp": 0}'


async def one(number: int) -> str:
    body = BODY % (number % 50, number % 500)
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", 8788)
            try:
                head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
                writer.write(f"POST /webhooks/jitsi/validate-access HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
                answer = await reader.read()
            finally:
                writer.close()
    except ConnectionRefusedError:
        return "refused"
    except (TimeoutError, OSError) as error:
        return type(error).__name__
    status = answer.split(b" ", 2)[1].decode() if answer.count(b" ") > 1 else "nothing"
    return "answered" if status == "200" else status


async def main(seconds: float) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    numbers = iter(range(10**9))
    until = time.monotonic() + seconds

    async def knock() -> None:
        nonlocal slowest
        while time.monotonic() < until:
            begun = time.monotonic()
            outcomes[await one(next(numbers))] += 1
            slowest = max(slowest, time.monotonic() - begun)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(knock() for _ in range(16)))
    sys.stdout.write(json.dumps({**outcomes, "slowest_seconds": round(slowest, 3)}))


asyncio.run(main(float(sys.argv[1])))
