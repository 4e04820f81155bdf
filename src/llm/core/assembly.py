"""From the chunks of a stream to the whole response, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .choices import Choice
from .messages import ThinkingPart, ToolCall
from .types import LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .choices import TokenLogprob
    from .types import FinishReason


def assemble(  # noqa: PLR0913 - the response's fields
    chunks: Sequence[StreamChunk],
    *,
    id: str = "",  # noqa: A002 - the response's field
    model: str = "",
    provider: str = "",
    key: str | None = None,
    raw: Mapping[str, Any] | None = None,
) -> LLMResponse:
    """Put the chunks of a whole answer together; those of several choices may come in any order."""
    first, *others = _choices(chunks)
    told = next((chunk for chunk in reversed(chunks) if chunk.usage is not None), None)
    return LLMResponse(
        id,
        first.content,
        model,
        provider,
        TokenUsage() if told is None or told.usage is None else told.usage,
        first.finish_reason,
        first.tool_calls,
        cost=None if told is None else told.cost,
        key=key,
        raw=raw,
        thinking=first.thinking,
        alternatives=tuple(others),
        logprobs=first.logprobs,
        refused=first.refused,
    )


def take_apart(response: LLMResponse) -> list[StreamChunk]:
    """Return chunks that make up a whole answer: as few as can be, the usage in the last."""
    chunks: list[StreamChunk] = []
    last = len(response.alternatives)
    for index, choice in enumerate(response.choices):
        chunks += [StreamChunk(thinking=part, index=index) for part in choice.thinking]
        chunks.append(
            StreamChunk(
                choice.content,
                call_deltas(choice.tool_calls),
                choice.finish_reason,
                response.usage if index == last else None,
                index=index,
                logprobs=choice.logprobs,
                refused=choice.refused,
            )
        )
    return chunks


def call_deltas(calls: Iterable[ToolCall]) -> tuple[ToolCallDelta, ...]:
    """Return each call in one piece."""
    return tuple(
        [
            ToolCallDelta(at, call.id, call.name, call.arguments, call.custom, call.signature)
            for at, call in enumerate(calls)
        ]
    )


def _choices(chunks: Sequence[StreamChunk]) -> list[Choice]:
    # Nearly all chunks are text alone, of the only choice.
    rare = [
        c for c in chunks
        if c.finish_reason or c.tool_calls or c.thinking or c.logprobs or c.refused or c.index
    ]  # fmt: skip
    if not any(chunk.index for chunk in rare):
        return [_choice(chunks, rare)]
    sorted_out: dict[int, list[StreamChunk]] = {}
    for chunk in chunks:
        sorted_out.setdefault(chunk.index, []).append(chunk)
    return [_choice(sorted_out[index], sorted_out[index]) for index in sorted(sorted_out)]


def _choice(chunks: Sequence[StreamChunk], rare: Sequence[StreamChunk]) -> Choice:
    deltas: list[ToolCallDelta] = []
    thoughts: list[ThinkingPart] = []
    logprobs: list[TokenLogprob] = []
    finish: FinishReason | None = None
    refused = False
    for chunk in rare:
        finish = chunk.finish_reason or finish
        refused = chunk.refused or refused
        deltas += chunk.tool_calls
        logprobs += chunk.logprobs
        if chunk.thinking is not None:
            _add_thought(thoughts, chunk.thinking)
    text = "".join([chunk.content for chunk in chunks])
    return Choice(text, finish, _calls(deltas) if deltas else (), tuple(thoughts), tuple(logprobs), refused)


def _calls(deltas: list[ToolCallDelta]) -> tuple[ToolCall, ...]:
    calls: dict[int, ToolCallDelta] = {}
    texts: dict[int, list[str]] = {}
    for delta in deltas:
        index = delta.index
        before = calls.get(index, delta)
        id_, name = delta.id or before.id, delta.name or before.name
        custom, signature = delta.custom or before.custom, delta.signature or before.signature
        calls[index] = ToolCallDelta(index, id_, name, custom=custom, signature=signature)
        texts.setdefault(index, []).append(delta.arguments)
    return tuple(
        [
            ToolCall(call.id or "", call.name or "", "".join(texts[at]), call.custom, call.signature)
            for at, call in sorted(calls.items())
        ]
    )


def _add_thought(thoughts: list[ThinkingPart], piece: ThinkingPart) -> None:
    # A thought comes as text pieces. It begins with its id, where it has one, and ends with its signature, record or
    # encrypted form; what is redacted and has no id comes whole.
    last = thoughts[-1] if thoughts else None
    if last is None or piece.id is not None or _is_whole(last) or (piece.redacted is not None and last.id is None):
        thoughts.append(piece)
    else:
        thoughts[-1] = replace(piece, text=last.text + piece.text, id=last.id)


def _is_whole(thought: ThinkingPart) -> bool:
    return (thought.signature or thought.redacted or thought.details) is not None
