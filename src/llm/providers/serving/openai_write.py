"""Our values → bodies and events in OpenAI's dialect.

Source: https://platform.openai.com/docs/api-reference/chat/object and …/chat/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from llm.core.messages import signed
from llm.providers.openai.logprobs import write_logprobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.choices import Choice, TokenLogprob
    from llm.core.messages import ToolCall
    from llm.core.types import FinishReason, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta

DONE = b"data: [DONE]\n\n"


def write_response(response: LLMResponse, *, created: int) -> dict[str, Any]:
    """Return the body that answers `/chat/completions`; `created` in seconds since 1970."""
    return {
        "id": response.id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [_choice(choice, index) for index, choice in enumerate(response.choices)],
        "usage": write_usage(response.usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _choice(choice: Choice, index: int) -> dict[str, Any]:
    said = choice.content or (None if choice.tool_calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None, "annotations": []}
    if choice.refused:
        message |= {"content": None, "refusal": choice.content}
    if choice.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in choice.tool_calls]
    if choice.thinking:
        message["reasoning_content"] = "".join([part.text for part in choice.thinking])
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(choice.logprobs, refused=choice.refused),
        "finish_reason": _finish(choice.finish_reason, refused=choice.refused),
    }


def _logprobs(logprobs: tuple[TokenLogprob, ...], *, refused: bool) -> dict[str, Any] | None:
    return write_logprobs(logprobs, refused=refused) if logprobs else None


def _finish(reason: FinishReason | None, *, refused: bool) -> str:
    # Of a refusal the vendor says that it came to its end.
    return "stop" if reason is None or (refused and reason == "content_filter") else reason


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


def write_models(owners: Mapping[str, str | None], *, created: int) -> dict[str, Any]:
    """Return the body that answers `/models`, of each name by whom it is owned."""
    models = [{"id": name, "object": "model", "created": created, "owned_by": owner} for name, owner in owners.items()]
    return {"object": "list", "data": models}


class OpenAIStream:
    """Writes a chat completion as server-sent events; those of several choices as they come."""

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
        self._going: dict[int, bool] = {}
        self._refused: set[int] = set()

    def begin(self) -> bytes:
        """Return what comes before the first chunk: whose turn it is."""
        return self._start(0)

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the events of a chunk; none for one that holds only the usage."""
        self._usage = chunk.usage or self._usage
        index = chunk.index
        events = b"" if index in self._going else self._start(index)
        if chunk.refused:
            self._refused.add(index)
        delta = _delta(chunk)
        logprobs = _logprobs(chunk.logprobs, refused=chunk.refused)
        if delta or logprobs:
            events += self._event(index, delta, logprobs=logprobs)
        if chunk.finish_reason is not None and self._going.get(index, True):
            self._going[index] = False
            events += self._event(index, {}, _finish(chunk.finish_reason, refused=index in self._refused))
        return events

    def end(self) -> bytes:
        """Return what closes the answer: the usage where it was asked for, and the mark of the end."""
        events = b"".join([self._event(index, {}, "stop") for index, going in self._going.items() if going])
        if self._include_usage and self._usage is not None:
            events += _event({**self._head, "choices": [], "usage": write_usage(self._usage)})
        return events + DONE

    def _start(self, index: int) -> bytes:
        self._going[index] = True
        return self._event(index, {"role": "assistant", "content": "", "refusal": None})

    def _event(
        self, index: int, delta: Mapping[str, Any], finish: str | None = None, logprobs: Mapping[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        event = {**self._head, "choices": [choice]}
        return _event({**event, "usage": None} if self._include_usage else event)


def _delta(chunk: StreamChunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.thinking is not None and chunk.thinking.text:
        delta["reasoning_content"] = chunk.thinking.text
    if chunk.content:
        delta["refusal" if chunk.refused else "content"] = chunk.content
    if chunk.tool_calls:
        delta["tool_calls"] = [write_piece(piece) for piece in chunk.tool_calls]
    return delta


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _tool_call(call: ToolCall) -> dict[str, Any]:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    wire = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return wire if call.signature is None else {**wire, **signed(call.signature)}


def write_piece(piece: ToolCallDelta) -> dict[str, Any]:
    """Return a piece of a tool call, as a delta has it."""
    kind, text = ("custom", "input") if piece.custom else ("function", "arguments")
    named = {} if piece.name is None else {"name": piece.name}
    written: dict[str, Any] = {"index": piece.index, kind: {text: piece.arguments, **named}}
    if piece.signature is not None:
        written |= signed(piece.signature)
    return written if piece.id is None else {**written, "id": piece.id, "type": kind}
