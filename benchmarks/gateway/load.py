"""Asks a gateway for answers over a number of connections, and tells how long each took, as JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from time import perf_counter
from typing import Final

BODY: Final = json.dumps(
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a lighthouse, in one sentence?"}]}
).encode()
KEY: Final = "gw-bench-0123456789abcdef"


class _Client(asyncio.Protocol):
    """One connection, which asks again as soon as it was answered."""

    def __init__(self, request: bytes, seconds: list[float], left: list[int], done: asyncio.Future[None]) -> None:
        self._request = request
        self._seconds = seconds
        self._left = left
        self._done = done
        self._read = b""
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            self._ask()

    def _ask(self) -> None:
        if self._left[0] <= 0:
            self._transport.close()
            return
        self._left[0] -= 1
        self._asked = perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"no answer: {self._read[:500]!r}")
        self._read = b""
        self._seconds.append(perf_counter() - self._asked)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            if exc is not None:
                self._done.set_exception(exc)
            else:
                self._done.set_result(None)


async def main(port: int, requests: int, connections: int) -> None:
    """Ask, and print `seconds` (of all of it) and `each`."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    seconds: list[float] = []
    left = [requests]
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    began = perf_counter()
    for end in ends:
        client = partial(_Client, head.encode() + BODY, seconds, left, end)
        await loop.create_connection(client, "127.0.0.1", port)
    for end in ends:
        await end
    sys.stdout.write(json.dumps({"seconds": perf_counter() - began, "each": [round(each, 6) for each in seconds]}))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
