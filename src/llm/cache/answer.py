"""An answer as it is kept: versioned JSON, of a response or of a stream's chunks."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, get_args

import orjson

from llm.core.assembly import assemble
from llm.core.choices import Choice, TokenLogprob
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.source import Replay
from llm.core.stream import LLMStream, as_stream
from llm.core.types import FinishReason, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta, response_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.stream import LLMResult

_VERSION = 2
_PRECISIONS = ("f", "d")  # of a vector's numbers, as `struct` names them: single, double
_FINISH_REASONS = frozenset(get_args(FinishReason))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer that can be given again, streamed or not.

    Attributes:
        response: All of it, marked as cached: nothing sent, nothing paid.
        chunks: Its chunks, where it came as a stream.
        fresh: Seconds that it may be used as it is, where it is kept for longer; None: as long as it is kept.
    """

    response: LLMResponse
    chunks: tuple[StreamChunk, ...] | None = None
    fresh: float | None = None

    @classmethod
    def of(
        cls,
        response: LLMResponse,
        chunks: Sequence[StreamChunk] | None = None,
        *,
        seconds: float | None = None,
        fresh: float | None = None,
    ) -> Answer:
        """Take an answer that was just given, in so many seconds; what belongs to that one call is left out."""
        return cls(as_cached(response, seconds), None if chunks is None else tuple(chunks), fresh)

    def aged(self) -> Answer:
        """Return it as it is given when its time is over."""
        return Answer(response_with(self.response, stale=True), self.chunks)

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
        if response.original_latency is not None:
            kept["seconds"] = round(response.original_latency, 6)
        if self.fresh is not None:
            kept["fresh"] = self.fresh
        if self.chunks is not None:
            kept["chunks"] = [_chunk_to_json(chunk) for chunk in self.chunks]
        else:
            kept["usage"] = _usage_to_json(response.usage)
            kept["choices"] = [_choice_to_json(choice) for choice in response.choices]
            if response.embeddings:
                kept["vectors"] = _vectors_to_json(response.embeddings)
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


def as_cached(response: LLMResponse, seconds: float | None = None) -> LLMResponse:
    """Return the response as it is given again: cached, free, never sent; without `parsed`, `raw` and key.

    `seconds` is what it took when the provider gave it; None where that is unknown.
    """
    return response_with(
        response,
        parsed=None,
        cached=True,
        cost=0.0,
        latency=0.0,
        attempts=0,
        key=None,
        raw=None,
        stale=False,
        original_latency=seconds,
    )


def _from_json(kept: dict[str, Any]) -> Answer:
    id_, model, provider = _text(kept["id"]), _text(kept["model"]), _text(kept["provider"])
    seconds, fresh = _seconds(kept.get("seconds")), _seconds(kept.get("fresh"))
    if "chunks" in kept:
        chunks = tuple([_chunk(chunk) for chunk in _list(kept["chunks"])])
        return Answer(as_cached(assemble(chunks, id=id_, model=model, provider=provider), seconds), chunks, fresh)
    first, *others = [_choice(choice) for choice in _list(kept["choices"])]
    return Answer(
        LLMResponse(
            id_,
            first.content,
            model,
            provider,
            _usage(kept["usage"]),
            first.finish_reason,
            first.tool_calls,
            cached=True,
            cost=0.0,
            embeddings=_vectors(kept["vectors"]) if "vectors" in kept else (),
            thinking=first.thinking,
            alternatives=tuple(others),
            logprobs=first.logprobs,
            refused=first.refused,
            original_latency=seconds,
        ),
        fresh=fresh,
    )


def _choice_to_json(choice: Choice) -> list[Any]:
    return [
        choice.content,
        choice.finish_reason,
        [[call.id, call.name, call.arguments, call.custom, *_given(call.signature)] for call in choice.tool_calls],
        [_thought_to_json(thought) for thought in choice.thinking],
        [_logprob_to_json(token) for token in choice.logprobs],
        choice.refused,
    ]


def _choice(kept: object) -> Choice:
    content, finish, calls, thinking, logprobs, refused = _list(kept)
    return Choice(
        _text(content),
        _finish(finish),
        tuple([_call(*_list(call)) for call in _list(calls)]),
        tuple([_thought(thought) for thought in _list(thinking)]),
        tuple([_logprob(token) for token in _list(logprobs)]),
        _flag(refused),
    )


def _call(id_: object, name: object, arguments: object, custom: object, signature: object = None) -> ToolCall:
    return ToolCall(_text(id_), _text(name), _text(arguments), _flag(custom), _text_or_none(signature))


def _given(text: str | None) -> list[str]:
    return [] if text is None else [text]


