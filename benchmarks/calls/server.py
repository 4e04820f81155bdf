"""A server that costs its clients nothing but the network, in a process of its own: one answer for each dialect.

A stream's events come one at a time, a millisecond apart, each in a write of its own, as from a vendor. Under `/hold`,
a stream stops in its middle and stays open; under `/few`, it has few chunks.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from .shape import ANSWER, FEW_PIECES, MODELS, PIECES

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACE: Final = 0.001  # seconds
_LIMITS: Final = "".join(
    f"x-ratelimit-limit-{unit}: 1000000000\r\n"
    f"x-ratelimit-remaining-{unit}: 999999000\r\n"
    f"x-ratelimit-reset-{unit}: 1ms\r\n"
    for unit in ("requests", "tokens")
)
_ANTHROPIC_LIMITS: Final = "".join(
    f"anthropic-ratelimit-{unit}-limit: 1000000000\r\n"
    f"anthropic-ratelimit-{unit}-remaining: 999999000\r\n"
    f"anthropic-ratelimit-{unit}-reset: 2030-01-01T00:00:00Z\r\n"
    for unit in ("requests", "input-tokens", "output-tokens")
)
_COMPLETION: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": MODELS["openai"],
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
}
_MESSAGE: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODELS["anthropic"],
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "output_tokens": 5},
}


def _whole(body: dict[str, Any], limits: str) -> bytes:
    data = orjson.dumps(body)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n{limits}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def _opening(limits: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n{limits}"
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode()


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _completion_event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _completion_line([choice], None)


def _completion_line(choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODELS["openai"],
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": usage,
    }
    return b"data: %b\n\n" % orjson.dumps(body)


def _completion_events(texts: tuple[str, ...]) -> list[bytes]:
    usage = {"prompt_tokens": 12, "completion_tokens": 800, "total_tokens": 812}
    return [
        _completion_event({"role": "assistant", "content": "", "refusal": None}),
        *(_completion_event({"content": text}) for text in texts),
        _completion_event({}, "stop"),
        _completion_line([], usage),
        b"data: [DONE]\n\n",
    ]


def _message_event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _message_events(texts: tuple[str, ...]) -> list[bytes]:
    begun = {**_MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 12, "output_tokens": 1}}
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        _message_event("message_start", message=begun),
        _message_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        _message_event("ping"),
        *(_message_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        _message_event("content_block_stop", index=0),
        _message_event("message_delta", delta=ended, usage={"output_tokens": 800}),
        _message_event("message_stop"),
    ]


def _writes(events: list[bytes]) -> list[bytes]:
    frames = [_frame(event) for event in events]
    frames[-1] += b"0\r\n\r\n"
    return frames


_COMPLETION_REPLY: Final = _whole(_COMPLETION, _LIMITS)
_MESSAGE_REPLY: Final = _whole(_MESSAGE, _ANTHROPIC_LIMITS)
_FEW: Final = PIECES[:FEW_PIECES]
_COMPLETIONS: Final = {
    few: [_opening(_LIMITS), *_writes(_completion_events(_FEW if few else PIECES))] for few in (False, True)
}
_MESSAGES: Final = {
    few: [_opening(_ANTHROPIC_LIMITS), *_writes(_message_events(_FEW if few else PIECES))] for few in (False, True)
}


class _Pace:
    """Writes the next piece of every open stream, at a steady pace."""

    def __init__(self) -> None:
        self._open: dict[asyncio.WriteTransport, Iterator[bytes]] = {}

    def start(self, transport: asyncio.WriteTransport, pieces: list[bytes]) -> None:
        if not self._open:
            asyncio.get_running_loop().call_later(_PACE, self._tick)
        self._open[transport] = iter(pieces)

    def drop(self, transport: asyncio.WriteTransport) -> None:
        self._open.pop(transport, None)

    def _tick(self) -> None:
        for transport, pieces in list(self._open.items()):
            piece = next(pieces, None)
            if piece is None:
                self.drop(transport)
            else:
                transport.write(piece)
        if self._open:
            asyncio.get_running_loop().call_later(_PACE, self._tick)


class _Connection(asyncio.Protocol):
    """Reads requests, one at a time, and gives each the same answer."""

    def __init__(self, pace: _Pace) -> None:
        self._pace = pace
        self._transport: asyncio.WriteTransport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own name for it
        if self._transport is not None:
            self._pace.drop(self._transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + _length(self._read[:end])
            if len(self._read) < whole:
                return
            request, self._read = self._read[:whole], self._read[whole:]
            if self._transport is not None:
                self._answer(self._transport, request)

    def _answer(self, transport: asyncio.WriteTransport, request: bytes) -> None:
        target, _, rest = request.partition(b"\r\n")
        completion = b"/chat/completions" in target
        if b'"stream":true' not in rest and b'"stream": true' not in rest:
            transport.write(_COMPLETION_REPLY if completion else _MESSAGE_REPLY)
            return
        pieces = (_COMPLETIONS if completion else _MESSAGES)[b"/few/" in target]
        self._pace.start(transport, pieces[: len(pieces) // 2] if b"/hold/" in target else pieces)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def allow_many_files() -> None:
    """Lift the usual limit of 1,024 open files as far as this user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def main() -> None:
    """Serve until stdin ends; the port is the first line on stdout."""
    allow_many_files()
    loop = asyncio.get_running_loop()
    pace = _Pace()
    server = await loop.create_server(lambda: _Connection(pace), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the way to tell it
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
