"""The whole message that a stream's events come to, as the vendor would have sent it at once."""

from __future__ import annotations

from typing import Any, Final

import orjson

_GROWING: Final = {"text": "text", "thinking": "thinking"}
"""Blocks that grow by text, and the field that does; the others grow by the JSON of their input."""


class Gathering:
    """Keeps what the events bring, and puts it together when it is asked for.

    Attributes:
        pieces: What each block's text, thought or input grew by, by the block's place.
    """

    __slots__ = ("_blocks", "_message", "pieces")

    def __init__(self, message: dict[str, Any]) -> None:
        """Begin with the message of `message_start`."""
        self._message: dict[str, Any] = message
        self._blocks: dict[int, dict[str, Any]] = {}
        self.pieces: dict[int, list[str]] = {}

    def open(self, index: int, block: dict[str, Any]) -> None:
        """Take a block's beginning."""
        self._blocks[index] = block
        self.pieces[index] = []

    def grow(self, index: int, text: str) -> None:
        """Take a piece of a block's text, thought or input."""
        if index in self.pieces:
            self.pieces[index].append(text)

    def add(self, index: int, delta: dict[str, Any]) -> None:
        """Take a piece that is neither text nor input: a signature, a citation, or what the vendor adds later."""
        block = self._blocks.get(index)
        if block is None:
            return
        citation = delta.get("citation")
        if citation is not None:
            block["citations"] = [*(block.get("citations") or ()), citation]
        else:
            block.update({name: value for name, value in delta.items() if name != "type"})

    def close(self, body: dict[str, Any]) -> None:
        """Take the end: why it stopped, and the usage, whose counts are of the whole answer."""
        told: dict[str, Any] = body.get("usage") or {}
        before: dict[str, Any] = self._message.get("usage") or {}
        usage = {**before, **{name: count for name, count in told.items() if count is not None}}
        self._message = {**self._message, **body["delta"], "usage": usage}

    def message(self) -> dict[str, Any]:
        """Return the message as far as it has come."""
        return {**self._message, "content": [self._block(index) for index in self._blocks]}

    def _block(self, index: int) -> dict[str, Any]:
        block, grown = self._blocks[index], "".join(self.pieces[index])
        if not grown:
            return block
        field = _GROWING.get(block["type"])
        return (
            {**block, "input": _input(grown)} if field is None else {**block, field: (block.get(field) or "") + grown}
        )


def _input(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # cut off by max_tokens
        return text
