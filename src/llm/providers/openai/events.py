"""The events of a streamed chat completion as chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart
from llm.core.types import StreamChunk, ToolCallDelta
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.wire import read_object, senseless, text_of

from .answer import finish_of, usage_of

if TYPE_CHECKING:
    from llm.utils.sse import Event


class OpenAIEvents:
    """Reads one stream. It ends with `[DONE]`; a finish reason before that ends nothing, for usage follows it."""

    __slots__ = ("_refused", "_started", "done", "id", "model")

    def __init__(self) -> None:
        """Start at the first event."""
        self.id: str = ""
        self.model: str = ""
        self.done: bool = False
        self._started = False
        self._refused = False

    def feed(self, event: Event) -> StreamChunk | None:
        """Take an event and return its chunk; None where it holds nothing for the caller.

        Raises:
            LLMServerError: It makes no sense.
            LLMException: It tells of a failure.
        """
        name, data = event
        if data.startswith(b"[DONE]"):
            if not self._started:
                raise senseless("the end of a stream without an answer")
            self.done = True
            return None
        if name == "error":
            raise error_for(200, read_failure(data))
        chunk = read_object(data)
        try:
            return self._chunk(chunk)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            pass
        raise senseless("an event that is no part of a chat completion")

    def _chunk(self, chunk: dict[str, Any]) -> StreamChunk | None:
        usage = chunk.get("usage")
        tokens = usage_of(usage) if usage else None
        choices: Any = chunk["choices"]
        if not choices:
            return StreamChunk("", (), None, tokens) if tokens else None
        if not self._started:
            self._started = True
            self.id = text_of(chunk.get("id"))
            self.model = text_of(chunk.get("model"))
        choice = choices[0]
        if choice.get("index"):  # another one of several choices; the first is the answer
            return None
        delta: Any = choice.get("delta") or {}
        finish = finish_of(choice)
        text = text_of(delta.get("content"))
        if refusal := delta.get("refusal"):
            self._refused = True
            text += text_of(refusal)
        if finish is not None and self._refused:
            finish = "content_filter"
        calls = delta.get("tool_calls")
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if not (text or finish or calls or thought or tokens):
            return None
        return StreamChunk(
            text,
            tuple(_delta(call, at) for at, call in enumerate(calls)) if calls else (),
            finish,
            tokens,
            ThinkingPart(text_of(thought)) if thought else None,
        )


def _delta(call: dict[str, Any], at: int) -> ToolCallDelta:
    function: Any = call.get("function") or {}
    index = call.get("index")
    return ToolCallDelta(
        at if index is None else int(index),
        text_of(call.get("id")) or None,
        text_of(function.get("name")) or None,
        text_of(function.get("arguments")),
    )
