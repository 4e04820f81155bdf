"""What the engine generated as an answer, whole or in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from llm.core.choices import Choice
from llm.core.types import LLMResponse, StreamChunk, TokenUsage

from .calls import CallReader, gathered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm.core.types import FinishReason

    from .engine import GenerationStream
    from .request import GenerationResult, Piece
    from .tools import CallForm


def new_id() -> str:
    """Return the name of an answer."""
    return f"local-{uuid4().hex}"


def usage_of(result: GenerationResult) -> TokenUsage:
    """Return the tokens of all texts of a result; they share their prompt."""
    output = sum(each.output_tokens for each in (result, *result.others))
    return TokenUsage(result.input_tokens, output, result.cached_tokens)


def response_of(result: GenerationResult, form: CallForm | None, *, model: str, provider: str) -> LLMResponse:
    """Return a whole answer; calls of tools are written in `form`."""
    first, *others = [_choice(each, form) for each in (result, *result.others)]
    return LLMResponse(
        new_id(),
        first.content,
        model,
        provider,
        usage_of(result),
        first.finish_reason,
        first.tool_calls,
        logprobs=first.logprobs,
        alternatives=tuple(others),
    )


def _choice(result: GenerationResult, form: CallForm | None) -> Choice:
    if form is None:
        return Choice(result.text, _finish(result, calls=False), logprobs=result.logprobs)
    reader = CallReader(form)
    heard = reader.push(result.text)
    calls = gathered(heard.calls)
    finish = _finish(result, calls=bool(calls))
    return Choice(heard.text + reader.flush(), finish, calls, logprobs=result.logprobs)


def _finish(result: GenerationResult, *, calls: bool) -> FinishReason:
    if result.finish_reason == "length":
        return "length"
    return "tool_calls" if calls else "stop"


class Chunks:
    """The pieces of a generation as chunks; the last ones say why each text ended, and what all took."""

    def __init__(self, stream: GenerationStream, form: CallForm | None, model: str) -> None:
        """Read from a stream; calls of tools are written in `form`."""
        self.id: str = new_id()
        self.model: str = model
        self._stream = stream
        self._form = form
        self._readers: dict[int, CallReader] = {}
        self._called: set[int] = set()
        self._last: Iterator[StreamChunk] | None = None

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk."""
        while self._last is None:
            try:
                chunk = self._chunk(await self._stream.piece())
            except StopAsyncIteration:
                self._last = self._ending(self._stream.result)
            else:
                if chunk is not None:
                    return chunk
        for chunk in self._last:
            return chunk
        raise StopAsyncIteration

    def waiting(self) -> bool:
        """Return whether a piece is there to be read."""
        return self._stream.waiting()

    def close(self) -> None:
        """Have the generation end."""
        self._stream.close()

    def _chunk(self, piece: Piece) -> StreamChunk | None:
        if self._form is None:
            return StreamChunk(piece.text, index=piece.choice, logprobs=piece.logprobs)
        reader = self._readers.setdefault(piece.choice, CallReader(self._form))
        text, calls = reader.push(piece.text)
        if calls:
            self._called.add(piece.choice)
        if not (text or calls or piece.logprobs):
            return None
        return StreamChunk(text, calls, index=piece.choice, logprobs=piece.logprobs)

    def _ending(self, result: GenerationResult | None) -> Iterator[StreamChunk]:
        if result is None:
            return
        for index, reader in self._readers.items():
            if rest := reader.flush():
                yield StreamChunk(rest, index=index)
        results = (result, *result.others)
        for index, each in enumerate(results):
            usage = usage_of(result) if index == len(results) - 1 else None
            finish = _finish(each, calls=index in self._called)
            yield StreamChunk(finish_reason=finish, usage=usage, index=index)
