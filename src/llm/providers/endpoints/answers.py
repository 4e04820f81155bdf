"""Whole answers, and answers in events, whichever dialect they are in and whatever carries them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from llm.core.exceptions import LLMException
from llm.core.types import TokenUsage

from .inquiry import EVENTS, JSON, told
from .streaming import Streaming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest, LLMResponse, StreamChunk

    from .inquiry import Header, Inquiry
    from .service import Service

    Failed = Callable[["Writer", LLMException], bytes]

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


class Reply(NamedTuple):
    """A whole answer, whose status is 200.

    Attributes:
        body: Its bytes.
        headers: What it is, and who gave it.
    """

    body: bytes
    headers: list[Header]


class Events:
    """An answer in events, whose first chunk is in hand; whoever has it reads it to its end, or leaves it.

    Attributes:
        headers: What it is, and who gives it.
        over: Whether the last piece was read.
    """

    __slots__ = ("_chunks", "_failed", "_held", "_inquiry", "_streaming", "_writer", "headers", "over")

    def __init__(
        self,
        streaming: Streaming,
        chunks: LLMStream,
        inquiry: Inquiry,
        writer: Writer,
        failed: Failed,
    ) -> None:
        """Write `chunks` by `writer`; `failed` returns the event that ends a stream which fails in the middle."""
        self.headers: list[Header] = [*EVENTS, *_origin(inquiry)]
        self.over: bool = False
        self._streaming = streaming
        self._chunks = chunks
        self._inquiry = inquiry
        self._writer = writer
        self._failed = failed
        self._held = writer.begin()

    async def piece(self) -> bytes:
        """Return the next events as they come, those together that are there together; with the last it is `over`.

        A stream that fails ends by an event that says so.
        """
        chunks, writer = self._chunks, self._writer
        held, self._held = self._held, b""
        try:
            async for chunk in chunks:
                held += writer.chunk(chunk)
                if held and (len(held) > _MOST_HELD or not chunks.waiting()):
                    return held
            held += writer.end()
        except LLMException as error:
            return held + self.fail(error)
        except BaseException:
            self._held = held
            raise
        self.over = True
        return held

    def fail(self, error: LLMException) -> bytes:
        """Return what ends it for a failure."""
        held, self._held = self._held, b""
        self._inquiry.error, self.over = self._inquiry.error or error, True
        return held + self._failed(self._writer, error)

    def leave(self) -> None:
        """End it, where it is not over; the upstream response closes at once."""
        self._streaming.leave()


async def answers(service: Service, inquiry: Inquiry, requests: Sequence[LLMRequest]) -> list[LLMResponse]:
    """Return the whole answers to several requests, which are asked at once and given away.

    Raises:
        LLMException: A call failed; the others are ended then.
    """
    if len(requests) == 1:
        return [await answer(service, inquiry, requests[0])]
    inquiry.model = requests[0].model
    began = service.clock.now()
    try:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_asked(service, inquiry, request)) for request in requests]
    except* LLMException as failed:
        failure = failed.exceptions[0]
    else:
        inquiry.generating = service.clock.now() - began
        responses = [task.result() for task in asking]
        inquiry.model, inquiry.provider = responses[0].model, responses[0].provider
        inquiry.usage = sum((response.usage for response in responses), TokenUsage())
        inquiry.cached = all(response.cached for response in responses)
        return responses
    raise failure


async def _asked(service: Service, inquiry: Inquiry, request: LLMRequest) -> LLMResponse:
    return await service.asking.answer(inquiry.caller, request)


async def answer(service: Service, inquiry: Inquiry, request: LLMRequest) -> LLMResponse:
    """Return the whole answer to a request, which is given away.

    Raises:
        LLMException: The call failed.
    """
    inquiry.model = request.model
    began = service.clock.now()
    try:
        response = await service.asking.answer(inquiry.caller, request)
    finally:
        inquiry.generating, inquiry.call = service.clock.now() - began, request.call
    inquiry.model, inquiry.provider = response.model, response.provider
    inquiry.usage, inquiry.cached = response.usage, response.cached
    return response


def reply(inquiry: Inquiry, body: Mapping[str, object]) -> Reply:
    """Return a whole answer, and in its headers who gave it."""
    return reply_bytes(inquiry, orjson.dumps(body))


def reply_bytes(inquiry: Inquiry, body: bytes) -> Reply:
    """Return a whole answer that is written already."""
    return Reply(body, [JSON, *_origin(inquiry)])


async def stream(
    service: Service, inquiry: Inquiry, request: LLMRequest, begun: Callable[[LLMStream], Writer], failed: Failed
) -> Events:
    """Return the answer to a request as events, when the first chunk is in hand.

    Args:
        service: What endpoints work with.
        inquiry: The client's request.
        request: What it asks; given away.
        begun: Returns the writer for a stream that is open.
        failed: Returns the event that ends a stream which fails in the middle, by its writer.

    Raises:
        LLMException: The call failed before its first chunk.
    """
    streaming = Streaming(service, inquiry, request)
    chunks = await streaming.__aenter__()
    return Events(streaming, chunks, inquiry, begun(chunks), failed)


def _origin(inquiry: Inquiry) -> list[Header]:
    """Return the headers that tell who answered."""
    headers: list[Header] = []
    if inquiry.provider:
        headers.append((b"x-llm-provider", told(inquiry.provider)))
    if inquiry.model:
        headers.append((b"x-llm-model", told(inquiry.model)))
    headers.append((b"x-llm-cache", _cache(inquiry)))
    return headers


def _cache(inquiry: Inquiry) -> bytes:
    if not inquiry.cached:
        return b"miss"
    call = inquiry.call
    followed = call is not None and any(event == "followed" for _, event, _ in call.decisions)
    return b"follower" if followed else b"hit"
