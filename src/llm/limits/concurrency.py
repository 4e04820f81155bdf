"""Concurrency: so many calls at the same time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit

_SOON = 0.001  # a stand-in, shorter than any wait that is known


class Concurrency:
    """`capacity` calls in flight; a `Limit`.

    Nobody knows when a call ends, so whoever waits is woken by the end of a call, not by time (`timed` is False).
    """

    __slots__ = ("_running", "capacity", "level", "name", "refuses", "timed", "unit")

    def __init__(self, name: str, capacity: float, *, level: LimitScope = "key") -> None:
        """Start with none running."""
        self.name: str = name
        self.unit: Unit = "requests"
        self.capacity: float = capacity
        self.level: LimitScope = level
        self.refuses: bool = False
        self.timed: bool = False
        self._running = 0.0

    def wait(self, now: float, amount: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return 0 while a place is free."""
        if amount > self.capacity:
            return math.inf
        return 0.0 if self._running + amount <= self.capacity else _SOON

    def take(self, now: float, amount: float) -> Hold:
        """Take a place."""
        self._running += amount
        return Hold(now, amount)

    def settle(self, now: float, hold: Hold, used: float) -> None:  # noqa: ARG002 - a limit's signature
        """Give the place back, however the call ended."""
        self._running -= hold.amount
        hold.amount = 0.0

    def saturation(self, now: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return the share of places that are taken."""
        return min(1.0, self._running / self.capacity)
