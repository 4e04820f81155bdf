"""The most that several limits take at once, asked before any of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import Charge

    from .base import Limit


class Most:
    """The largest amounts that fit each of several limits while nothing else is counted."""

    __slots__ = ("_cost", "_input_tokens", "_output_tokens", "_requests", "_total_tokens")

    def __init__(self, limits: Iterable[Limit]) -> None:
        """Take the limits as they are now."""
        least = [math.inf] * len(PLACES)
        for limit in limits:
            least[limit.place] = min(least[limit.place], limit.capacity)
        self._input_tokens, self._output_tokens, self._total_tokens, self._cost, self._requests = least

    def covers(self, charge: Charge) -> bool:
        """Return whether a charge fits."""
        # Taken apart at once, since to read a named tuple's fields by name takes ten times as long as an attribute.
        input_tokens, output_tokens, total_tokens, cost, requests = charge
        return (
            requests <= self._requests
            and total_tokens <= self._total_tokens
            and input_tokens <= self._input_tokens
            and output_tokens <= self._output_tokens
            and cost <= self._cost
        )
