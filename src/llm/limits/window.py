"""Sliding window: every request has a window of its own, so no span of `period` seconds holds more than allowed."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from .base import BEFORE_ALL, GUARD, MOMENT, Hold, Timed
from .reckoning import Reckoning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Unit

_EPSILON = 1e-9  # of an amount: sums of dollars are off by less


class SlidingWindow(Timed):
    """`capacity` in any `period` seconds; a `Limit`. Memory grows with the requests of one period."""

    __slots__ = ("_holds", "_others", "_reckoning", "_span", "_sum")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start empty."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self._span = period + GUARD
        self._holds: deque[Hold] = deque()
        self._sum = 0.0
        self._others = 0.0
        self._reckoning = Reckoning()

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        capacity, reckoning = self.capacity, self._reckoning
        if amount > capacity:
            return math.inf
        if reckoning.kept_back:
            amount = min(amount + reckoning.margin(now, self.period), capacity)
        if self._sum + amount <= capacity:  # what has left the window meanwhile only makes more room
            return 0.0
        self._expire(now)
        excess = self._sum + amount - capacity
        due = now
        for hold in self._holds:
            if excess <= _EPSILON:
                break
            excess -= hold.amount
            due = hold.at + self._span
        return due - now

    def take(self, now: float, amount: float) -> Hold:
        """Count `amount` from now on."""
        holds, reckoning = self._holds, self._reckoning
        if holds:
            if holds[0].at + self._span - now <= MOMENT:
                self._expire(now)
            at = now if not holds or now > holds[-1].at else holds[-1].at  # in order, though threads' times may not be
        else:
            at = now
        self._sum += amount
        epoch = reckoning.draw(now, amount)
        hold = Hold(at, amount, 0, self._sum - self._others - reckoning.drawn, epoch)
        holds.append(hold)
        return hold

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Count `used` in place of what was taken, where its window still runs."""
        if hold.at + self._span - now <= MOMENT:
            self._expire(now)
        else:
            self._sum += used - hold.amount
        hold.amount = used

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Count what others took, as far as it is not counted yet; it is over with `hold`'s window.

        What the vendor has more than we think needs no correction: whatever it is, it is over within a period.
        """
        reckoning, epoch = self._reckoning, hold.epoch
        if report.refused:
            if not reckoning.undraw(epoch, hold.amount):
                hold.mark -= hold.amount  # it was not counted when the vendor looked
            self.settle(now, hold, 0.0)
        counted = hold.mark + reckoning.drawn_by(epoch) + self._others
        missing = self.capacity - report.remaining - report.rounding - counted
        if missing > _EPSILON:
            self._others += missing
            self._count(Hold(hold.at, missing), now)
            if epoch is not BEFORE_ALL:
                reckoning.others_drew(now, missing, hold.at, self.period)
        reckoning.told_at = max(reckoning.told_at, hold.at)

    def resize(self, now: float, capacity: float) -> None:  # noqa: ARG002 - a limit's signature
        """Go on with another capacity; what is counted stays counted."""
        self.capacity = capacity

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        self._expire(now)
        return min(1.0, max(0.0, self._sum / self.capacity))

    @property
    def holds(self) -> Iterable[Hold]:
        """What it remembers, in order of time."""
        return self._holds

    def _count(self, foreign: Hold, now: float) -> None:
        """Put what somebody else took at its place in time."""
        self._expire(now)
        if self._over(foreign, now):
            return
        later = 0
        for hold in reversed(self._holds):
            if hold.at <= foreign.at:
                break
            later += 1
        self._holds.insert(len(self._holds) - later, foreign)
        self._sum += foreign.amount

    def _expire(self, now: float) -> None:
        holds = self._holds
        while holds and self._over(holds[0], now):
            self._sum -= holds.popleft().amount
        if not holds:
            self._sum = 0.0  # sums of floats drift; an empty window is exactly empty

    def _over(self, hold: Hold, now: float) -> bool:
        return hold.at + self._span - now <= MOMENT
