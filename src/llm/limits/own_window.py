"""Windows above the keys: of everything, of a user. What we take ourselves is all there is of these limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .amounts import alone, part
from .base import EPSILON, Timed
from .moments import Drawn, Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm.core.exceptions import LimitScope

    from .base import Hold, Unit


class OwnWindow(Timed):
    """`capacity` in any `period` seconds; a `Limit`.

    Attributes:
        memory: What was taken; that of its account's other windows, too.
    """

    __slots__ = ("memory",)

    def __init__(  # noqa: PLR0913 - a limit's six facts, and a memory
        self,
        name: str,
        unit: Unit,
        capacity: float,
        period: float,
        *,
        level: LimitScope = "key",
        refuses: bool = False,
        memory: Memory | None = None,
    ) -> None:
        """Start with what `memory` has; None for an empty one of its own."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self.memory: Memory = Memory(period) if memory is None else memory

    @property
    def ample(self) -> float:
        """What fits without a further look, with all that is counted."""
        return self.capacity

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        if part(self.memory.together, self.place) + amount <= self.capacity:
            return 0.0  # what has left the window meanwhile only makes more room
        if amount > self.capacity:
            return math.inf
        excess = self._counted(now) + amount - self.capacity
        span, due = self.memory.span, now
        for at, taken in self.taken:
            if excess <= EPSILON:
                break
            excess -= taken
            due = max(due, at + span)
        return due - now

    def take(self, now: float, amount: float) -> Drawn:
        """Count `amount` from now on."""
        return self.memory.take(now, alone(self.place, amount))

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Count `used` in place of what was taken, where its window still runs."""
        if isinstance(hold, Drawn):
            self.memory.settle(now, hold, alone(self.place, used))

    def resized(self, now: float, capacity: float) -> OwnWindow:  # noqa: ARG002 - as of other limits
        """Return one of another capacity with the same memory."""
        return type(self)(
            self.name, self.unit, capacity, self.period, level=self.level, refuses=self.refuses, memory=self.memory
        )

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        return min(1.0, max(0.0, self._counted(now) / self.capacity))

    def free(self, now: float) -> float:
        """Return what fits beside what is counted."""
        return self.capacity - self._counted(now)

    @property
    def taken(self) -> Iterator[tuple[float, float]]:
        """What it remembers, in order of time: monotonic seconds, and amount."""
        return ((moment.at, part(moment.together, self.place)) for moment in self.memory.moments)

    def _counted(self, now: float) -> float:
        """Return what is inside."""
        self.memory.expire(now)
        return part(self.memory.together, self.place)
