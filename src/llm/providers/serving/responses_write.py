"""Our values → bodies of OpenAI's Responses API; errors have the envelope of chat completions.

Source: https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.messages import ToolCall
from llm.providers.responses.thoughts import in_order, write_thought

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.types import FinishReason, LLMResponse, TokenUsage
    from llm.providers.responses.thoughts import Thought

_REASONS: Final[dict[FinishReason | None, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not complete; with any other reason to end it is."""

# What a response repeats of its request, and what it says where the request is silent.
_ECHOED: Final[Mapping[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def write_response(response: LLMResponse, body: Mapping[str, Any], *, created: int) -> dict[str, Any]:
    """Return what answers `/responses`; `body` is the request's, `created` in seconds since 1970."""
    status = status_of(response.finish_reason)
    shown = [part for part in response.thinking if part.id is not None or part.text]
    said = list(in_order(shown, response.content, response.tool_calls)) or [""]
    states = ["completed"] * (len(said) - 1) + [status]
    return envelope(
        response.id,
        response.model,
        body,
        created=created,
        finish=response.finish_reason,
        status=status,
        output=[write_item(item, item_id(response.id, item, place), states[place]) for place, item in enumerate(said)],
        usage=response.usage,
    )


def envelope(  # noqa: PLR0913 - what a response is made of
    id: str,  # noqa: A002 - the vendor's name
    model: str,
    body: Mapping[str, Any],
    *,
    created: int,
    status: str,
    finish: FinishReason | None = None,
    output: Sequence[Mapping[str, Any]] = (),
    usage: TokenUsage | None = None,
) -> dict[str, Any]:
    """Return the object of a response in this status."""
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": _REASONS[finish]} if status == "incomplete" else None,
        "model": model,
        "output": list(output),
        "service_tier": "default",
        "usage": None if usage is None else write_usage(usage),
        **{name: body[name] if body.get(name) is not None else silent for name, silent in _ECHOED.items()},
    }


def status_of(finish: FinishReason | None) -> str:
    """Return the status of an answer that ended so."""
    return "incomplete" if finish in _REASONS else "completed"


def item_id(response: str, said: Thought | str | ToolCall, place: int) -> str:
    """Return the id of a response's item: a thought's own where it has one."""
    if isinstance(said, tuple) and said[0].id is not None:
        return said[0].id
    kind = "msg" if isinstance(said, str) else "fc" if isinstance(said, ToolCall) else "rs"
    return f"{kind}_{response.removeprefix('resp_')}{place:02x}"


def write_item(said: Thought | str | ToolCall, name: str, status: str) -> dict[str, Any]:
    """Return a piece of an answer as an item with the id `name`, in this status; a thought has none."""
    if isinstance(said, str):
        return message_item(name, status, said)
    if isinstance(said, ToolCall):
        return call_item(name, status, said)
    return write_thought(said, name, summary=said[0].id is not None)


def message_item(name: str, status: str, text: str | None) -> dict[str, Any]:
    """Return the item of a text; None for one that has not begun."""
    content = [] if text is None else [text_part(text)]
    return {"id": name, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str) -> dict[str, Any]:
    """Return the part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(name: str, status: str, call: ToolCall) -> dict[str, Any]:
    """Return the item of a tool call."""
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": name, "type": "function_call", "status": status, **told}


def write_usage(usage: TokenUsage) -> dict[str, Any]:
    """Return the `usage` of a response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def write_error_event(message: str, code: str | None, *, number: int) -> bytes:
    """Return the event of a failure in the middle of a stream; nothing comes after it."""
    return write_event("error", number, {"code": code, "message": message, "param": None})


def write_event(kind: str, number: int, fields: Mapping[str, Any]) -> bytes:
    """Return an event, the `number`-th of its stream, from 0."""
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
