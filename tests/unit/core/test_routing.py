"""From the name that a caller gives to a provider and a model."""

from __future__ import annotations

import pytest

from llm.core.exceptions import LLMConfigurationError
from llm.core.routing import Target, check_provider, resolve

PROVIDERS = ("openai", "openrouter")
ALIASES = {"fast": ("openrouter/meta-llama/llama-3.1-8b-instruct", "openai/gpt-4o-mini"), "plain": ("gpt-4o",)}


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        (None, "openai", None),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openrouter/gpt-4o-mini", "openrouter", "gpt-4o-mini"),
        ("openrouter/meta-llama/llama-3.1-8b-instruct", "openrouter", "meta-llama/llama-3.1-8b-instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "openai", "meta-llama/llama-3.1-8b-instruct"),
        ("openrouter/", "openai", "openrouter/"),
        ("openrouter", "openai", "openrouter"),
        ("fast", "openrouter", "meta-llama/llama-3.1-8b-instruct"),
        ("plain", "openai", "gpt-4o"),
    ],
)
def test_a_name_is_an_alias_a_provider_and_model_or_a_model_of_the_default(
    name: str | None, provider: str, model: str | None
) -> None:
    assert resolve(name, default="openai", providers=PROVIDERS, aliases=ALIASES) == Target(provider, model)


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    assert check_provider("openai", PROVIDERS) == "openai"
    with pytest.raises(LLMConfigurationError, match=r"no provider 'x'; there are: openai, openrouter"):
        check_provider("x", PROVIDERS)
