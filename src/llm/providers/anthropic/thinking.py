"""How much a model of Anthropic's may think, and how many tokens it may write.

Models since Opus 4.5 and Sonnet 4.6 take an effort. Those before that can think take a budget instead, of 1,024 tokens
or more, which is a part of `max_tokens` and must be less.

Source: https://docs.claude.com/en/docs/build-with-claude/effort and
https://docs.claude.com/en/docs/build-with-claude/extended-thinking
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMRequest

DEFAULT_MAX_TOKENS: Final = 4096
"""Sent where a request has no `max_tokens`, which the vendor requires: the most that all models since Claude 3 take.

Thoughts come on top of it.
"""

_BY_BUDGET: Final = re.compile(r"claude-(3-7-sonnet|(sonnet|haiku)-4-5|opus-4-1|(sonnet|opus)-4(-0)?([-@]20\d{6}.*)?$)")
_WORDS: Final[dict[str | None, str | None]] = {"minimal": "low", "none": None}
"""OpenAI's words for efforts that this vendor has no word for."""

_LEAST: Final = 1024
# The largest leaves room for the answer under 32,000 tokens, the most that Claude Opus 4 writes.
_BUDGETS: Final = {"minimal": _LEAST, "low": _LEAST, "medium": 4096, "high": 16384, "xhigh": 24576, "max": 24576}


class Thinking(NamedTuple):
    """What of a body follows from the effort.

    Attributes:
        max_tokens: The most tokens of the answer, thoughts included.
        thinking: The field of that name; None to leave it out.
        effort: The vendor's word for the effort; None to leave it out.
    """

    max_tokens: int
    thinking: dict[str, Any] | None = None
    effort: str | None = None


def thinking_of(request: LLMRequest) -> Thinking:
    """Return how much the model may think and write.

    Raises:
        LLMInvalidRequestError: The effort is unknown to a model with budgets, or `max_tokens` leaves no room for it.
    """
    effort, most = request.reasoning_effort, request.max_tokens
    own: Any = request.extra.get("thinking") if request.extra else None
    if own is not None:
        return Thinking(most or DEFAULT_MAX_TOKENS + _budget_in(own), None, _WORDS.get(effort, effort))
    if effort is None:
        return Thinking(most or DEFAULT_MAX_TOKENS)
    if effort == "none":
        off = {"type": "disabled"} if _takes_effort(request) else None
        return Thinking(most or DEFAULT_MAX_TOKENS, off)
    if _takes_effort(request):
        return Thinking(most or DEFAULT_MAX_TOKENS, None, _WORDS.get(effort, effort))
    budget = _budget(effort, most)
    return Thinking(most or DEFAULT_MAX_TOKENS + budget, {"type": "enabled", "budget_tokens": budget})


def _takes_effort(request: LLMRequest) -> bool:
    return _BY_BUDGET.search(request.model or "") is None


def _budget(effort: str, most: int | None) -> int:
    if effort not in _BUDGETS:
        raise LLMInvalidRequestError(f"reasoning_effort is {effort!r}; pass one of none, {', '.join(_BUDGETS)}")
    if most is None:
        return _BUDGETS[effort]
    if most <= _LEAST:
        raise LLMInvalidRequestError(
            f"max_tokens is {most}, and this model thinks with {_LEAST} of them or more, as reasoning_effort asks; "
            f"raise max_tokens above {_LEAST}, or leave reasoning_effort out"
        )
    # Half of what it may write is for the answer, as far as the least budget leaves it.
    return max(_LEAST, min(_BUDGETS[effort], most // 2))


def _budget_in(thinking: Mapping[str, Any] | object) -> int:
    match thinking:
        case {"budget_tokens": int(budget)}:
            return max(0, budget)
        case _:
            return 0
