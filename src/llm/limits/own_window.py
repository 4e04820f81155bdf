"""Window: every request has one of its own, so no span of `period` seconds holds more than allowed.

It counts what we take ourselves, which is all there is of the limits above the keys: of everything, of a user. Those
that a provider tells of are in `window`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Self

from .base import EPSILON, GUARD, MOMENT, Hold, Timed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.exceptions import LimitScope

    from .base import Unit

_GRAINS = 6000  # of a period: ten milliseconds of a minute


class Grain:
    """What was taken within a moment; all of it leaves the window with the last of it.

    Attributes:
        at: Monotonic seconds of the last that it holds.
        amount: What it holds, in the limit's unit.
        start: Monotonic seconds of the first.
        until: Monotonic seconds at which it leaves.
        untold: Of how many of its requests the provider has not told when all is there again.
        back: The latest of what it told.
        heirs: Windows that count it, too: those that took the place of its own.
    """

    __slots__ = ("amount", "at", "back", "heirs", "start", "until", "untold")

    def __init__(self, at: float, until: float, amount: float = 0.0) -> None:
        """Begin at `at`."""
        self.start: float = at
        self.at: float = at
        self.until: float = until
        self.amount: float = amount
        self.untold: int = 0
        self.back: float = -math.inf
        self.heirs: tuple[OwnWindow, ...] = ()


class Drawn(Hold):
    """An amount taken from a window; where it stood then only one keeps that a provider tells of.

    Attributes:
        grain: Where it is counted.
    """

    __slots__ = ("grain",)

    grain: Grain
    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Leave it to who draws to fill it."""
    else:  # a call draws from many windows, and passing what a draw holds takes a third of each
        __init__ = object.__init__


class OwnWindow(Timed):
    """`capacity` in any `period` seconds; a `Limit`. It remembers at most 6000 moments of a period."""

    __slots__ = ("_grain", "_grains", "_span", "_sum")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start empty."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self._span = period + GUARD
        self._grain = period / _GRAINS
        self._grains: deque[Grain] = deque()
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        if self._sum + amount <= self.capacity:
            return 0.0  # what has left the window meanwhile only makes more room
        if amount > self.capacity:
            return math.inf
        self._expire(now)
        return self._due(now, amount, self.capacity)

    def take(self, now: float, amount: float) -> Drawn:
        """Count `amount` from now on."""
        grains = self._grains
        if grains and now - (grain := grains[-1]).start <= self._grain:
            if now > grain.at:
                grain.at = now
                grain.until = now + self._span
            grain.amount += amount
        else:
            self._expire(now)
            grain = Grain(now, now + self._span, amount)
            grains.append(grain)
        self._sum += amount
        drawn = Drawn()
        drawn.at, drawn.amount, drawn.grain = now, amount, grain
        return drawn

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Count `used` in place of what was taken, where its window still runs."""
        if type(hold) is Drawn:
            grain, more = hold.grain, used - hold.amount
            if grain.until - now <= MOMENT:
                self._expire(now)
            else:
                grain.amount += more
                self._sum += more
                if grain.heirs:
                    for heir in grain.heirs:
                        heir._sum += more
        hold.amount = used

    def resized(self, now: float, capacity: float) -> Self:
        """Return one of another capacity that goes on with what is counted; calls that run are settled in both."""
        self._expire(now)
        heir = type(self)(self.name, self.unit, capacity, self.period, level=self.level, refuses=self.refuses)
        for grain in self._grains:
            grain.heirs = (*grain.heirs, heir)
        heir._grains.extend(self._grains)
        heir._sum = self._sum
        for window in (self, heir):  # what either takes from now on is its own
            window._grains.append(Grain(now, now + self._span))
        return heir

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        self._expire(now)
        return min(1.0, max(0.0, self._sum / self.capacity))

    def free(self, now: float) -> float:
        """Return what fits beside what is counted."""
        self._expire(now)
        return self.capacity - self._sum

    @property
    def grains(self) -> Iterable[Grain]:
        """What it remembers, in order of time."""
        return self._grains

    def _due(self, now: float, amount: float, capacity: float) -> float:
        """Return seconds until time alone has made room for `amount` in `capacity`."""
        excess, due = self._sum + amount - capacity, now
        for grain in self._grains:
            if excess <= EPSILON:
                break
            excess -= grain.amount
            due = max(due, grain.until)
        return due - now

    def _expire(self, now: float) -> None:
        grains = self._grains
        while grains and grains[0].until - now <= MOMENT:
            self._sum -= grains.popleft().amount
        if not grains:
            self._sum = 0.0  # sums of floats drift; an empty window is exactly empty
