"""Our chunks → events of OpenAI's Responses API.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart, ToolCall

from .responses_items import OpenCall, OpenText, OpenThought
from .responses_write import (
    call_item,
    envelope,
    item_id,
    message_item,
    status_of,
    text_part,
    write_error_event,
    write_event,
    write_item,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import FinishReason, StreamChunk, TokenUsage, ToolCallDelta


class ResponsesStream:
    """Writes a response as server-sent events: items that are added, grow and are done, inside a response that is.

    One item of thought or text is open at a time; tool calls, whose pieces may be mixed, stay open to the end.
    """

    def __init__(self, *, id: str, model: str, created: int, body: Mapping[str, Any]) -> None:  # noqa: A002 - the vendor's name
        """Start an answer to the request `body`; `created` in seconds since 1970."""
        self._id = id
        self._head: dict[str, Any] = {"id": id, "model": model, "body": body, "created": created}
        self._events: list[bytes] = []
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open: OpenText | OpenThought | None = None
        self._calls: dict[int, OpenCall] = {}
        self._finish: FinishReason | None = None
        self._usage: TokenUsage | None = None

    def begin(self) -> bytes:
        """Return what comes before the first chunk: the response without content."""
        response = envelope(**self._head, status="in_progress")
        self._tell("response.created", response=response)
        self._tell("response.in_progress", response=response)
        return self._told()

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the events of a chunk; none for one that holds only the usage or the finish."""
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish_reason or self._finish
        if chunk.thinking is not None:
            self._think(chunk.thinking)
        if chunk.content:
            self._say(chunk.content)
        for piece in chunk.tool_calls:
            self._call(piece)
        return self._told()

    def end(self) -> bytes:
        """Return what closes the answer: the items that are open, and the whole response."""
        status = status_of(self._finish)
        if not self._output:
            self._say("")
        last = self._output[-1]["id"]
        for item in (*([] if self._open is None else [self._open]), *self._calls.values()):
            self._done(item.place, item.done(status if item.name == last else "completed"))
        response = envelope(**self._head, status=status, finish=self._finish, output=self._output, usage=self._usage)
        self._tell(f"response.{status}", response=response)
        return self._told()

    def fail(self, message: str, code: str | None) -> bytes:
        """Return the event of a failure in the middle of the answer; nothing comes after it."""
        return write_error_event(message, code, number=self._number)

    def _tell(self, kind: str, **fields: object) -> None:
        """Add an event."""
        self._events.append(write_event(kind, self._number, fields))
        self._number += 1

    def _told(self) -> bytes:
        told = b"".join(self._events)
        self._events.clear()
        return told

    def _think(self, piece: ThinkingPart) -> None:
        if piece.id is None and not piece.text and not isinstance(self._open, OpenThought):
            return  # another vendor's, and hidden
        opened = self._open
        if not isinstance(opened, OpenThought) or piece.id not in {None, opened.name}:
            self._close()
            place = len(self._output)
            name = item_id(self._id, (piece,), place)
            opened = self._open = OpenThought(self._tell, name, place, summary=piece.id is not None)
            self._add(write_item((ThinkingPart("", id=piece.id),), opened.name, ""))
        opened.add(piece)
        if piece.redacted is not None:
            self._close()

    def _say(self, text: str) -> None:
        opened = self._open
        if not isinstance(opened, OpenText):
            self._close()
            place = len(self._output)
            opened = self._open = OpenText(self._tell, item_id(self._id, "", place), place)
            self._add(message_item(opened.name, "in_progress", None))
            self._tell("response.content_part.added", **opened.where, part=text_part(""))
        opened.add(text)

    def _call(self, piece: ToolCallDelta) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            self._close()
            place = len(self._output)
            begun = ToolCall(piece.id or "", piece.name or "", "")
            call = self._calls[piece.index] = OpenCall(self._tell, item_id(self._id, begun, place), place, begun)
            self._add(call_item(call.name, "in_progress", begun))
        if piece.arguments:
            call.add(piece.arguments)

    def _add(self, item: dict[str, Any]) -> None:
        self._tell("response.output_item.added", output_index=len(self._output), item=item)
        self._output.append(item)

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            self._done(opened.place, opened.done("completed"))

    def _done(self, place: int, item: dict[str, Any]) -> None:
        self._output[place] = item
        self._tell("response.output_item.done", output_index=place, item=item)
