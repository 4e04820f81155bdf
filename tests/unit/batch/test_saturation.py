"""How full the limits of each key are."""

from __future__ import annotations

import pytest

from llm import LLMManager, register_provider
from llm.batch.saturation import saturation_of
from llm.testing import FakeProvider


async def test_a_key_is_as_full_as_its_fullest_limit_and_is_named_with_its_provider_where_there_are_several() -> None:
    register_provider("batch-families", lambda _: FakeProvider("yes"))
    section = {
        "type": "batch-families",
        "api_keys": ["k1"],
        "models": ["a", "b"],
        "model_families": {"first": ["a"], "second": ["b"]},
        "rate_limits": [{"requests_per_day": 4, "requests_per_hour": 100}],
    }
    free = {"type": "batch-families", "api_keys": ["k2"], "models": ["m"]}
    async with LLMManager.open({"providers": {"one": section}}) as manager:
        for _ in range(2):
            await manager.get_client().chat("hello", model="a")
        assert list(saturation_of(manager).values()) == [pytest.approx(0.5, abs=0.01)]
        (alone,) = saturation_of(manager)
    async with LLMManager.open({"providers": {"one": section, "other": free}}) as manager:
        assert list(saturation_of(manager)) == [f"one/{alone}"]
