"""What an answer from OpenRouter holds beyond OpenAI's: its cost, and the details of thoughts."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from llm.core.messages import ThinkingPart
from llm.providers.openai.answer import read_answer
from llm.providers.wire import senseless

from .thoughts import details_of, seal, text_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMResponse


def read_routed(body: bytes, *, provider: str, key: str | None) -> LLMResponse:
    """Read a whole answer.

    Raises:
        LLMServerError: It makes no sense.
        LLMException: It tells of a failure.
    """
    response = read_answer(body, provider=provider, key=key)
    raw: Any = response.raw
    try:
        details = details_of(raw["choices"][0]["message"].get("reasoning_details"))
        thinking = response.thinking
        if details:
            text = "".join([part.text for part in thinking]) or text_in(details)
            thinking = (ThinkingPart(text, details=seal(details)),)
        return replace(response, cost=cost_of(raw.get("usage")), thinking=thinking)
    except TypeError:
        pass
    raise senseless("a chat completion whose cost or thoughts are none")


def cost_of(usage: Mapping[str, Any] | None) -> float | None:
    """Return what OpenRouter charges, in US dollars; None where it does not say.

    A credit is a dollar. Of a call on a key of one's own at the provider behind it, that is OpenRouter's fee alone.

    Raises:
        TypeError: It makes no sense.

    Source: https://openrouter.ai/docs/use-cases/usage-accounting
    """
    cost = None if usage is None else usage.get("cost")
    if cost is None:
        return None
    if type(cost) in {int, float} and isfinite(cost) and cost >= 0:
        return float(cost)
    raise TypeError("expected US dollars")
