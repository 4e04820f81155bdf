"""A chat completion as a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import orjson

from llm.core.choices import Choice
from llm.core.messages import ThinkingPart, ToolCall, signature_of
from llm.core.types import TokenUsage
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.wire import count_of, make_response, make_usage, read_object, senseless, text_of

from .logprobs import read_logprobs

if TYPE_CHECKING:
    from llm.core.choices import TokenLogprob
    from llm.core.types import FinishReason, LLMResponse

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
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        pass
    raise senseless("an object that is no chat completion")


def _response(answer: dict[str, Any], provider: str, key: str | None) -> LLMResponse:
    choices = answer["choices"]
    others: tuple[Choice, ...] = ()
    if len(choices) > 1:
        choices = sorted(choices, key=_place)
        others = tuple([Choice(*_choice(choice)) for choice in choices[1:]])
    content, finish, calls, thinking, logprobs, refused = _choice(choices[0])
    identifier, model, usage = text_of(answer.get("id")), text_of(answer.get("model")), usage_of(answer.get("usage"))
    return make_response(
        identifier, content, model, provider, usage, finish, calls, key=key, raw=answer, thinking=thinking,
        alternatives=others, logprobs=logprobs, refused=refused,
    )  # fmt: skip


def _place(choice: dict[str, Any]) -> int:
    return count_of(choice.get("index"))


_Choice: TypeAlias = (
    "tuple[str, FinishReason | None, tuple[ToolCall, ...], tuple[ThinkingPart, ...], tuple[TokenLogprob, ...], bool]"
)
"""The fields of a `Choice`, in its order."""


def _choice(choice: dict[str, Any]) -> _Choice:
    message = choice["message"]
    finish = finish_of(choice)
    content = message.get("content")
    refusal = message.get("refusal")
    calls = message.get("tool_calls")
    thought = message.get("reasoning_content") or message.get("reasoning")
    if type(content) is not str:
        thought = thought or thoughts_in(content)
        content = text_in(content) or _transcript(message)
    if refusal:
        content, finish = content or text_of(refusal), "content_filter"
    if finish == "tool_calls" and not calls and (call := message.get("function_call")):  # the form before tools
        calls = [{"function": call}]
    if finish is None and not (content or calls or thought):
        raise TypeError("expected an answer, or why there is none")
    logprobs = choice.get("logprobs")
    return (
        content,
        finish,
        tuple(map(_tool_call, calls)) if calls else (),
        (ThinkingPart(text_of(thought)),) if thought else (),
        read_logprobs(logprobs) if logprobs else (),
        bool(refusal),
    )


def _transcript(message: dict[str, Any]) -> str:
    audio = message.get("audio")
    return text_of(audio.get("transcript")) if audio else ""


def finish_of(choice: dict[str, Any]) -> FinishReason | None:
    """Return why a choice ended; None where it has not, or no reason is given.

    Raises:
        LLMException: It ended in a failure.
    """
    reason = choice.get("finish_reason")
    if reason == "error" or choice.get("error"):  # OpenRouter tells it in either way
        raise error_for(200, read_failure(choice))
    if reason is None or reason == "":  # some servers have no null
        return None
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
    return make_usage(
        count_of(usage.get("prompt_tokens")),
        count_of(usage.get("completion_tokens")),
        count_of(prompt.get("cached_tokens")) if prompt else 0,
        count_of(completion.get("reasoning_tokens")) if completion else 0,
    )


def text_in(content: Any) -> str:  # noqa: ANN401 - JSON
    """Return the text of content that is text, nothing, or parts.

    Raises:
        TypeError: It is something else.
    """
    if content is None or type(content) is str:
        return content or ""
    return "".join([text_of(part["text"]) for part in _parts(content) if part["type"] == "text"])


def thoughts_in(content: Any) -> str:  # noqa: ANN401 - JSON
    """Return the thoughts among the parts of content, where Mistral's models put them; empty where it has no parts.

    Source: https://docs.mistral.ai/studio-api/conversations/reasoning

    Raises:
        TypeError: It is something else than text, nothing, or parts.
    """
    if content is None or type(content) is str:
        return ""
    return "".join([text_in(part["thinking"]) for part in _parts(content) if part["type"] == "thinking"])


def _parts(content: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    if type(content) is not list:
        raise TypeError("expected text, or a list of parts")
    return cast("list[dict[str, Any]]", content)


def _tool_call(call: dict[str, Any]) -> ToolCall:
    custom = call.get("custom")
    function = custom or call["function"]
    name = function["name"]
    if type(name) is not str:
        raise TypeError("expected a tool's name")
    arguments = arguments_of(function["input" if custom else "arguments"])
    return ToolCall(text_of(call.get("id")), name, arguments, bool(custom), signature_of(call))


def arguments_of(value: object) -> str:
    """Return a call's arguments as text; some servers send the object itself.

    Raises:
        TypeError: They are neither.
    """
    return orjson.dumps(value).decode() if type(value) is dict else text_of(value)
