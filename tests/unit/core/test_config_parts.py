"""`limits.processes`: each of several processes takes its part of every limit, where no store holds them together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.config import LLMConfig, RateLimits
from llm.core.exceptions import LLMConfigurationError


def config(**limits: Any) -> LLMConfig:  # noqa: ANN401 - sections
    providers = {
        "openai": {
            "api_keys": ["a", "b"],
            "models": ["m"],
            "rate_limits": [{"requests_per_minute": 9, "algorithm": "token_bucket"}, {"tokens_per_day": 1000}],
        }
    }
    return LLMConfig.model_validate({"providers": providers, "limits": limits})


def test_each_takes_its_part_of_every_limit_rounded_down() -> None:
    stated = {"global": {"requests_per_minute": 100}, "users": {"default": {"cost_per_day": 1.0, "cost_per_call": 0.5}}}
    own = config(processes=4, **stated).own_part()
    assert own.limits.global_.stated() == {"requests_per_minute": 25}
    assert own.limits.users["default"].stated() == {"cost_per_day": 0.25, "cost_per_call": 0.5}
    first, second = (slot.limits.stated() for slot in own.providers["openai"].slots)
    assert first == {"requests_per_minute": 2, "algorithm": "token_bucket"}
    assert second == {"tokens_per_day": 250}


@pytest.mark.parametrize("limits", [{}, {"processes": 1}, {"processes": 4, "store": "redis"}])
def test_one_alone_and_those_with_a_store_take_the_whole(limits: dict[str, Any]) -> None:
    whole = config(**limits)
    assert whole.own_part() is whole


def test_a_limit_smaller_than_their_number_is_refused_by_its_place() -> None:
    with pytest.raises(LLMConfigurationError, match=r"providers\.openai\.rate_limits\[0\]\.requests_per_minute: 9 "):
        config(processes=10).own_part()
    with pytest.raises(LLMConfigurationError, match=r"limits\.users\.bob\.concurrent_requests: 1 .* 2 processes"):
        config(processes=2, users={"bob": {"concurrent_requests": 1}}).own_part()


@given(most=st.integers(1, 10**9), processes=st.integers(1, 256))
def test_together_they_never_take_more(most: int, processes: int) -> None:
    limits = RateLimits(requests_per_minute=most)
    if most < processes:
        with pytest.raises(LLMConfigurationError):
            limits.part(processes, "here")
    else:
        part = limits.part(processes, "here").requests_per_minute
        assert part is not None
        assert most - processes < part * processes <= most
