"""Our values → bodies and events in Anthropic's dialect.

Source: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.exceptions import LLMServerError
from llm.core.types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.core.messages import ThinkingPart, ToolCall
    from llm.core.types import FinishReason, LLMResponse, StreamChunk, ToolCallDelta

_STOP_REASONS: Final[dict[FinishReason | None, str]] = {
    None: "end_turn",
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def write_response(response: LLMResponse) -> dict[str, Any]:
    """Return the body that answers `/v1/messages`.

    What another server of this dialect said goes on as it came: citations, blocks of the vendor's own tools, the tier.

    Raises:
        LLMServerError: A tool call's arguments are no JSON; this dialect cannot carry them.
    """
    if (message := own_message(response)) is not None:
        return message
    blocks = [_thought(part) for part in response.thinking]
    if response.content or not (response.tool_calls or blocks):
        blocks.append({"type": "text", "text": response.content})
    blocks += [_tool_use(call) for call in response.tool_calls]
    return {
        **_message(response.id, response.model, response.usage),
        "content": blocks,
        "stop_reason": _STOP_REASONS[response.finish_reason],
    }


def own_message(response: LLMResponse) -> dict[str, Any] | None:
    """Return the message of Anthropic's that a response was read from, if that is what it still says; else None."""
    raw: Any = response.raw
    match raw:
        case {"type": "message", "role": "assistant", "content": [*blocks], "usage": {}}:
            pass
        case _:
            return None
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple(block["id"] for block in blocks if block["type"] == "tool_use")
    if said != response.content or calls != tuple(call.id for call in response.tool_calls):
        return None
    return {**raw, "id": response.id, "model": response.model}


def write_usage(usage: TokenUsage) -> dict[str, Any]:
    """Return the `usage` of a message; there `input_tokens` leaves out what the cache held."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def write_error(message: str, type: str, *, request_id: str | None = None) -> dict[str, Any]:  # noqa: A002 - the vendor's name
    """Return the envelope of an error."""
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": request_id}


def write_error_event(message: str, type: str) -> bytes:  # noqa: A002 - the vendor's name
    """Return the event of a failure in the middle of a stream; nothing comes after it."""
    return write_event("error", error={"type": type, "message": message})


def write_models(names: Iterable[str], *, created: str) -> dict[str, Any]:
    """Return the body that answers `/v1/models`, on one page; `created` in RFC 3339."""
    models = [{"type": "model", "id": name, "display_name": name, "created_at": created} for name in names]
    first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
    return {"data": models, "has_more": False, "first_id": first, "last_id": last}


def write_count(tokens: int) -> dict[str, Any]:
    """Return the body that answers `/v1/messages/count_tokens`."""
    return {"input_tokens": tokens}


class AnthropicStream:
    """Writes a message as server-sent events: blocks that start, grow and stop, inside a message that does."""

    def __init__(self, *, id: str, model: str, usage: TokenUsage | None = None) -> None:  # noqa: A002 - the vendor's name
        """Start an answer; `usage` is what is known at its start, of the prompt."""
        self._id = id
        self._model = model
        self._usage = usage or TokenUsage()
        self._finish: FinishReason | None = None
        self._blocks = 0
        self._open: str | None = None
        self._tools: dict[int, int] = {}

    def begin(self) -> bytes:
        """Return what comes before the first chunk: the message without content."""
        started = TokenUsage(self._usage.input_tokens, 1, self._usage.cached_input_tokens)
        message: dict[str, Any] = {**_message(self._id, self._model, started), "content": [], "stop_reason": None}
        return write_event("message_start", message=message) + write_event("ping")

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the events of a chunk; none for one that holds only the usage or the finish."""
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish_reason or self._finish
        events = b"" if chunk.thinking is None else self._thinking(chunk.thinking)
        if chunk.content:
            events += self._in_block("text", {"type": "text", "text": ""})
            events += self._delta({"type": "text_delta", "text": chunk.content})
        return events + b"".join(self._tool(piece) for piece in chunk.tool_calls)

    def end(self) -> bytes:
        """Return what closes the answer: why it stopped, its usage, and the mark of the end."""
        closed = self._close() + b"".join(
            write_event("content_block_stop", index=block) for block in self._tools.values()
        )
        delta = {"stop_reason": _STOP_REASONS[self._finish], "stop_sequence": None}
        return (
            closed
            + write_event("message_delta", delta=delta, usage=write_usage(self._usage))
            + write_event("message_stop")
        )

    def _thinking(self, part: ThinkingPart) -> bytes:
        if part.redacted is not None:
            return self._close() + self._start(_thought(part)) + self._close()
        events = self._in_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if part.text:
            events += self._delta({"type": "thinking_delta", "thinking": part.text})
        if part.signature is not None:
            events += self._delta({"type": "signature_delta", "signature": part.signature}) + self._close()
        return events

    def _tool(self, piece: ToolCallDelta) -> bytes:
        # The pieces of several calls may be mixed, so their blocks stay open to the end.
        events = b""
        if piece.index not in self._tools:
            events = self._close()
            self._tools[piece.index] = self._blocks
            block: dict[str, Any] = {"type": "tool_use", "id": piece.id or "", "name": piece.name or "", "input": {}}
            events += write_event("content_block_start", index=self._blocks, content_block=block)
            self._blocks += 1
        delta = {"type": "input_json_delta", "partial_json": piece.arguments}
        return events + write_event("content_block_delta", index=self._tools[piece.index], delta=delta)

    def _in_block(self, kind: str, block: Mapping[str, Any]) -> bytes:
        return b"" if self._open == kind else self._close() + self._start(block)

    def _start(self, block: Mapping[str, Any]) -> bytes:
        self._open = block["type"]
        self._blocks += 1
        return write_event("content_block_start", index=self._blocks - 1, content_block=block)

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return write_event("content_block_delta", index=self._blocks - 1, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return write_event("content_block_stop", index=self._blocks - 1)


def _message(id: str, model: str, usage: TokenUsage) -> dict[str, Any]:  # noqa: A002 - the vendor's name
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_sequence": None,
        "usage": write_usage(usage),
    }


def _tool_use(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        raise LLMServerError("the model wrote arguments of a tool call that are no JSON; ask again") from None
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _thought(part: ThinkingPart) -> dict[str, Any]:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}


def write_event(kind: str, **fields: object) -> bytes:
    """Return an event of a stream."""
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"
