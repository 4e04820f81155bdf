"""Whole answers and streams on their way to a client, whichever dialect they are in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from llm.core.exceptions import LLMException
from llm.core.types import TokenUsage

from .exchange import EVENTS, JSON, told
from .logs import tell_fault
from .streaming import streaming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest, LLMResponse, StreamChunk

    from .desk import Desk
    from .exchange import Exchange, Header

_MOST_HELD: Final = 64 * 1024  # bytes of a stream that wait for what comes at the same moment


class Writer(Protocol):
    """Writes an answer as the events of a dialect."""

    def begin(self) -> bytes:
        """Return what comes before the first chunk."""
        ...

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the events of a chunk."""
        ...

    def end(self) -> bytes:
        """Return what closes a whole answer."""
        ...


async def answers(desk: Desk, exchange: Exchange, requests: Sequence[LLMRequest]) -> list[LLMResponse]:
    """Return the whole answers to several requests, which are asked at once and given away.

    Raises:
        LLMException: A call failed; the others are ended then.
    """
    if len(requests) == 1:
        return [await answer(desk, exchange, requests[0])]
    exchange.model = requests[0].model
    began = desk.clock.now()
    try:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_asked(desk, exchange, request)) for request in requests]
    except* LLMException as failed:
        failure = failed.exceptions[0]
    else:
        exchange.generating = desk.clock.now() - began
        responses = [task.result() for task in asking]
        exchange.model, exchange.provider = responses[0].model, responses[0].provider
        exchange.usage = sum((response.usage for response in responses), TokenUsage())
        exchange.cached = all(response.cached for response in responses)
        return responses
    raise failure


async def _asked(desk: Desk, exchange: Exchange, request: LLMRequest) -> LLMResponse:
    return await desk.asking.answer(exchange.caller, request)


async def answer(desk: Desk, exchange: Exchange, request: LLMRequest) -> LLMResponse:
    """Return the whole answer to a request, which is given away.

    Raises:
        LLMException: The call failed.
    """
    exchange.model = request.model
    began = desk.clock.now()
    try:
        response = await desk.asking.answer(exchange.caller, request)
    finally:
        exchange.generating, exchange.call = desk.clock.now() - began, request.call
    exchange.model, exchange.provider = response.model, response.provider
    exchange.usage, exchange.cached = response.usage, response.cached
    return response


async def send(exchange: Exchange, body: Mapping[str, object]) -> None:
    """Send a whole answer, and in its headers who gave it."""
    await send_bytes(exchange, orjson.dumps(body))


async def send_bytes(exchange: Exchange, body: bytes) -> None:
    """Send a whole answer that is written already."""
    await exchange.answer(200, body, [JSON, *_origin(exchange)])


async def stream(
    desk: Desk,
    exchange: Exchange,
    request: LLMRequest,
    begun: Callable[[LLMStream], Writer],
    failed: Callable[[Writer, LLMException], bytes],
) -> None:
    """Send the answer to a request as events; the head goes out when the first chunk is in hand.

    Args:
        desk: What routes work with.
        exchange: The client's request.
        request: What it asks; given away.
        begun: Returns the writer for a stream that is open.
        failed: Returns the event that ends a stream which fails in the middle, by its writer.

    Raises:
        LLMException: The call failed before its first chunk.
    """
    async with streaming(desk, exchange, request) as chunks:
        await exchange.begin(200, [*EVENTS, *_origin(exchange)])
        await _pump(exchange, chunks, begun(chunks), failed)


async def _pump(
    exchange: Exchange, chunks: LLMStream, writer: Writer, failed: Callable[[Writer, LLMException], bytes]
) -> None:
    held = writer.begin()
    try:
        async for chunk in chunks:
            held += writer.chunk(chunk)
            if held and (len(held) > _MOST_HELD or not chunks.waiting()):
                await exchange.write(held)
                held = b""
        held += writer.end()
    except LLMException as error:
        exchange.error = error
        held += failed(writer, error)
    except Exception as error:  # noqa: BLE001 - whatever was not foreseen
        tell_fault(error, exchange)
        exchange.error = error
        held += failed(writer, LLMException("the gateway failed in the middle of the stream; its log has more"))
    await exchange.finish(held)


def _origin(exchange: Exchange) -> list[Header]:
    """Return the headers that tell who answered."""
    headers: list[Header] = []
    if exchange.provider:
        headers.append((b"x-llm-provider", told(exchange.provider)))
    if exchange.model:
        headers.append((b"x-llm-model", told(exchange.model)))
    headers.append((b"x-llm-cache", _cache(exchange)))
    return headers


def _cache(exchange: Exchange) -> bytes:
    if not exchange.cached:
        return b"miss"
    call = exchange.call
    followed = call is not None and any(event == "followed" for _, event, _ in call.decisions)
    return b"follower" if followed else b"hit"
