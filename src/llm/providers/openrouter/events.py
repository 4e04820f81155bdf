"""The events of a stream from OpenRouter: OpenAI's, with the cost and the details of thoughts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart
from llm.core.types import StreamChunk
from llm.providers.openai.events import OpenAIEvents

from .answer import cost_of
from .thoughts import add, details_of, seal, text_in

if TYPE_CHECKING:
    from llm.core.types import FinishReason


class OpenRouterEvents(OpenAIEvents):
    """Reads one stream."""

    __slots__ = ("_details",)

    def __init__(self) -> None:
        """Start at the first event."""
        super().__init__()
        self._details: list[dict[str, Any]] = []

    def _chunk(
        self, chunk: dict[str, Any], choices: list[dict[str, Any]]
    ) -> StreamChunk | tuple[StreamChunk, ...] | None:
        read = super()._chunk(chunk, choices)
        usage = chunk.get("usage")
        if not usage or read is None:
            return read
        cost = cost_of(usage)
        return (*read[:-1], replace(read[-1], cost=cost)) if isinstance(read, tuple) else replace(read, cost=cost)

    def _piece(self, choice: dict[str, Any]) -> StreamChunk | None:
        read = super()._piece(choice)
        if choice.get("index"):
            return read
        delta: Any = choice.get("delta") or {}
        pieces = details_of(delta.get("reasoning_details"))
        if pieces or (self._details and read is not None and read.finish_reason is not None):
            return self._thinking(read or StreamChunk(), pieces)
        return read

    def _thinking(self, read: StreamChunk, pieces: list[dict[str, Any]]) -> StreamChunk | None:
        for piece in pieces:
            add(self._details, piece)
        text = read.thinking.text if read.thinking is not None else text_in(pieces)
        thought = self._thought(text, read.finish_reason)
        return None if thought is None and read == StreamChunk() else replace(read, thinking=thought)

    def _thought(self, text: str, finish: FinishReason | None) -> ThinkingPart | None:
        """Return a piece of the thought; the last one, at the answer's end, has all the details."""
        if finish is None:
            return ThinkingPart(text) if text else None
        record, self._details = seal(self._details), []
        return ThinkingPart(text, details=record)