def _logprob_to_json(token: TokenLogprob) -> list[Any]:
    data = None if token.data is None else base64.b64encode(token.data).decode("ascii")
    return [token.token, token.logprob, data, [_logprob_to_json(other) for other in token.top]]


def _logprob(kept: object) -> TokenLogprob:
    token, logprob, data, top = _list(kept)
    if type(logprob) is not float:
        raise ValueError("no probability")
    return TokenLogprob(
        _text(token),
        logprob,
        None if data is None else base64.b64decode(_text(data), validate=True),
        tuple([_logprob(other) for other in _list(top)]),
    )


def _chunk_to_json(chunk: StreamChunk) -> Any:  # noqa: ANN401 - JSON
    told = chunk.tool_calls or chunk.finish_reason or chunk.usage or chunk.thinking or chunk.logprobs
    if not (told or chunk.index or chunk.refused):  # nearly all are text alone
        return chunk.content
    return [
        chunk.content,
        [
            [delta.index, delta.id, delta.name, delta.arguments, delta.custom, *_given(delta.signature)]
            for delta in chunk.tool_calls
        ],
        chunk.finish_reason,
        None if chunk.usage is None else _usage_to_json(chunk.usage),
        None if chunk.thinking is None else _thought_to_json(chunk.thinking),
        chunk.index,
        [_logprob_to_json(token) for token in chunk.logprobs],
        chunk.refused,
    ]


def _chunk(kept: object) -> StreamChunk:
    if isinstance(kept, str):
        return StreamChunk(kept)
    content, deltas, finish, usage, thinking, index, logprobs, refused = _list(kept)
    return StreamChunk(
        _text(content),
        tuple([_delta(*delta) for delta in _list(deltas)]),
        _finish(finish),
        None if usage is None else _usage(usage),
        None if thinking is None else _thought(thinking),
        _count(index),
        tuple([_logprob(token) for token in _list(logprobs)]),
        _flag(refused),
    )


def _delta(  # noqa: PLR0913, PLR0917 - as they are kept
    index: object, id_: object, name: object, arguments: object, custom: object, signature: object = None
) -> ToolCallDelta:
    named = _text_or_none(id_), _text_or_none(name)
    return ToolCallDelta(_count(index), *named, _text(arguments), _flag(custom), _text_or_none(signature))


def _usage_to_json(usage: TokenUsage) -> list[int]:
    return [usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens]


def _usage(kept: object) -> TokenUsage:
    entered, produced, cached, reasoning = _list(kept)
    return TokenUsage(_count(entered), _count(produced), _count(cached), _count(reasoning))


def _thought_to_json(thought: ThinkingPart) -> list[str | None]:
    return [thought.text, thought.signature, thought.redacted, thought.id, thought.before, thought.details]


def _thought(kept: object) -> ThinkingPart:
    text, signature, redacted, name, before, details = _list(kept)
    return ThinkingPart(_text(text), *map(_text_or_none, (signature, redacted, name, before, details)))


def _vectors_to_json(vectors: tuple[tuple[float, ...], ...]) -> list[Any]:
    # As numbers a vector takes four times the bytes. Vendors send single precision, which then takes half of double.
    for code in _PRECISIONS:
        packed = [_pack(code, vector) for vector in vectors]
        if all(map(_same, vectors, packed, repeat(code))):
            return [code, [base64.b64encode(data).decode("ascii") for data in packed]]
    raise ValueError("a vector holds what is no number")


def _pack(code: str, vector: tuple[float, ...]) -> bytes:
    try:
        return struct.pack(f"<{len(vector)}{code}", *vector)
    except (OverflowError, struct.error):  # too large for single precision
        return b""


def _same(vector: tuple[float, ...], packed: bytes, code: str) -> bool:
    return _unpack(code, packed) == vector


def _vectors(kept: object) -> tuple[tuple[float, ...], ...]:
    code, packed = _list(kept)
    if code not in _PRECISIONS:
        raise ValueError("no precision")
    return tuple([_unpack(code, base64.b64decode(_text(data), validate=True)) for data in _list(packed)])


def _unpack(code: str, data: bytes) -> tuple[float, ...]:
    size, rest = divmod(len(data), struct.calcsize(f"<{code}"))
    if rest:
        raise ValueError("a vector is cut")
    return struct.unpack(f"<{size}{code}", data)


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


def _seconds(kept: object) -> float | None:
    if kept is None or (isinstance(kept, (int, float)) and not isinstance(kept, bool)):
        return kept
    raise ValueError("no seconds")


def _flag(kept: object) -> bool:
    if isinstance(kept, bool):
        return kept
    raise ValueError("no flag")


def _list(kept: object) -> list[Any]:
    if isinstance(kept, list):
        return kept  # pyright: ignore[reportUnknownVariableType] - JSON
    raise ValueError("no list")
