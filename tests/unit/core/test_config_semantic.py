from __future__ import annotations

from typing import Any

import pytest

from llm import LLMConfigurationError
from llm.core.config import LLMConfig

VECTORS = "text-embedding-3-small"


def read(semantic: dict[str, Any] | None, *, on: bool = True, **sections: Any) -> LLMConfig:  # noqa: ANN401 - as it comes
    section = {"api_keys": ["k"], "models": ["gpt-4o-mini", VECTORS]}
    features = {"semantic_cache": on}
    return LLMConfig.model_validate(
        {"providers": {"openai": section}, "features": features, "semantic_cache": semantic, **sections}
    )


def test_a_model_of_a_provider_or_an_alias_makes_the_vectors() -> None:
    assert read({"model": f"openai/{VECTORS}"}).semantic_cache.threshold == 0.95
    aliases = {"vectors": {"targets": [f"openai/{VECTORS}"]}}
    assert read({"model": "vectors"}, aliases=aliases).semantic_cache.timeout == 2.0
    assert read(None, on=False).semantic_cache.model is None


@pytest.mark.parametrize("semantic", [None, {}, {"threshold": 0.9}])
def test_switched_on_it_needs_a_model_and_says_where(semantic: dict[str, Any] | None) -> None:
    with pytest.raises(LLMConfigurationError, match=r"semantic_cache\.model.*openai/text-embedding-3-small"):
        read(semantic)


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(
    ("model", "told"),
    [("vectors", "provider/model"), ("other/m", "no provider"), (f"openai/{VECTORS}-x", "has no model")],
)
def test_a_model_that_there_is_not_is_a_mistake_switched_on_or_not(model: str, told: str, on: bool) -> None:
    with pytest.raises(LLMConfigurationError, match=rf"semantic_cache\.model.*{told}"):
        read({"model": model}, on=on)


@pytest.mark.parametrize("field", ["threshold", "max_entries", "timeout"])
@pytest.mark.parametrize("value", [0, -1, "much"])
def test_numbers_are_in_their_range(field: str, value: object) -> None:
    with pytest.raises(LLMConfigurationError, match=rf"semantic_cache\.{field}"):
        read({"model": f"openai/{VECTORS}", field: value})


def test_a_threshold_above_one_is_a_mistake() -> None:
    with pytest.raises(LLMConfigurationError, match=r"semantic_cache\.threshold"):
        read({"model": f"openai/{VECTORS}", "threshold": 1.5})
