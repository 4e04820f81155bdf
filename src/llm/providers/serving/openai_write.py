"""Our values → bodies and events in OpenAI's dialect.

Source: https://platform.openai.com/docs/api-reference/chat/object and …/chat/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.core.messages import ToolCall
    from llm.core.types import LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

DONE = b"data: [DONE]\n\n"


def write_response(response: LLMResponse, *, created: int) -> dict[str, Any]:
    """Return the body that answers `/chat/completions`; `created` in seconds since 1970."""
    message: dict[str, Any] = {"role": "assistant", "content": response.content, "refusal": None, "annotations": []}
    if response.tool_calls:
        message["content"] = response.content or None
        message["tool_calls"] = [_tool_call(call) for call in response.tool_calls]
    if response.thinking:
        message["reasoning_content"] = "".join(part.text for part in response.thinking)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": response.finish_reason or "stop"}
    return {
        "id": response.id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [choice],
        "usage": write_usage(response.usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def write_usage(usage: TokenUsage) -> dict[str, Any]:
    """Return the `usage` of a chat completion."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def write_error(message: str, type: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:  # noqa: A002 - the vendor's name
    """Return the envelope of an error."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def write_error_event(message: str, type: str, code: str | None = None) -> bytes:  # noqa: A002 - the vendor's name
    """Return the event of a failure in the middle of a stream; nothing comes after it."""
    return _event(write_error(message, type, code))


def write_models(names: Iterable[str], *, created: int) -> dict[str, Any]:
    """Return the body that answers `/models`."""
    models = [{"id": name, "object": "model", "created": created, "owned_by": "system"} for name in names]
    return {"object": "list", "data": models}


class OpenAIStream:
    """Writes a chat completion as server-sent events."""

    def __init__(self, *, id: str, model: str, created: int, include_usage: bool = False) -> None:  # noqa: A002 - the vendor's name
        """Start an answer; with `include_usage` its usage comes in a chunk of its own before the end."""
        self._head = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        self._include_usage = include_usage
        self._usage: TokenUsage | None = None
        self._finished = False

    def begin(self) -> bytes:
        """Return what comes before the first chunk: whose turn it is."""
        return self._event({"role": "assistant", "content": "", "refusal": None})

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the events of a chunk; none for one that holds only the usage."""
        self._usage = chunk.usage or self._usage
        delta: dict[str, Any] = {}
        if chunk.thinking is not None and chunk.thinking.text:
            delta["reasoning_content"] = chunk.thinking.text
        if chunk.content:
            delta["content"] = chunk.content
        if chunk.tool_calls:
            delta["tool_calls"] = [_delta(piece) for piece in chunk.tool_calls]
        events = self._event(delta) if delta else b""
        if chunk.finish_reason is not None and not self._finished:
            self._finished = True
            events += self._event({}, chunk.finish_reason)
        return events

    def end(self) -> bytes:
        """Return what closes the answer: the usage where it was asked for, and the mark of the end."""
        events = b"" if self._finished else self._event({}, "stop")
        if self._include_usage and self._usage is not None:
            events += _event({**self._head, "choices": [], "usage": write_usage(self._usage)})
        return events + DONE

    def _event(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        event = {**self._head, "choices": [choice]}
        return _event({**event, "usage": None} if self._include_usage else event)


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _delta(piece: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": piece.arguments}
    written: dict[str, Any] = {"index": piece.index, "function": function}
    if piece.name is not None:
        function["name"] = piece.name
    if piece.id is not None:
        written |= {"id": piece.id, "type": "function"}
    return written
