"""The arguments of the answer tool as the answer's text: however it was asked for, the JSON is the content."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .structured import ANSWER_TOOL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMResponse, StreamChunk, ToolCallDelta
    from llm.utils.sse import Event

    from .dialect import EventReader


def unwrapped(response: LLMResponse) -> LLMResponse:
    """Return the response with the answer tool's arguments as its text."""
    own = [call for call in response.tool_calls if call.name == ANSWER_TOOL]
    if not own:
        return response
    others = tuple(call for call in response.tool_calls if call.name != ANSWER_TOOL)
    finish = "stop" if response.finish_reason == "tool_calls" and not others else response.finish_reason
    return replace(response, content=own[0].arguments, tool_calls=others, finish_reason=finish)


class UnwrappedEvents:
    """An `EventReader` that gives the answer tool's arguments as text, piece by piece."""

    def __init__(self, reader: EventReader) -> None:
        """Read by `reader`."""
        self._reader = reader
        self._own: int | None = None
        self._answers: set[int] = set()  # places of the answer tool's calls, of which the first is the answer
        self._others = False

    @property
    def id(self) -> str:
        """As in `EventReader`."""
        return self._reader.id

    @property
    def model(self) -> str:
        """As in `EventReader`."""
        return self._reader.model

    @property
    def raw(self) -> Mapping[str, Any] | None:
        """As in `EventReader`."""
        return self._reader.raw

    @property
    def done(self) -> bool:
        """As in `EventReader`."""
        return self._reader.done

    def feed(self, event: Event) -> StreamChunk | tuple[StreamChunk, ...] | None:
        """As in `EventReader`."""
        read = self._reader.feed(event)
        if read is None:
            return None
        return tuple(map(self._unwrap, read)) if isinstance(read, tuple) else self._unwrap(read)

    def _unwrap(self, chunk: StreamChunk) -> StreamChunk:
        if chunk.index or not (chunk.tool_calls or chunk.finish_reason == "tool_calls"):
            return chunk  # of several choices the first is the answer
        others = tuple(delta for delta in chunk.tool_calls if not self._is_own(delta))
        self._others = self._others or bool(others)
        text = "".join([delta.arguments for delta in chunk.tool_calls if delta.index == self._own])
        finish = chunk.finish_reason
        if finish == "tool_calls" and self._own is not None and not self._others:
            finish = "stop"
        return replace(chunk, content=chunk.content + text, tool_calls=others, finish_reason=finish)

    def _is_own(self, delta: ToolCallDelta) -> bool:
        if delta.name == ANSWER_TOOL:
            self._own = delta.index if self._own is None else self._own
            self._answers.add(delta.index)
        return delta.index in self._answers
