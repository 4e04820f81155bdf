"""Items of a streamed response while they grow, each telling its own events.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart, ToolCall

from .responses_write import call_item, message_item, text_part, write_item

if TYPE_CHECKING:
    from collections.abc import Callable


class OpenText:
    """A message that is being said."""

    def __init__(self, tell: Callable[..., None], name: str, place: int) -> None:
        """Begin the item `name` at `place` of the output, whose events go to `tell`."""
        self._tell = tell
        self.name = name
        self.place = place
        self.where: dict[str, Any] = {"item_id": name, "output_index": place, "content_index": 0}
        self._text = ""

    def add(self, text: str) -> None:
        """Say more."""
        self._text += text
        self._tell("response.output_text.delta", **self.where, delta=text, logprobs=[])

    def done(self, status: str) -> dict[str, Any]:
        """End it in this status, and return the whole item."""
        self._tell("response.output_text.done", **self.where, text=self._text, logprobs=[])
        self._tell("response.content_part.done", **self.where, part=text_part(self._text))
        return message_item(self.name, status, self._text)


class OpenCall:
    """A tool call whose arguments come."""

    def __init__(self, tell: Callable[..., None], name: str, place: int, begun: ToolCall) -> None:
        """Begin the item `name` at `place` of the output with a call without arguments; events go to `tell`."""
        self._tell = tell
        self.name = name
        self.place = place
        self._where: dict[str, Any] = {"item_id": name, "output_index": place}
        self._begun = begun
        self._arguments = ""

    def add(self, arguments: str) -> None:
        """Write more of the arguments."""
        self._arguments += arguments
        self._tell("response.function_call_arguments.delta", **self._where, delta=arguments)

    def done(self, status: str) -> dict[str, Any]:
        """End it in this status, and return the whole item."""
        call = ToolCall(self._begun.id, self._begun.name, self._arguments)
        told = {"name": call.name, "arguments": call.arguments}
        self._tell("response.function_call_arguments.done", **self._where, **told)
        return call_item(self.name, status, call)


class OpenThought:
    """A thought whose texts come: parts of a summary where it has an id of the vendor's, else the thought itself."""

    def __init__(self, tell: Callable[..., None], name: str, place: int, *, summary: bool) -> None:
        """Begin the item `name` at `place` of the output, whose events go to `tell`."""
        self._tell = tell
        self.name = name
        self.place = place
        self._where: dict[str, Any] = {"item_id": name, "output_index": place}
        self._summary = summary
        self._texts: list[str] = []
        self._encrypted: str | None = None

    def add(self, piece: ThinkingPart) -> None:
        """Think on; a piece with an id begins another part."""
        if piece.text:
            if piece.id is not None or not self._texts:
                self._end_part()
                self._texts.append("")
                self._tell_part("added", "")
            self._texts[-1] += piece.text
            self._tell_text("delta", {"delta": piece.text})
        self._encrypted = piece.redacted or self._encrypted

    def done(self, _: str) -> dict[str, Any]:
        """End it, and return the whole item, which has no status."""
        self._end_part()
        name = self.name if self._summary else None
        *first, last = self._texts or [""]
        parts = (*(ThinkingPart(text, id=name) for text in first), ThinkingPart(last, None, self._encrypted, name))
        return write_item(parts, self.name, "")

    def _end_part(self) -> None:
        if self._texts:
            self._tell_text("done", {"text": self._texts[-1]})
            self._tell_part("done", self._texts[-1])

    def _tell_text(self, what: str, fields: dict[str, str]) -> None:
        kind = "reasoning_summary_text" if self._summary else "reasoning_text"
        self._tell(f"response.{kind}.{what}", **self._where, **self._index(), **fields)

    def _tell_part(self, what: str, text: str) -> None:
        kind = "reasoning_summary_part" if self._summary else "content_part"
        part = {"type": "summary_text" if self._summary else "reasoning_text", "text": text}
        self._tell(f"response.{kind}.{what}", **self._where, **self._index(), part=part)

    def _index(self) -> dict[str, int]:
        return {"summary_index" if self._summary else "content_index": len(self._texts) - 1}
