"""A chat completion as a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.messages import ThinkingPart, ToolCall
from llm.core.types import LLMResponse, TokenUsage
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.wire import count_of, read_object, senseless, text_of

if TYPE_CHECKING:
    from llm.core.types import FinishReason

_FINISHES: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def read_answer(body: bytes, *, provider: str, key: str | None) -> LLMResponse:
    """Read a whole answer.

    Raises:
        LLMServerError: It makes no sense.
        LLMException: It tells of a failure.
    """
    answer = read_object(body)
    try:
        return _response(answer, provider, key)
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    raise senseless("an object that is no chat completion")


def _response(answer: dict[str, Any], provider: str, key: str | None) -> LLMResponse:
    choice = answer["choices"][0]
    message = choice["message"]
    finish = finish_of(choice)
    content = message.get("content")
    if type(content) is not str:
        content = _text(content)
    refusal = message.get("refusal")
    if refusal:
        content, finish = content or text_of(refusal), "content_filter"
    calls = message.get("tool_calls")
    thought = message.get("reasoning_content") or message.get("reasoning")
    return LLMResponse(
        text_of(answer.get("id")),
        content,
        text_of(answer.get("model")),
        provider,
        usage_of(answer.get("usage")),
        finish,
        tuple(map(_tool_call, calls)) if calls else (),
        key=key,
        raw=answer,
        thinking=(ThinkingPart(text_of(thought)),) if thought else (),
    )


def finish_of(choice: dict[str, Any]) -> FinishReason | None:
    """Return why a choice ended; None where it has not, or no reason is given.

    Raises:
        LLMException: It ended in a failure.
    """
    reason = choice.get("finish_reason")
    if reason is None:
        return None
    if reason == "error":
        raise error_for(200, read_failure(choice))
    # Every server has words of its own for an orderly end.
    return _FINISHES.get(reason, "stop")


def usage_of(usage: Any) -> TokenUsage:  # noqa: ANN401 - JSON
    """Read the tokens of an answer.

    Raises:
        TypeError: They make no sense.
    """
    if usage is None:
        return TokenUsage()
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    return TokenUsage(
        count_of(usage.get("prompt_tokens")),
        count_of(usage.get("completion_tokens")),
        count_of(prompt.get("cached_tokens")) if prompt else 0,
        count_of(completion.get("reasoning_tokens")) if completion else 0,
    )


def _text(content: Any) -> str:  # noqa: ANN401 - JSON
    if content is None:
        return ""
    parts: list[dict[str, Any]] = content
    if type(parts) is not list:
        raise TypeError("expected text, or a list of parts")
    return "".join([text_of(part["text"]) for part in parts if part["type"] == "text"])


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    arguments = function["arguments"]
    if type(arguments) is not str:  # some servers send the object itself
        arguments = orjson.dumps(arguments).decode()
    name = function["name"]
    if type(name) is not str:
        raise TypeError("expected a tool's name")
    return ToolCall(text_of(call.get("id")), name, arguments)
