"""From the name that a caller gives to a provider and a model."""

from __future__ import annotations

import pytest

from llm.core.exceptions import LLMConfigurationError
from llm.core.routing import Target, check_provider, followers, resolve

PROVIDERS = ("openai", "openrouter")
MODELS = {"openai": ("a", "b"), "other": ("b", "c"), "any": ()}


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
    ],
)
def test_a_name_is_a_provider_and_model_or_a_model_of_the_default(
    name: str | None, provider: str, model: str | None
) -> None:
    assert resolve(name, default="openai", providers=PROVIDERS) == Target(provider, model)


@pytest.mark.parametrize(
    ("first", "fallback", "then"),
    [
        (Target("openai", "b"), ("openai", "other", "any"), ["other/b"]),
        (Target("openai", "a"), ("openai", "other", "any"), []),
        (Target("other", "b"), ("openai", "other"), ["openai/b"]),
        (Target("openai", None), ("any", "openai", "other"), ["other"]),
        (Target("any", "b"), ("other", "openai"), ["other/b", "openai/b"]),
        (Target("openai", "b"), (), []),
    ],
)
def test_a_named_model_falls_back_to_who_lists_it_and_no_model_to_who_lists_any(
    first: Target, fallback: tuple[str, ...], then: list[str]
) -> None:
    assert list(map(str, followers(first, fallback, MODELS.__getitem__))) == then


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    assert check_provider("openai", PROVIDERS) == "openai"
    with pytest.raises(LLMConfigurationError, match=r"no provider 'x'; there are: openai, openrouter"):
        check_provider("x", PROVIDERS)
