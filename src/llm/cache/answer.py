"""An answer as it is kept: versioned JSON, of a response or of a stream's chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import orjson

from llm.core.assembly import assemble
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.source import Replay
from llm.core.stream import LLMStream, as_stream
from llm.core.types import FinishReason, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.stream import LLMResult

_VERSION = 1
_FINISH_REASONS = frozenset(get_args(FinishReason))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer that can be given again, streamed or not.

    Attributes:
        response: All of it, marked as cached: nothing sent, nothing paid.
        chunks: Its chunks, where it came as a stream.
    """

    response: LLMResponse
    chunks: tuple[StreamChunk, ...] | None = None

    @classmethod
    def of(cls, response: LLMResponse, chunks: Sequence[StreamChunk] | None = None) -> Answer:
        """Take an answer that was just given; what belongs to that one call is left out."""
        return cls(as_cached(response), None if chunks is None else tuple(chunks))

    def result(self, *, stream: bool) -> LLMResult:
        """Give it again; a stream has the chunks that it came in."""
        if not stream:
            return self.response
        if self.chunks is None:
            return as_stream(self.response)
        response = self.response
        replay = LLMStream(Replay(self.chunks, id=response.id, model=response.model), provider=response.provider)
        replay.finish_with(lambda _: response)
        return replay

    def encode(self) -> bytes:
        """Return it as bytes.

        Raises:
            ValueError: It holds what JSON cannot: half of a surrogate pair, for one.
        """
        response = self.response
        kept: dict[str, Any] = {
            "v": _VERSION, "id": response.id, "model": response.model, "provider": response.provider,
        }  # fmt: skip
        if self.chunks is not None:
            kept["chunks"] = [_chunk_to_json(chunk) for chunk in self.chunks]
        else:
            kept["content"] = response.content
            kept["usage"] = _usage_to_json(response.usage)
            kept["finish"] = response.finish_reason
            kept["calls"] = [[call.id, call.name, call.arguments] for call in response.tool_calls]
            kept["thinking"] = [_thought_to_json(thought) for thought in response.thinking]
        try:
            return orjson.dumps(kept)
        except TypeError as error:
            raise ValueError(f"the answer has no JSON form: {error}") from None

    @classmethod
    def decode(cls, value: bytes) -> Answer | None:
        """Read it back; None for what is damaged, foreign, or of another version."""
        try:
            kept = orjson.loads(value)
            return _from_json(kept) if kept["v"] == _VERSION else None
        except (ValueError, TypeError, LookupError):
            return None


def as_cached(response: LLMResponse) -> LLMResponse:
    """Return the response as it is given again: cached, free, never sent; without `parsed`, `raw` and key."""
    return replace(response, parsed=None, cached=True, cost=0.0, latency=0.0, attempts=0, key=None, raw=None)


def _from_json(kept: dict[str, Any]) -> Answer:
    id_, model, provider = _text(kept["id"]), _text(kept["model"]), _text(kept["provider"])
    if "chunks" in kept:
        chunks = tuple([_chunk(chunk) for chunk in _list(kept["chunks"])])
        return Answer(as_cached(assemble(chunks, id=id_, model=model, provider=provider)), chunks)
    return Answer(
        LLMResponse(
            id_,
            _text(kept["content"]),
            model,
            provider,
            _usage(kept["usage"]),
            _finish(kept["finish"]),
            tuple([ToolCall(*map(_text, call)) for call in _list(kept["calls"])]),
            cached=True,
            cost=0.0,
            thinking=tuple([_thought(thought) for thought in _list(kept["thinking"])]),
        )
    )


def _chunk_to_json(chunk: StreamChunk) -> Any:  # noqa: ANN401 - JSON
    if not (chunk.tool_calls or chunk.finish_reason or chunk.usage or chunk.thinking):  # nearly all are text alone
        return chunk.content
    return [
        chunk.content,
        [[delta.index, delta.id, delta.name, delta.arguments] for delta in chunk.tool_calls],
        chunk.finish_reason,
        None if chunk.usage is None else _usage_to_json(chunk.usage),
        None if chunk.thinking is None else _thought_to_json(chunk.thinking),
    ]


def _chunk(kept: object) -> StreamChunk:
    if isinstance(kept, str):
        return StreamChunk(kept)
    content, deltas, finish, usage, thinking = _list(kept)
    return StreamChunk(
        _text(content),
        tuple([_delta(*delta) for delta in _list(deltas)]),
        _finish(finish),
        None if usage is None else _usage(usage),
        None if thinking is None else _thought(thinking),
    )


def _delta(index: object, id_: object, name: object, arguments: object) -> ToolCallDelta:
    return ToolCallDelta(_count(index), _text_or_none(id_), _text_or_none(name), _text(arguments))


def _usage_to_json(usage: TokenUsage) -> list[int]:
    return [usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens]


def _usage(kept: object) -> TokenUsage:
    entered, produced, cached, reasoning = _list(kept)
    return TokenUsage(_count(entered), _count(produced), _count(cached), _count(reasoning))


def _thought_to_json(thought: ThinkingPart) -> list[str | None]:
    return [thought.text, thought.signature, thought.redacted, thought.details]


def _thought(kept: object) -> ThinkingPart:
    text, signature, redacted, *rest = _list(kept)  # those of earlier versions end here
    return ThinkingPart(_text(text), _text_or_none(signature), _text_or_none(redacted), *map(_text_or_none, rest))


def _finish(kept: object) -> FinishReason | None:
    if kept is None or kept in _FINISH_REASONS:
        return kept  # type: ignore[return-value]  # is one of them
    raise ValueError("no finish reason")


def _text(kept: object) -> str:
    if isinstance(kept, str):
        return kept
    raise ValueError("no text")


def _text_or_none(kept: object) -> str | None:
    return None if kept is None else _text(kept)


def _count(kept: object) -> int:
    if type(kept) is int:
        return kept
    raise ValueError("no count")


def _list(kept: object) -> list[Any]:
    if isinstance(kept, list):
        return kept  # pyright: ignore[reportUnknownVariableType] - JSON
    raise ValueError("no list")
