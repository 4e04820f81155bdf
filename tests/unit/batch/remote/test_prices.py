from __future__ import annotations

import pytest

from llm import LLMManager, TokenUsage
from llm.batch.remote.prices import BatchPrices
from llm.core.models import batch_rates

USAGE = TokenUsage(1_000_000, 1_000_000)
SECTION = {"api_keys": ["k"], "models": ["*"]}


async def test_a_published_price_of_batches_goes_before_half_of_a_calls() -> None:
    stated = {"mine": {"input": 2.0, "output": 4.0}, "gpt-4o": {"input": 1.0, "output": 1.0}}
    config = {"providers": {"openai": SECTION, "anthropic": SECTION}, "prices": stated}
    async with LLMManager.open(config) as manager:
        prices, parts = BatchPrices(manager.parts), manager.parts
        published = batch_rates("openai", "gpt-4o-mini")
        assert published is not None
        assert prices.cost("openai", "gpt-4o-mini", USAGE) == published.cost(USAGE) == pytest.approx(0.075 + 0.3)
        assert batch_rates("openai", "text-embedding-3-small") is None
        whole = parts.cost("openai", "text-embedding-3-small", USAGE)
        assert whole is not None
        assert prices.cost("openai", "text-embedding-3-small", USAGE) == pytest.approx(whole / 2)
        assert prices.cost("openai", "mine", USAGE) == pytest.approx(3.0)
        assert prices.cost("openai", "gpt-4o", USAGE) == pytest.approx(1.0)  # what is stated goes before what is known
        assert prices.cost("openai", "nobody-knows", USAGE) is None
        assert batch_rates("anthropic", "nobody-knows") is None
