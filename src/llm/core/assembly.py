"""From the chunks of a stream to the whole response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import ThinkingPart, ToolCall
from .types import LLMResponse, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .types import FinishReason, StreamChunk


def assemble(
    chunks: Iterable[StreamChunk],
    *,
    id: str = "",  # noqa: A002 - the response's field
    model: str = "",
    provider: str = "",
    key: str | None = None,
) -> LLMResponse:
    """Put the chunks of a whole answer together."""
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    thoughts: list[ThinkingPart] = []
    finish: FinishReason | None = None
    usage = TokenUsage()
    cost: float | None = None
    for chunk in chunks:
        texts.append(chunk.content)
        finish = chunk.finish_reason or finish
        if chunk.usage is not None:
            usage, cost = chunk.usage, chunk.cost
        if chunk.thinking is not None:
            _add_thought(thoughts, chunk.thinking)
        for delta in chunk.tool_calls:
            call = calls.setdefault(delta.index, ["", "", ""])
            call[0] = delta.id or call[0]
            call[1] = delta.name or call[1]
            call[2] += delta.arguments
    return LLMResponse(
        id,
        "".join(texts),
        model,
        provider,
        usage,
        finish,
        tuple(ToolCall(*calls[index]) for index in sorted(calls)),
        cost=cost,
        key=key,
        thinking=tuple(thoughts),
    )


def _add_thought(thoughts: list[ThinkingPart], piece: ThinkingPart) -> None:
    # A thought comes as text pieces and ends with its signature or its record; what is redacted comes whole.
    last = thoughts[-1] if thoughts else None
    if last is None or piece.redacted is not None or (last.signature or last.redacted or last.details) is not None:
        thoughts.append(piece)
    else:
        thoughts[-1] = ThinkingPart(last.text + piece.text, piece.signature, details=piece.details)
