"""What a call's request and answer say, as attributes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from . import names

if TYPE_CHECKING:
    from llm.core.types import LLMRequest, LLMResponse

Value: TypeAlias = str | bool | int | float | Sequence[str]

_NUMBERS: Final = {
    "frequency_penalty": names.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": names.REQUEST_PRESENCE_PENALTY,
    "top_k": names.REQUEST_TOP_K,
}
"""Attributes of vendor fields, which `extra` has."""


def operation(request: LLMRequest) -> str:
    """Return the convention's word for what is asked."""
    return names.OPERATION_CHAT if request.embed is None else names.OPERATION_EMBEDDINGS


def asked(request: LLMRequest) -> dict[str, Value]:
    """Return what was asked, without content and the model."""
    stated: dict[str, Value | None] = {
        names.REQUEST_TEMPERATURE: request.temperature,
        names.REQUEST_TOP_P: request.top_p,
        names.REQUEST_MAX_TOKENS: request.max_tokens,
        names.REQUEST_SEED: request.seed,
        names.REQUEST_STOP: request.stop,
        names.REQUEST_STREAM: request.stream or None,
        names.REQUEST_DIMENSIONS: None if request.embed is None else request.embed.dimensions,
        names.OUTPUT_TYPE: _output_type(request),
    }
    extra = request.extra or {}
    stated.update({name: _number(extra.get(field)) for field, name in _NUMBERS.items()})
    choices = extra.get("n")
    if _number(choices) is not None and choices != 1:
        stated[names.REQUEST_CHOICES] = choices
    conversation = extra.get("conversation")
    if isinstance(conversation, str):
        stated[names.CONVERSATION] = conversation
    return {name: value for name, value in stated.items() if value is not None}


def answered(response: LLMResponse) -> dict[str, Value]:
    """Return what came, without content; a kept answer took no tokens."""
    stated: dict[str, Value] = {}
    if response.id:
        stated[names.RESPONSE_ID] = response.id
    reasons = [choice.finish_reason for choice in response.choices if choice.finish_reason is not None]
    if reasons:
        stated[names.RESPONSE_FINISH_REASONS] = reasons
    if response.key is not None:
        stated[names.KEY] = response.key
    if response.cost is not None:
        stated[names.COST] = response.cost
    if response.cached:
        return {**stated, names.CACHED: True}
    usage = response.usage
    stated[names.USAGE_INPUT] = usage.input_tokens
    if not response.embeddings:
        stated[names.USAGE_OUTPUT] = usage.output_tokens
    if usage.cached_input_tokens:
        stated[names.USAGE_CACHED] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        stated[names.USAGE_REASONING] = usage.reasoning_tokens
    return stated


def error_type(error: BaseException) -> str:
    """Return why a call brought no answer, as one of few words: the failure's name, or `cancelled`."""
    return type(error).__name__ if isinstance(error, Exception) else "cancelled"


def _output_type(request: LLMRequest) -> str | None:
    form = request.response_format
    if form is None and request.response_model is None:
        return None
    return names.OUTPUT_TEXT if form == "text" else names.OUTPUT_JSON


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
