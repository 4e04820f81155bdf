from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import LLMRequest
from llm.providers.anthropic import AnthropicDialect

DIALECT = AnthropicDialect()
OLDER = [
    "claude-3-7-sonnet-20250219", "claude-opus-4-20250514", "claude-sonnet-4-0", "claude-sonnet-4@20250514",
    "claude-opus-4-1-20250805", "claude-sonnet-4-5", "claude-haiku-4-5-20251001",
    "us.anthropic.claude-sonnet-4-20250514-v1:0",
]  # fmt: skip
NEWER = ["claude-opus-4-5-20251101", "claude-opus-4-6", "claude-sonnet-4-6", "claude-sonnet-5", "claude-opus-4-8"]


def fields(effort: str | None, *, model: str = "claude-haiku-4-5", **options: Any) -> tuple[int, Any, Any]:  # noqa: ANN401 - JSON
    request = LLMRequest("Hi", model=model, reasoning_effort=effort, **options)
    body = orjson.loads(DIALECT.encode(request, stream=False))
    assert DIALECT.charge(request, 300).output_tokens == body["max_tokens"]
    return body["max_tokens"], body.get("thinking"), body.get("output_config")


def enabled(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


@pytest.mark.parametrize("model", OLDER)
def test_models_that_know_no_effort_get_a_budget_on_top_of_the_answer(model: str) -> None:
    assert fields("low", model=model) == (4096 + 1024, enabled(1024), None)


@pytest.mark.parametrize("model", NEWER)
def test_the_others_get_the_effort(model: str) -> None:
    assert fields("high", model=model) == (4096, None, {"effort": "high"})


def test_the_words_of_another_vendor_are_translated() -> None:
    assert fields("minimal", model="claude-opus-4-6") == (4096, None, {"effort": "low"})
    assert fields("none", model="claude-opus-4-6") == (4096, {"type": "disabled"}, None)
    assert fields("none") == (4096, None, None)


@pytest.mark.parametrize(
    ("most", "effort", "budget"),
    [(1025, "high", 1024), (2047, "high", 1024), (8000, "high", 4000), (8000, "low", 1024), (99999, "high", 16384)],
)
def test_a_budget_is_less_than_max_tokens(most: int, effort: str, budget: int) -> None:
    assert fields(effort, max_tokens=most) == (most, enabled(budget), None)


def test_what_leaves_no_room_to_think_is_refused_with_the_remedy() -> None:
    with pytest.raises(LLMInvalidRequestError, match="raise max_tokens above 1024"):
        fields("low", max_tokens=1024)
    with pytest.raises(LLMInvalidRequestError, match=r"reasoning_effort is 'hard'.*medium"):
        fields("hard")


def test_thinking_of_the_callers_own_goes_as_it_is_and_has_room() -> None:
    own = enabled(20000)
    assert fields(None, extra={"thinking": own}) == (4096 + 20000, own, None)
    assert fields("low", extra={"thinking": own}, max_tokens=30000) == (30000, own, {"effort": "low"})
    adaptive = {"type": "adaptive"}
    assert fields("minimal", extra={"thinking": adaptive}) == (4096, adaptive, {"effort": "low"})
    assert fields("none", extra={"thinking": adaptive}) == (4096, adaptive, None)
