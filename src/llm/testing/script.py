"""What a `FakeProvider` says, as a source of chunks."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeAlias

from llm.core.assembly import call_deltas
from llm.core.exceptions import LLMConnectionError
from llm.core.messages import ToolCall
from llm.core.types import StreamChunk, TokenUsage
from llm.providers.responses.thoughts import in_order

from .echo import count_tokens, prompt_tokens
from .pause import Pause

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import EllipsisType

    from llm.core.choices import Choice, TokenLogprob
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock

Piece: TypeAlias = "str | StreamChunk | Exception | EllipsisType"
"""A piece of a streamed answer: text, a chunk, an exception that breaks the stream there, or `...`: no more comes."""
Answer: TypeAlias = "str | LLMResponse | Exception | Sequence[Piece]"
"""A text, a whole response, an exception to raise, or a stream's pieces."""


def cut(response: LLMResponse, size: int) -> Iterator[StreamChunk]:
    """Yield a response in pieces: thoughts, text in chunks of `size` characters, tool calls, then finish and usage.

    A thought that led to a tool call comes right before it. Where there are logprobs of all of the text, a chunk is a
    token; several choices come in turns.
    """
    choices = [_cut(choice, index, size) for index, choice in enumerate(response.choices)]
    *pieces, last = filter(None, chain.from_iterable(zip_longest(*choices)))
    yield from pieces
    yield replace(last, usage=response.usage)


def _cut(choice: Choice, index: int, size: int) -> Iterator[StreamChunk]:
    calls = iter(call_deltas(choice.tool_calls))
    if choice.logprobs and not choice.content:
        yield StreamChunk(index=index, logprobs=choice.logprobs)
    for said in in_order(choice.thinking, choice.content, choice.tool_calls):
        if isinstance(said, str):
            for text, logprobs in _texts(choice, size):
                yield StreamChunk(text, index=index, logprobs=logprobs, refused=choice.refused)
        elif isinstance(said, ToolCall):
            yield StreamChunk(tool_calls=(next(calls),), index=index)
        else:
            for part in said:
                yield StreamChunk(thinking=part, index=index)
    yield StreamChunk(finish_reason=choice.finish_reason, index=index)


def _texts(choice: Choice, size: int) -> Iterator[tuple[str, tuple[TokenLogprob, ...]]]:
    text, logprobs = choice.content, choice.logprobs
    if logprobs and "".join([token.token for token in logprobs]) == text:
        for token in logprobs:
            yield token.token, (token,)
        return
    for start in range(0, len(text), size):
        yield text[start : start + size], () if start else logprobs


def complete(request: LLMRequest, pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces, and finish and usage where none of them finishes."""
    text, finished = "", False
    for piece in pieces:
        yield piece
        if isinstance(piece, StreamChunk):
            finished = finished or piece.finish_reason is not None
        text += str(piece) if isinstance(piece, (str, StreamChunk)) else ""
    if not finished:
        usage = TokenUsage(prompt_tokens(request), count_tokens(len(text)))
        yield StreamChunk(finish_reason="stop", usage=usage)


class Script:
    """A `ChunkSource` that plays pieces."""

    def __init__(
        self,
        pieces: Iterator[Piece],
        *,
        id: str,  # noqa: A002 - the seam's name
        model: str,
        interval: float,
        clock: Clock,
    ) -> None:
        """Play `pieces`, `interval` seconds apart."""
        self.id: str = id
        self.model: str = model
        self._pieces = pieces
        self._interval = interval
        self._pause = Pause(clock)
        self._started = False

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: That was all.
            Exception: The script's.
            LLMConnectionError: `close` was called meanwhile.
        """
        for piece in self._pieces:
            if self._started and self._interval:
                await self._pause.wait(self._interval)
            self._started = True
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, StreamChunk):
                return piece
            if isinstance(piece, str):
                return StreamChunk(piece)
            await self._pause.wait(None)
        raise StopAsyncIteration

    def waiting(self) -> bool:
        """Return False: what is not asked for is not there yet."""
        return False

    def close(self) -> None:
        """End it; a read that is under way raises."""
        self._pieces = iter(())
        self._pause.break_off(LLMConnectionError("the stream was closed while it was read", sent=True))
