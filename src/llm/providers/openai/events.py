"""The events of a streamed chat completion as chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llm.core.messages import ThinkingPart, signature_of
from llm.core.types import StreamChunk, ToolCallDelta
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.wire import read_object, senseless, text_of

from .answer import arguments_of, finish_of, text_in, thoughts_in, usage_of
from .gather import merged
from .logprobs import read_logprobs

if TYPE_CHECKING:
    from llm.utils.sse import Event

_IN_CHUNKS: Final = frozenset({
    "role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning",
})  # fmt: skip
_OF_CHOICE: Final = frozenset({"index", "delta", "logprobs", "finish_reason"})
_PLAIN: Final = len(_OF_CHOICE)


class OpenAIEvents:
    """Reads one stream. It ends with `[DONE]`; a finish reason before that ends nothing, for usage follows it."""

    __slots__ = (
        "_called", "_calls", "_ended", "_further", "_plain", "_refused", "_said", "_started", "_taken", "_top",
        "_width", "done", "id", "model",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at the first event."""
        self.id: str = ""
        self.model: str = ""
        self.done: bool = False
        self._started = False
        self._said = False  # something came for the caller, beside the text in `_plain`
        self._called: set[int] = set()  # choices that call tools
        # choice, index → id and name of the call, its place
        self._calls: dict[tuple[int, int], tuple[str | None, str | None, int]] = {}
        self._taken: dict[int, set[int]] = {}  # choice → places of its calls
        self._ended: set[int] = set()  # choices that told why they ended
        self._refused: set[int] = set()
        self._top: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}  # the last event, where it held text and nothing else
        self._width = 0
        self._further: dict[int, list[dict[str, Any]]] = {}

    @property
    def raw(self) -> dict[str, Any]:
        """What the events told beside the chunks: their fields, the last word on each that is not null.

        `choices` holds those that told more than the chunks have, such as audio or annotations: put together, and
        under `message`, where a whole answer has it.
        """
        choices = [{"index": index, **merged(pieces)} for index, pieces in sorted(self._further.items())]
        return {**self._top, **_told(self._plain), "choices": choices}

    def feed(self, event: Event) -> StreamChunk | tuple[StreamChunk, ...] | None:
        """Take an event and return its chunk, or its chunks; None where it holds nothing for the caller.

        Raises:
            LLMServerError: It makes no sense.
            LLMException: It tells of a failure.
        """
        name, data = event
        if name == "error":
            raise error_for(200, read_failure(data))
        if data[:6] == b"[DONE]":
            self._end()
            return None
        chunk = read_object(data)
        try:
            choices = chunk["choices"]
            if len(choices) == 1 and len(chunk) == self._width:
                choice = choices[0]
                delta: dict[str, Any] = choice.get("delta") or {}  # Azure's filter tells its verdicts without one
                # Nearly all events are this: more of the text, and nothing else.
                if len(delta) == 1 and len(choice) <= _PLAIN and not (
                    choice.get("finish_reason") or choice.get("logprobs") or choice.get("index") or chunk.get("usage")
                    or choice.get("error")
                ):  # fmt: skip
                    text = delta.get("content")
                    if text and type(text) is str:
                        self._plain = chunk
                        return StreamChunk(text)
            return self._chunk(chunk, choices)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            pass
        raise senseless("an event that is no part of a chat completion")

    def _end(self) -> None:
        if not (self._said or self._plain):
            raise senseless("the end of a stream without an answer")
        if not self._called <= self._ended:
            raise senseless("the end of a stream in the middle of a tool call")
        self.done = True

    def _chunk(
        self, chunk: dict[str, Any], choices: list[dict[str, Any]]
    ) -> StreamChunk | tuple[StreamChunk, ...] | None:
        if self._plain:
            self._top |= _told(self._plain)
            self._plain, self._said = {}, True
        self._top |= _told(chunk)
        self._width = len(chunk)
        if choices and not self._started:
            self._start(chunk)
        pieces = [piece for choice in choices if (piece := self._piece(choice)) is not None]
        self._said = self._said or bool(pieces)
        if usage := chunk.get("usage"):
            tokens = usage_of(usage)
            pieces = [*pieces[:-1], replace(pieces[-1], usage=tokens)] if pieces else [StreamChunk(usage=tokens)]
        if len(pieces) > 1:
            return tuple(pieces)
        return pieces[0] if pieces else None

    def _start(self, chunk: dict[str, Any]) -> None:
        self._started = True
        self.id = text_of(chunk.get("id"))
        self.model = text_of(chunk.get("model"))

    def _piece(self, choice: dict[str, Any]) -> StreamChunk | None:
        index = choice.get("index") or 0
        delta: dict[str, Any] = choice.get("delta") or {}
        if type(index) is not int:
            raise TypeError("expected a choice's place")
        if choice.get("message") and "delta" not in choice:
            raise TypeError("expected a piece, not a whole answer")
        self._note_further(index, choice, delta)
        text, refused = _text(delta)
        if refused:
            self._refused.add(index)
        finish = finish_of(choice)
        if finish is not None:
            self._ended.add(index)
            finish = "content_filter" if index in self._refused else finish
        calls = self._tool_calls(index, delta)
        if calls:
            self._called.add(index)
        thought = delta.get("reasoning_content") or delta.get("reasoning") or thoughts_in(delta.get("content"))
        logprobs = choice.get("logprobs")
        likely = read_logprobs(logprobs) if logprobs else ()
        if not (text or finish or calls or thought or likely):
            return None
        thinking = ThinkingPart(text_of(thought)) if thought else None
        return StreamChunk(text, calls, finish, None, thinking, index, likely, refused)

    def _tool_calls(self, choice: int, delta: dict[str, Any]) -> tuple[ToolCallDelta, ...]:
        if calls := delta.get("tool_calls"):
            return tuple([self._placed(choice, _delta(call, at)) for at, call in enumerate(calls)])
        if call := delta.get("function_call"):  # the form before tools
            return (_delta({"function": call}, 0),)
        return ()

    def _placed(self, choice: int, piece: ToolCallDelta) -> ToolCallDelta:
        """Return a piece with the place of its call; some servers give calls that come one by one the same index."""
        at = choice, piece.index
        known = self._calls.get(at)
        if known is None or (piece.name is not None and (_differ(piece.id, known[0]) or _differ(piece.name, known[1]))):
            taken = self._taken.setdefault(choice, set())
            place = piece.index if piece.index not in taken else max(taken) + 1
            known = self._calls[at] = piece.id, piece.name, place
            taken.add(place)
        place = known[2]
        return piece if place == piece.index else replace(piece, index=place)

    def _note_further(self, index: int, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        further = {name: value for name, value in choice.items() if name not in _OF_CHOICE}
        if message := {name: value for name, value in delta.items() if name not in _IN_CHUNKS}:
            further["message"] = message
        if further:
            self._further.setdefault(index, []).append(further)


def _differ(one: str | None, other: str | None) -> bool:
    return None not in {one, other} and one != other


def _told(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if value is not None and name != "choices"}


def _text(delta: dict[str, Any]) -> tuple[str, bool]:
    text = text_in(delta.get("content"))
    if refusal := delta.get("refusal"):
        return text + text_of(refusal), True
    if not text and (audio := delta.get("audio")):
        text = text_of(audio.get("transcript"))
    return text, False


def _delta(call: dict[str, Any], at: int) -> ToolCallDelta:
    custom: Any = call.get("custom")
    function: Any = custom or call.get("function") or {}
    index = call.get("index")
    return ToolCallDelta(
        at if index is None else int(index),
        text_of(call.get("id")) or None,
        text_of(function.get("name")) or None,
        arguments_of(function.get("input" if custom else "arguments")),
        bool(custom),
        signature_of(call),
    )
