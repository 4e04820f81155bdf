"""Values refuse what no later layer could make sense of."""

from __future__ import annotations

from typing import Any

import pytest

from llm import CachePolicy, LLMInvalidRequestError, LLMTimeoutError


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ttl", "soon", "seconds, 0 or more"),
        ("ttl", -1, "seconds, 0 or more"),
        ("ttl", float("nan"), "seconds, 0 or more"),
        ("refresh", "no", "True or False"),
        ("scope", "usr", "shared, user"),
        ("scope", ["user"], "shared, user"),
    ],
)
def test_a_cache_policy_refuses_a_wrong_field_by_its_name(field: str, value: object, expected: str) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(LLMInvalidRequestError, match=rf"^CachePolicy\.{field} is .*; expected {expected}"):
        CachePolicy(**options)


def test_a_cache_policy_takes_what_it_says() -> None:
    assert CachePolicy(ttl=0, refresh=True, scope="user").scope == "user"
    assert CachePolicy() == CachePolicy(None, refresh=False, scope=None)


def test_a_failure_before_a_key_was_taken_shows_none() -> None:
    assert str(LLMTimeoutError("too late", phase="pool", provider="openai", key="")) == "too late (provider openai)"
