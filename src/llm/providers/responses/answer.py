"""A response of the Responses API as ours."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import ToolCall
from llm.core.types import TokenUsage
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.openai.logprobs import read_token
from llm.providers.wire import count_of, make_response, make_usage, read_object, senseless, text_of

from .thoughts import LED_NOWHERE, led_to, read_thought

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.choices import TokenLogprob
    from llm.core.messages import ThinkingPart
    from llm.core.types import FinishReason, LLMResponse


def read_answer(body: bytes, *, provider: str, key: str | None) -> LLMResponse:
    """Read a whole answer.

    Raises:
        LLMInvalidRequestError: It was asked for in the background, and is not there.
        LLMServerError: It makes no sense.
        LLMException: It tells of a failure.
    """
    answer = read_object(body)
    try:
        return _response(answer, provider, key)
    except (KeyError, TypeError, AttributeError, ValueError):
        pass
    raise senseless("an object that is no response")


def _response(answer: dict[str, Any], provider: str, key: str | None) -> LLMResponse:
    texts: list[str] = []
    likely: list[TokenLogprob] = []
    calls: list[ToolCall] = []
    thoughts: list[ThinkingPart] = []
    refused = False
    output: list[dict[str, Any]] = answer["output"]
    if type(output) is not list or not (output or answer.get("status")):
        raise TypeError("expected a list of items, or why there are none")
    for item, following in pairwise([*output, None]):
        if item is None:
            raise TypeError("expected an item")
        kind = item["type"]
        if kind == "message":
            texts.append(message_text(item))
            likely += message_logprobs(item)
            refused = refused or refuses(item)
        elif kind == "function_call":
            calls.append(ToolCall(text_of(item["call_id"]), text_of(item["name"]), text_of(item["arguments"])))
        elif kind == "custom_tool_call":
            calls.append(ToolCall(text_of(item["call_id"]), text_of(item["name"]), text_of(item["input"]), custom=True))
        elif kind == "reasoning":
            thoughts += read_thought(item, LED_NOWHERE if following is None else led_to(following))
    return make_response(
        text_of(answer.get("id")),
        "".join(texts),
        text_of(answer.get("model")),
        provider,
        usage_of(answer.get("usage")),
        finish_of(answer, answer.get("status"), refused=refused, called=bool(calls)),
        tuple(calls),
        key=key,
        raw=answer,
        thinking=tuple(thoughts),
        logprobs=tuple(likely),
    )


def message_text(item: Mapping[str, Any]) -> str:
    """Return what a message says; a refusal is said, too.

    Raises:
        KeyError, TypeError: It makes no sense.
    """
    return "".join([
        text_of(part[_SPOKEN[part["type"]]]) for part in item["content"] if part["type"] in _SPOKEN
    ])  # fmt: skip


_SPOKEN = {"output_text": "text", "refusal": "refusal"}


def message_logprobs(item: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """Return how likely the tokens of a message were, where that was asked for.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: It makes no sense.
    """
    return tuple([read_token(token) for part in item["content"] for token in part.get("logprobs") or ()])


def refuses(item: Mapping[str, Any]) -> bool:
    """Return whether a message refuses.

    Raises:
        KeyError, TypeError: It makes no sense.
    """
    return any(part["type"] == "refusal" for part in item["content"])


def finish_of(answer: Mapping[str, Any], status: object, *, refused: bool, called: bool) -> FinishReason:
    """Return why an answer of this status ended.

    Raises:
        LLMInvalidRequestError: It has not.
        LLMException: It failed.
        TypeError: It does not say.
    """
    if status == "failed":
        raise error_for(200, read_failure(answer))
    if status in {"queued", "in_progress", "cancelled"}:
        raise LLMInvalidRequestError(
            f"the answer is not there, its status is {status}; leave `background` out of extra, for nobody here comes "
            "back for it"
        )
    if status not in {None, "completed", "incomplete"}:
        raise TypeError("expected a status")
    details: Any = answer.get("incomplete_details")
    if refused or (status == "incomplete" and details and details.get("reason") == "content_filter"):
        return "content_filter"
    if status == "incomplete":
        return "length"
    return "tool_calls" if called else "stop"


def usage_of(usage: Any) -> TokenUsage:  # noqa: ANN401 - JSON
    """Read the tokens of an answer.

    Raises:
        TypeError, AttributeError: They make no sense.
    """
    if usage is None:
        return TokenUsage()
    read = usage.get("input_tokens_details")
    written = usage.get("output_tokens_details")
    return make_usage(
        count_of(usage.get("input_tokens")),
        count_of(usage.get("output_tokens")),
        count_of(read.get("cached_tokens")) if read else 0,
        count_of(written.get("reasoning_tokens")) if written else 0,
    )
