"""A server that costs its clients nothing but the network: one answer to every request, from a process of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import orjson

_ANSWER: Final = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "It is a language."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }
)
_LIMITS: Final = "".join(
    f"x-ratelimit-limit-{unit}: 1000000000\r\n"
    f"x-ratelimit-remaining-{unit}: 999999000\r\n"
    f"x-ratelimit-reset-{unit}: 1ms\r\n"
    for unit in ("requests", "tokens")
)
_REPLY: Final = (
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n"
    f"{_LIMITS}content-length: {len(_ANSWER)}\r\n\r\n".encode()
    + _ANSWER
)


class _Connection(asyncio.Protocol):
    """Reads requests, one at a time, and gives each the same answer."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + _length(self._read[:end])
            if len(self._read) < whole:
                return
            self._read = self._read[whole:]
            if self._transport is not None:
                self._transport.write(_REPLY)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main() -> None:
    """Serve until stdin ends; the port is the first line on stdout."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the way to tell it
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
