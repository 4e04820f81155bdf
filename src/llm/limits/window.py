"""Sliding window: every request has a window of its own, so no span of `period` seconds holds more than allowed."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from .base import GUARD, MOMENT, Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit

_EPSILON = 1e-9  # of an amount: sums of dollars are off by less


class SlidingWindow:
    """`capacity` in any `period` seconds; a `Limit`. Memory grows with the requests of one period."""

    __slots__ = ("_holds", "_span", "_sum", "capacity", "level", "name", "period", "refuses", "timed", "unit")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start empty."""
        self.name: str = name
        self.unit: Unit = unit
        self.capacity: float = capacity
        self.period: float = period
        self.level: LimitScope = level
        self.refuses: bool = refuses
        self.timed: bool = True
        self._span = period + GUARD
        self._holds: deque[Hold] = deque()
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        if amount > self.capacity:
            return math.inf
        self._expire(now)
        excess = self._sum + amount - self.capacity
        due = now
        for hold in self._holds:
            if excess <= _EPSILON:
                break
            excess -= hold.amount
            due = hold.at + self._span
        return due - now

    def take(self, now: float, amount: float) -> Hold:
        """Count `amount` from now on."""
        self._expire(now)
        newest = self._holds[-1].at if self._holds else now
        hold = Hold(max(now, newest), amount)  # in order, though threads may come with times that are not
        self._holds.append(hold)
        self._sum += amount
        return hold

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Count `used` in place of what was taken, where its window still runs."""
        self._expire(now)
        if not self._over(hold, now):
            self._sum += used - hold.amount
        hold.amount = used

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        self._expire(now)
        return min(1.0, max(0.0, self._sum / self.capacity))

    def _expire(self, now: float) -> None:
        holds = self._holds
        while holds and self._over(holds[0], now):
            self._sum -= holds.popleft().amount
        if not holds:
            self._sum = 0.0  # sums of floats drift; an empty window is exactly empty

    def _over(self, hold: Hold, now: float) -> bool:
        return hold.at + self._span - now <= MOMENT
