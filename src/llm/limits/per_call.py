"""A bound on one call by itself: no time makes room for what exceeds it, and what fits it takes nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import PLACES, Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit


class PerCall:
    """At most `capacity` for each call; a `Limit`.

    Nothing is counted, so it `refuses` nothing that other calls took: what exceeds it can never fit.
    """

    __slots__ = ("capacity", "level", "name", "place", "refuses", "timed", "unit")

    def __init__(self, name: str, unit: Unit, capacity: float, *, level: LimitScope = "key") -> None:
        """Keep the limit's facts."""
        self.name: str = name
        self.unit: Unit = unit
        self.place: int = PLACES[unit]
        self.capacity: float = capacity
        self.level: LimitScope = level
        self.refuses: bool = False
        self.timed: bool = True

    def wait(self, now: float, amount: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return 0 for what fits, else infinity."""
        return 0.0 if amount <= self.capacity else math.inf

    def take(self, now: float, amount: float) -> Hold:
        """Take nothing."""
        return Hold(now, amount)

    def settle(self, now: float, hold: Hold, used: float) -> None:  # noqa: ARG002 - a limit's signature
        """Know what it came to; a call that was let go may cost more than it reserved."""
        hold.amount = used

    def saturation(self, now: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return 0: it never fills."""
        return 0.0

    def free(self, now: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return infinity: what others take counts against nobody."""
        return math.inf
