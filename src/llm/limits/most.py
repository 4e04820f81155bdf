"""The most that several limits take at once, asked before any of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import Charge

    from .base import Limit


class Most(NamedTuple):
    """The largest amounts that fit every limit."""

    requests: float
    input_tokens: float
    output_tokens: float
    total_tokens: float
    cost: float

    def covers(self, charge: Charge) -> bool:
        """Return whether a charge fits."""
        return (
            charge.requests <= self.requests
            and charge.total_tokens <= self.total_tokens
            and charge.input_tokens <= self.input_tokens
            and charge.output_tokens <= self.output_tokens
            and charge.cost <= self.cost
        )

    @classmethod
    def of(cls, limits: Iterable[Limit]) -> Most:
        """Return the most that fits all of them while nothing else is counted."""
        least = dict.fromkeys(cls._fields, math.inf)
        for limit in limits:
            least[limit.unit] = min(least[limit.unit], limit.capacity)
        return cls(**least)
