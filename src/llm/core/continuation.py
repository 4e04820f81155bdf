"""A stream that broke off goes on: another target is asked to carry on the text that came, where the caller asked so.

What came is shown as the model's own turn, and a user's turn asks to go on from its very end. A turn of the assistant
alone, that the model would complete, is not taken by all: Claude 4.6 and later refuse a conversation that ends in one.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming (error recovery) and
https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6 (prefill removal)
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .bounds import Scope
from .choices import Continuation
from .exceptions import (
    LLMConnectionError,
    LLMException,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from .messages import Message, MessageRole
from .stream import LLMStream, as_stream
from .tokens import CHARACTERS_PER_TOKEN, estimate_tokens
from .types import TokenUsage, request_with, response_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from .parts import Falling
    from .types import LLMRequest, LLMResponse, StreamChunk

_GO_ON: Final = (
    "Your answer broke off there. Go on from its very last character: write only what comes next, without any "
    "introduction, and repeat nothing."
)


def continued(
    stream: LLMStream,
    request: LLMRequest,
    way: Falling,
    *,
    price: Callable[[str, str, TokenUsage], float | None],
) -> LLMStream:
    """Return a stream that goes on where `stream` breaks, as often as there are targets.

    Args:
        stream: The answer's first part, its first chunk in hand.
        request: What was asked.
        way: Asks for the next part.
        price: Returns the US dollars of a provider's model and its tokens; None where that is unknown.
    """
    source = _Parts(stream, request, way, price)
    whole = LLMStream(source, provider=stream.provider, key=stream.key)
    whole.finish_with(source.completed)
    source.belong_to(whole)
    return whole


class _Parts:
    """A `ChunkSource` over one stream after another.

    Attributes:
        continued: Who went on, and where.
    """

    def __init__(
        self,
        stream: LLMStream,
        request: LLMRequest,
        way: Falling,
        price: Callable[[str, str, TokenUsage], float | None],
    ) -> None:
        self.id: str = ""
        self.model: str = ""
        self.continued: tuple[Continuation, ...] = ()
        self._stream = stream
        self._request = request
        self._asked = request
        self._way = way
        self._left = way.targets
        self._price = price
        self._usage = TokenUsage()
        self._cost: float | None = 0.0
        self._answer: LLMResponse | None = None
        self._one = True
        self._reading = False
        self._closed = False
        self._scope = Scope()
        self._whole: Callable[[], LLMStream | None] = lambda: None

    def belong_to(self, whole: LLMStream) -> None:
        self._whole = weakref.ref(whole)
        self._stream.on_end(self._part_ended)

    async def __anext__(self) -> StreamChunk:
        self._reading = True
        try:
            while True:
                try:
                    chunk = await anext(self._stream)
                except StopAsyncIteration:
                    self._answer = await self._stream.response()
                    raise
                except LLMException as error:
                    await self._go_on(error)
                else:
                    if chunk.finish_reason or chunk.index:  # nothing is missing, or there are several to go on with
                        self._one = False
                    return chunk
        finally:
            self._reading = False

    def waiting(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = True
        self._scope.end()
        self._stream.leave()

    def completed(self, response: LLMResponse) -> LLMResponse:
        answer = self._answer
        if answer is None or not self.continued:
            return answer or response
        self._count_part()
        return response_with(response, id=answer.id, usage=self._usage, cost=self._cost, continued=self.continued)

    def _part_ended(self, _: object, error: BaseException | None) -> None:
        whole = self._whole()
        # Where nobody reads, as where it is closed for being abandoned, nobody wants to know how it goes on.
        if whole is not None and not self._reading and isinstance(error, LLMException):
            whole.interrupt(error)

    async def _go_on(self, error: LLMException) -> None:
        """Have the next part at hand.

        Raises:
            LLMException: How the last one broke, where there is no next.
        """
        whole = self._whole()
        text = "" if whole is None else whole.text
        if isinstance(error, LLMStreamInterruptedError):
            error.partial = text
        if self._closed or not self._one or not self._left or not _is_break(error):
            raise error
        self._left -= 1
        self._count_part()
        try:
            with self._scope:
                result = await self._way.go_on(_carrying_on(self._request, text), error, at=len(text))
        except LLMException as failure:
            if failure is error:
                raise
            error.message += f"; it could not be continued ({type(failure).__name__})"
            raise error from failure
        self._take(as_stream(result), len(text))

    def _take(self, stream: LLMStream, at: int) -> None:
        target = self._way.target
        self.continued += (Continuation(at, target.provider, target.model or "", stream.key),)
        self._asked = request_with(self._request, model=target.model)
        self._stream = stream
        stream.on_end(self._part_ended)

    def _count_part(self) -> None:
        """Add what the part at hand took: what it told, and where it broke before it told, what is known of it."""
        stream, asked = self._stream, self._asked
        if stream.key is None:  # a place in the stream of an identical call, which pays for it
            return
        usage, came = stream.usage, -(-len(stream.all_text) // CHARACTERS_PER_TOKEN)
        if usage is None:
            usage = TokenUsage(estimate_tokens(asked), came)
        elif self._answer is None:
            usage = replace(usage, output_tokens=max(usage.output_tokens, came))
        cost = stream.cost if stream.cost is not None else self._price(stream.provider, asked.model or "", usage)
        self._usage += usage
        self._cost = None if cost is None or self._cost is None else self._cost + cost


def _is_break(error: LLMException) -> bool:
    """Return whether the provider broke off; else the call ended."""
    if isinstance(error, LLMTimeoutError):
        return error.phase == "idle"
    return isinstance(error, (LLMConnectionError, LLMOverloadedError, LLMRateLimitError, LLMServerError))


def _carrying_on(request: LLMRequest, text: str) -> LLMRequest:
    """Return the request for what comes after `text`; the same again where nothing came. No part is kept."""
    if not text.strip():
        return request_with(request, cache=False)
    turns = (Message(MessageRole.ASSISTANT, text), Message(MessageRole.USER, _GO_ON))
    most = request.max_tokens
    left = None if most is None else max(1, most - len(text) // CHARACTERS_PER_TOKEN)
    return request_with(request, messages=(*request.messages, *turns), max_tokens=left, cache=False)
