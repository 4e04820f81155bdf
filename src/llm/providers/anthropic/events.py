"""The events of Anthropic's streamed message as chunks.

Source: https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart
from llm.core.types import StreamChunk, ToolCallDelta
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.wire import read_object, senseless, text_of

from .answer import arguments_of, finish_of, usage_of
from .gathering import Gathering

if TYPE_CHECKING:
    from llm.utils.sse import Event


class AnthropicEvents:
    """Reads one stream. It ends with `message_stop`."""

    __slots__ = ("_calls", "_empty", "_ended", "_gathered", "_pieces", "_told", "_usage", "done", "id", "model")

    def __init__(self) -> None:
        """Start at the first event."""
        self.id: str = ""
        self.model: str = ""
        self.done: bool = False
        self._told = False  # the vendor's word of the end came
        self._ended = False  # it was told why
        self._usage: dict[str, Any] | None = None
        self._gathered = Gathering({})
        self._pieces = self._gathered.pieces
        self._calls: dict[int, int] = {}  # place of a block → place of its call among the calls
        self._empty: set[int] = set()  # blocks of calls whose arguments have not begun

    @property
    def raw(self) -> dict[str, Any] | None:
        """The message that the events have come to, citations and blocks of the vendor's own tools included."""
        return None if self._usage is None else self._gathered.message()

    def feed(self, event: Event) -> StreamChunk | None:
        """Take an event and return its chunk; None where it holds nothing for the caller.

        Raises:
            LLMServerError: It makes no sense.
            LLMException: It tells of a failure.
        """
        name, data = event
        if name == "error":
            raise error_for(200, read_failure(data))
        body = read_object(data)
        try:
            return self._read(body)
        except (KeyError, TypeError, AttributeError, ValueError):
            pass
        raise senseless("an event that is no part of a message")

    def _read(self, body: dict[str, Any]) -> StreamChunk | None:
        kind = body["type"]
        if kind == "content_block_delta":
            index, delta = body["index"], body["delta"]
            if delta["type"] != "text_delta":
                return self._delta(index, delta)
            text = text_of(delta["text"])  # nearly all events are these
            if index in self._pieces:
                self._pieces[index].append(text)
            return StreamChunk(text)
        if kind == "message_start":
            self._start(body["message"])
        if kind == "content_block_start":
            return self._open(body["index"], body["content_block"])
        if kind == "content_block_stop":
            return self._shut(body["index"])
        if kind == "message_delta":
            return self._last(body)
        if kind == "message_stop":
            self._stop()
        if kind == "error":
            raise error_for(200, read_failure(body))
        return None  # pings, and what the vendor adds later, say nothing to the caller

    def _start(self, message: dict[str, Any]) -> None:
        self.id = text_of(message.get("id"))
        self.model = text_of(message.get("model"))
        self._usage = dict(message.get("usage") or {})
        self._gathered = Gathering(message)
        self._pieces = self._gathered.pieces

    def _stop(self) -> None:
        if self._usage is None or not (self._ended or self._pieces):
            raise senseless("the end of a stream without an answer")
        if not self._told:
            raise senseless("the end of a stream without its message_delta, which tells why it ended and what it took")
        if self._calls and not self._ended:
            raise senseless("the end of a stream in the middle of a tool call")
        self.done = True

    def _open(self, index: int, block: dict[str, Any]) -> StreamChunk | None:
        kind = block["type"]
        self._gathered.open(index, block)
        if kind == "text":
            text = text_of(block.get("text"))
            return StreamChunk(text) if text else None
        if kind == "thinking":
            text, signature = text_of(block.get("thinking")), text_of(block.get("signature"))
            return StreamChunk(thinking=ThinkingPart(text, signature or None)) if text or signature else None
        if kind == "tool_use":
            return StreamChunk("", (self._call(index, block),))
        if kind == "redacted_thinking":
            return StreamChunk(thinking=ThinkingPart("", redacted=text_of(block["data"])))
        return None

    def _call(self, index: int, block: dict[str, Any]) -> ToolCallDelta:
        place = self._calls[index] = len(self._calls)
        given = block.get("input")  # here already at some servers, where Anthropic's has an empty object
        if not given:
            self._empty.add(index)
        arguments = arguments_of(given) if given else ""
        return ToolCallDelta(place, text_of(block["id"]), text_of(block["name"]), arguments)

    def _delta(self, index: int, delta: dict[str, Any]) -> StreamChunk | None:
        kind = delta["type"]
        if kind == "input_json_delta":
            text = text_of(delta["partial_json"])
            self._gathered.grow(index, text)
            return self._arguments(index, text)
        if kind == "thinking_delta":
            text = text_of(delta["thinking"])
            self._gathered.grow(index, text)
            return StreamChunk(thinking=ThinkingPart(text))
        self._gathered.add(index, delta)
        if kind == "signature_delta":
            return StreamChunk(thinking=ThinkingPart("", text_of(delta["signature"])))
        return None

    def _arguments(self, index: int, text: str) -> StreamChunk | None:
        if index not in self._pieces:
            raise TypeError("expected the beginning of a block before more of it")
        place = self._calls.get(index)  # the vendor's own tools have arguments too, and no one here to call
        if place is None or not text:
            return None
        self._empty.discard(index)
        return StreamChunk("", (ToolCallDelta(place, arguments=text),))

    def _shut(self, index: int) -> StreamChunk | None:
        if index not in self._empty:
            return None
        self._empty.remove(index)
        return StreamChunk("", (ToolCallDelta(self._calls[index], arguments="{}"),))

    def _last(self, body: dict[str, Any]) -> StreamChunk:
        # Its counts are of the whole answer, and replace those of the start where they are given.
        usage: dict[str, Any] = body.get("usage") or {}
        given = {name: count for name, count in usage.items() if count is not None}
        finish = finish_of(body["delta"].get("stop_reason"))
        self._told = True
        self._ended = self._ended or finish is not None
        chunk = StreamChunk("", (), finish, usage_of({**(self._usage or {}), **given}))
        self._gathered.close(body)
        return chunk
