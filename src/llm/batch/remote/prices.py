"""What an answer of a batch costs: the vendor's published price of batches, or half of the price of a call.

Both vendors charge half. Sources: https://platform.openai.com/docs/guides/batch (50 % of the price of calls),
https://docs.claude.com/en/docs/build-with-claude/batch-processing#pricing (50 % of the standard price).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from llm.core.models import batch_rates

if TYPE_CHECKING:
    from llm.core.models import Rates
    from llm.core.parts import Parts
    from llm.core.types import TokenUsage

HALF: Final = 0.5
_MOST_MODELS: Final = 1024


class BatchPrices:
    """Prices of one manager's models in batches."""

    def __init__(self, parts: Parts) -> None:
        """Begin with the prices of its configuration, of which a batch costs half."""
        self._parts = parts
        self._stated = parts.config.prices
        self._rates = lru_cache(_MOST_MODELS)(self._published)

    def cost(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """Return the US dollars of an answer; None where the price is unknown."""
        rates = self._rates(provider, model)
        if rates is not None:
            return rates.cost(usage)
        whole = self._parts.cost(provider, model, usage)
        return None if whole is None else whole * HALF

    def _published(self, provider: str, model: str) -> Rates | None:
        if model in self._stated:
            return None
        return batch_rates(self._parts.config.providers[provider].type, model)
