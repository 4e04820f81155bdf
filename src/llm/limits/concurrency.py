"""Concurrency: so many calls at the same time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import PLACES, Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit

_SOON = 0.001  # a stand-in, shorter than any wait that is known


class _Places:
    """How many are taken."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0.0


class Concurrency:
    """`capacity` calls in flight; a `Limit`.

    Nobody knows when a call ends, so whoever waits is woken by the end of a call, not by time (`timed` is False). What
    goes on with another number is the same limit, so that who waits for either is woken.
    """

    __slots__ = ("_places", "capacity", "level", "name", "place", "refuses", "timed", "unit")

    def __init__(self, name: str, capacity: float, *, level: LimitScope = "key") -> None:
        """Start with none running."""
        self.name: str = name
        self.unit: Unit = "requests"
        self.place: int = PLACES["requests"]
        self.capacity: float = capacity
        self.level: LimitScope = level
        self.refuses: bool = False
        self.timed: bool = False
        self._places = _Places()

    def __eq__(self, other: object) -> bool:
        """Return whether the same calls are counted."""
        return isinstance(other, Concurrency) and self._places is other._places

    def __hash__(self) -> int:
        """Return the same for all that count the same calls."""
        return id(self._places)

    def resized(self, capacity: float) -> Concurrency:
        """Return the same limit with another number; calls that run are seen to end by both."""
        twin = Concurrency(self.name, capacity, level=self.level)
        twin._places = self._places
        return twin

    def wait(self, now: float, amount: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return 0 while a place is free."""
        if amount > self.capacity:
            return math.inf
        return 0.0 if self._places.taken + amount <= self.capacity else _SOON

    def take(self, now: float, amount: float) -> Hold:
        """Take a place."""
        self._places.taken += amount
        return Hold(now, amount)

    def settle(self, now: float, hold: Hold, used: float) -> None:  # noqa: ARG002 - a limit's signature
        """Give the place back, however the call ended."""
        self._places.taken -= hold.amount
        hold.amount = 0.0

    def saturation(self, now: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return the share of places that are taken."""
        return min(1.0, self._places.taken / self.capacity)

    def free(self, now: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return how many places are free."""
        return self.capacity - self._places.taken
