"""Token bucket: starts full and refills continuously, as OpenAI and Anthropic do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import GUARD, Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit

_EPSILON = 1e-9


class TokenBucket:
    """`capacity` per `period` seconds; a `Limit`.

    Source: https://docs.anthropic.com/en/api/rate-limits names the algorithm and its continuous refill.
    """

    __slots__ = ("_level", "_updated", "capacity", "level", "name", "period", "refuses", "timed", "unit")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start full."""
        self.name: str = name
        self.unit: Unit = unit
        self.capacity: float = capacity
        self.period: float = period
        self.level: LimitScope = level
        self.refuses: bool = refuses
        self.timed: bool = True
        self._level = capacity
        self._updated = -math.inf

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until the bucket holds `amount`."""
        if amount > self.capacity:
            return math.inf
        missing = amount - self._refilled(now)
        # Where the guard holds the refill back, `_updated` lies ahead of now.
        return missing * self.period / self.capacity + max(0.0, self._updated - now) if missing > _EPSILON else 0.0

    def take(self, now: float, amount: float) -> Hold:
        """Take `amount` out."""
        level = self._refilled(now)
        # A full bucket does not refill; the vendor's starts to when the request arrives, so ours starts later.
        self._updated = now + GUARD if level >= self.capacity else max(now, self._updated)
        self._level = level - amount
        return Hold(now, amount)

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Put back what was not used, or take what was used beyond; the bucket may go below zero then."""
        self._level = min(self.capacity, self._refilled(now) + hold.amount - used)
        self._updated = max(now, self._updated)
        hold.amount = used

    def saturation(self, now: float) -> float:
        """Return the share that is gone."""
        return min(1.0, max(0.0, 1.0 - self._refilled(now) / self.capacity))

    def _refilled(self, now: float) -> float:
        if self._updated == -math.inf:
            return self.capacity
        elapsed = max(0.0, now - self._updated)
        return min(self.capacity, self._level + elapsed * self.capacity / self.period)
