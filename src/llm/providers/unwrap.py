"""The arguments of the answer tool as the answer's text: however it was asked for, the JSON is the content."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .structured import ANSWER_TOOL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.choices import Choice
    from llm.core.types import LLMResponse, StreamChunk, ToolCallDelta
    from llm.utils.sse import Event

    from .dialect import EventReader


def unwrapped(response: LLMResponse) -> LLMResponse:
    """Return the response with the answer tool's arguments as its text, of each choice; words before them are none."""
    first, *others = [_plain(choice) for choice in response.choices]
    if first.content is response.content and tuple(others) == response.alternatives:
        return response
    return replace(
        response,
        content=first.content,
        tool_calls=first.tool_calls,
        finish_reason=first.finish_reason,
        logprobs=first.logprobs,
        alternatives=tuple(others),
    )


def _plain(choice: Choice) -> Choice:
    own = [call for call in choice.tool_calls if call.name == ANSWER_TOOL]
    if not own:
        return choice
    others = tuple(call for call in choice.tool_calls if call.name != ANSWER_TOOL)
    finish = "stop" if choice.finish_reason == "tool_calls" and not others else choice.finish_reason
    return replace(choice, content=own[0].arguments, tool_calls=others, finish_reason=finish, logprobs=())


class _Pieces:
    """What came of one choice: which calls are the answer tool's, and words that may come before them."""

    __slots__ = ("answers", "held", "others", "own")

    def __init__(self) -> None:
        self.own: int | None = None
        self.answers: set[int] = set()  # places of the answer tool's calls, of which the first is the answer
        self.others = False
        self.held: list[StreamChunk] = []

    def take(self, chunk: StreamChunk) -> list[StreamChunk]:
        if chunk.content and not chunk.tool_calls and chunk.finish_reason is None:
            if self.own is None:  # an answer, where no call comes
                self.held.append(chunk)
            return []
        others = tuple(delta for delta in chunk.tool_calls if not self._is_own(delta))
        self.others = self.others or bool(others)
        if self.own is None:
            before = self.release() if chunk.finish_reason is not None else []
            return [*before, chunk]
        self.held.clear()
        text = "".join([delta.arguments for delta in chunk.tool_calls if delta.index == self.own])
        finish = "stop" if chunk.finish_reason == "tool_calls" and not self.others else chunk.finish_reason
        return [replace(chunk, content=text, tool_calls=others, finish_reason=finish, logprobs=())]

    def release(self) -> list[StreamChunk]:
        held, self.held = self.held, []
        return held

    def _is_own(self, delta: ToolCallDelta) -> bool:
        if delta.name == ANSWER_TOOL:
            self.own = delta.index if self.own is None else self.own
            self.answers.add(delta.index)
        return delta.index in self.answers


class UnwrappedEvents:
    """An `EventReader` that gives the answer tool's arguments as text, piece by piece.

    Words wait for the end of their choice, for they are the answer only where the tool is not called.
    """

    def __init__(self, reader: EventReader) -> None:
        """Read by `reader`."""
        self._reader = reader
        self._pieces: defaultdict[int, _Pieces] = defaultdict(_Pieces)

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
        chunks = () if read is None else read if isinstance(read, tuple) else (read,)
        given = [piece for chunk in chunks for piece in self._pieces[chunk.index].take(chunk)]
        if self._reader.done:  # a choice whose end was not told
            given += [piece for pieces in self._pieces.values() for piece in pieces.release()]
        return tuple(given) or None
