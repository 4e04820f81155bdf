"""A whole message of Anthropic's as the events of a stream, with all blocks that it has.

Source: https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from .anthropic_write import write_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def write_events(message: Mapping[str, Any], *, size: int) -> Iterator[bytes]:
    """Yield the events of a message; text, thoughts and input come in pieces of `size` characters."""
    usage: dict[str, Any] = message["usage"]
    begun: dict[str, Any] = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    begun["usage"] = {**usage, "output_tokens": 1}
    yield write_event("message_start", message=begun)
    yield write_event("ping")
    for index, block in enumerate(message["content"]):
        start, deltas = _taken_apart(block, size)
        yield write_event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield write_event("content_block_delta", index=index, delta=delta)
        yield write_event("content_block_stop", index=index)
    delta = {
        name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details", "container") if name in message
    }
    yield write_event("message_delta", delta=delta, usage={name: usage[name] for name in _COUNTED if name in usage})
    yield write_event("message_stop")


_COUNTED = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "output_tokens_details",
    "server_tool_use",
)  # fmt: skip


def _taken_apart(block: Mapping[str, Any], size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a block starts with, and the pieces that it grows by."""
    match block:
        case {"type": "text", "text": text, **rest}:
            cited = [{"type": "citations_delta", "citation": citation} for citation in rest.get("citations") or ()]
            start: dict[str, Any] = {**block, "text": ""}
            if cited:
                start["citations"] = []
            return start, [*cited, *({"type": "text_delta", "text": piece} for piece in _cut(text, size))]
        case {"type": "thinking", "thinking": thought, "signature": signature}:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(thought, size)]
            start = {**block, "thinking": "", "signature": ""}
            return start, [*deltas, {"type": "signature_delta", "signature": signature}]
        case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "input": given}:
            text = orjson.dumps(given).decode()
            return {**block, "input": {}}, [
                {"type": "input_json_delta", "partial_json": piece} for piece in ("", *_cut(text, size))
            ]
        case _:
            return dict(block), []


def _cut(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
