"""Anthropic's message as a response."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.messages import ThinkingPart, ToolCall
from llm.core.types import TokenUsage
from llm.providers.wire import count_of, make_response, make_usage, read_object, senseless, text_of

if TYPE_CHECKING:
    from llm.core.types import FinishReason, LLMResponse

_FINISHES: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


_LONG: Final = re.compile(rb"\d{19}")
"""Numbers that may take more than 64 bits, of which orjson keeps no more than a double does."""


def read_answer(body: bytes, *, provider: str, key: str | None) -> LLMResponse:
    """Read a whole answer.

    Raises:
        LLMServerError: It makes no sense.
        LLMException: It tells of a failure.
    """
    answer = read_object(body)
    try:
        response = _response(answer, provider, key)
        return _exact(response, body) if response.tool_calls and _LONG.search(body) else response
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        pass
    raise senseless("an object that is no message")


def _response(answer: dict[str, Any], provider: str, key: str | None) -> LLMResponse:
    texts: list[str] = []
    calls: list[ToolCall] = []
    thoughts: list[ThinkingPart] = []
    content: list[dict[str, Any]] = answer["content"]
    finish = finish_of(answer.get("stop_reason"))
    if type(content) is not list or not (content or finish):
        raise TypeError("expected blocks, or why there are none")
    for block in content:
        kind = block["type"]
        if kind == "text":
            texts.append(block["text"])
        elif kind == "tool_use":
            calls.append(ToolCall(text_of(block["id"]), text_of(block["name"]), arguments_of(block["input"])))
        elif kind == "thinking":
            thoughts.append(ThinkingPart(text_of(block["thinking"]), text_of(block.get("signature")) or None))
        elif kind == "redacted_thinking":
            thoughts.append(ThinkingPart("", redacted=text_of(block["data"])))
    return make_response(
        text_of(answer.get("id")),
        "".join(texts),
        text_of(answer.get("model")),
        provider,
        usage_of(answer.get("usage")),
        finish,
        tuple(calls),
        key=key,
        raw=answer,
        thinking=tuple(thoughts),
    )


def _exact(response: LLMResponse, body: bytes) -> LLMResponse:
    """Return the response with the numbers of its calls as they came, digit by digit."""
    inputs = [block["input"] for block in json.loads(body)["content"] if block["type"] == "tool_use"]
    texts = [json.dumps(given, ensure_ascii=False, separators=(",", ":")) for given in inputs]
    calls = [replace(call, arguments=text) for call, text in zip(response.tool_calls, texts, strict=True)]
    return replace(response, tool_calls=tuple(calls))


def finish_of(reason: object) -> FinishReason | None:
    """Return why an answer ended; None where it does not say.

    Raises:
        TypeError: It is no text.
    """
    return _FINISHES.get(text_of(reason), "stop") if reason is not None else None


def usage_of(usage: Any) -> TokenUsage:  # noqa: ANN401 - JSON
    """Read the tokens of an answer; the vendor leaves cached ones out of its input, we do not.

    Raises:
        TypeError: They make no sense.
    """
    if usage is None:
        return TokenUsage()
    cached = count_of(usage.get("cache_read_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    details = usage.get("output_tokens_details")
    return make_usage(
        count_of(usage.get("input_tokens")) + written + cached,
        count_of(usage.get("output_tokens")),
        cached,
        count_of(details.get("thinking_tokens")) if details else 0,
    )


def arguments_of(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a call's input as text.

    Raises:
        TypeError: It is no object.
    """
    if type(value) is not dict:
        raise TypeError("expected an object of arguments")
    return orjson.dumps(value).decode()
