"""Sliding window of a provider, which tells of it: what others take is counted, too, and what comes back sooner."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Self

from .base import BEFORE_ALL, EPSILON, GRAINS, GUARD, MOMENT, Hold, Timed
from .reckoning import Reckoning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Unit

_SILENT = 1 / 4  # of a period
_UNSURE = 1 / 4  # of the capacity
_PATIENCE = 2.0  # seconds
_WHOLE = 1.0  # seconds that a reset in whole ones may be off
_MISLED = 8  # refusals


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
        self.heirs: tuple[SlidingWindow, ...] = ()


class Drawn(Hold):
    """An amount taken from a window.

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


class SlidingWindow(Timed):
    """`capacity` in any `period` seconds, as a provider counts it; a `Limit`.

    A full window sends nothing, so it is told nothing, while others may take what they like. After such a silence a
    quarter stays back until all answers have told what was left, or two seconds have passed.

    Where the provider says that all will be there again sooner, as one does whose windows are the same for all
    requests, that holds; unless calls are refused that relied on it.
    """

    __slots__ = (
        "_ample", "_asked_until", "_early_at", "_grain", "_grains", "_heard_until", "_misled", "_others", "_reckoning",
        "_span", "_sum", "_untold",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start empty."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self._span = period + GUARD
        self._grain = period / GRAINS
        self._grains: deque[Grain] = deque()
        self._sum = 0.0
        self._others = 0.0
        self._reckoning = Reckoning()
        self._asked_until = -math.inf
        self._heard_until = math.inf  # what is taken before need not ask how long nothing was told
        self._ample = capacity * (1 - _UNSURE)  # what is counted up to there needs no look at anything else
        self._untold = 0
        self._early_at = math.inf
        self._misled = 0

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        if self._sum + amount <= self._ample:
            return 0.0
        capacity, reckoning = self.capacity, self._reckoning
        if amount > capacity:
            return math.inf
        if reckoning.kept_back:
            amount = min(amount + reckoning.margin(now, self.period), capacity)
        asking = now < self._asked_until
        if self._sum + amount <= (capacity * (1 - _UNSURE) if asking else capacity):
            return 0.0  # what has left the window meanwhile only makes more room
        self._expire(now)
        seconds, least = self._due(now, amount, capacity), capacity * (1 - _UNSURE)
        if not asking:
            return seconds
        told = max(seconds, self._asked_until - now)
        return told if amount > least else min(told, self._due(now, amount, least))

    def take(self, now: float, amount: float) -> Drawn:
        """Count `amount` from now on."""
        grains, reckoning = self._grains, self._reckoning
        if grains and now - (grain := grains[-1]).start <= self._grain:
            if now > grain.at:  # noqa: PLR1730 - `max` is slower, by a tenth of the whole
                grain.at = now
            grain.until = grain.at + self._span
        else:
            self._expire(now)
            grain = Grain(now, now + self._span)
            grains.append(grain)
        grain.amount += amount
        grain.untold += 1
        self._sum += amount
        if now - (epoch := reckoning.epoch).start > GUARD:
            epoch = reckoning.begin(now)
        reckoning.drawn += amount
        if now > self._heard_until:
            self._ask(now)
        drawn = Drawn()
        drawn.at, drawn.amount, drawn.epoch, drawn.grain = now, amount, epoch, grain
        drawn.mark = self._sum - self._others - reckoning.drawn
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

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Count what others took, as far as it is not counted yet; it is over with `hold`'s window.

        What the vendor has more than we think needs no correction: whatever it is, it is over within a period.
        """
        reckoning, epoch = self._reckoning, hold.epoch
        if report.refused:
            if not reckoning.undraw(epoch, hold.amount):
                hold.mark -= hold.amount  # it was not counted when the vendor looked
            self.settle(now, hold, 0.0)
            self._misled += hold.at >= self._early_at
        counted = hold.mark + reckoning.drawn_by(epoch) + self._others
        missing = self.capacity - report.remaining - report.rounding - counted
        if missing > EPSILON:
            self._others += missing
            self._count(hold.at, missing, now)
            if epoch is not BEFORE_ALL:
                reckoning.others_drew(now, missing, hold.at, self.period, report.rounding)
        if report.reset is not None and self._misled < _MISLED:
            self._all_back(hold, report.reset)
        reckoning.told_at = max(reckoning.told_at, hold.at)
        if hold.at >= self._asked_until - _PATIENCE:
            self._untold -= 1
            if not self._untold:
                self._asked_until = -math.inf
        self._heard_until = -math.inf if now < self._asked_until else reckoning.told_at + self.period * _SILENT
        self._ample = self.capacity * (1 - _UNSURE) - reckoning.most_kept_back

    def resize(self, now: float, capacity: float) -> None:  # noqa: ARG002 - a limit's signature
        """Go on with another capacity; what is counted stays counted."""
        self.capacity = capacity
        self._ample = capacity * (1 - _UNSURE) - self._reckoning.most_kept_back

    def resized(self, now: float, capacity: float) -> Self:
        """Return one of another capacity that goes on with what is counted; calls that run are settled in both."""
        self._expire(now)
        heir = type(self)(self.name, self.unit, capacity, self.period, level=self.level, refuses=self.refuses)
        for grain in self._grains:
            grain.heirs = (*grain.heirs, heir)
        heir._grains.extend(self._grains)
        heir._sum, heir._others = self._sum, self._others
        for window in (self, heir):  # what either takes from now on is its own
            window._grains.append(Grain(now, now + self._span))
        return heir

    def crowd(self) -> None:
        """Know that several processes draw, each of which hears a part of the answers."""
        self._reckoning.crowded = True

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        self._expire(now)
        return min(1.0, max(0.0, self._sum / self.capacity))

    @property
    def grains(self) -> Iterator[Grain]:
        """What it remembers, in order of time."""
        return iter(self._grains)

    @property
    def taken(self) -> Iterator[tuple[float, float]]:
        """What it remembers, in order of time: monotonic seconds, and amount."""
        return ((grain.at, grain.amount) for grain in self._grains)

    def free(self, now: float) -> float:
        """Return what fits beside what is counted, less what is kept back for others."""
        self._expire(now)
        least = self.capacity * (1 - _UNSURE) if now < self._asked_until else self.capacity
        return least - self._sum - self._reckoning.margin(now, self.period)

    def _ask(self, now: float) -> None:
        """Count a request that asks what is left, after a silence."""
        told_at = self._reckoning.told_at
        if now < self._asked_until:
            self._untold += 1
        elif told_at > self._asked_until and now - told_at > self.period * _SILENT:
            self._asked_until, self._untold = now + _PATIENCE, 1

    def _all_back(self, hold: Hold, reset: float) -> None:
        """Know that what `hold` found there, and it, is there again `reset` seconds later.

        In which order requests of the same moment arrived nobody knows, so all of theirs must have told.
        """
        until = hold.at + reset + GUARD + (0.0 if reset % 1.0 else _WHOLE)
        if isinstance(hold, Drawn):
            own = hold.grain
            own.untold -= 1
            own.back = max(own.back, until)
            if not own.untold:
                own.until = min(own.until, own.back)
        for grain in reversed(self._grains):
            if grain.at < hold.at - GUARD:
                if grain.until <= until:  # as all before it do
                    return
                grain.until = until

    def _count(self, at: float, amount: float, now: float) -> None:
        """Count what somebody else took at its place in time, or a little after it."""
        self._expire(now)
        if at + self._span - now <= MOMENT:
            return
        self._sum += amount
        place = next((grain for grain in self._grains if grain.at >= at), None)
        if place is None:
            self._grains.append(Grain(at, at + self._span, amount))
        else:
            place.amount += amount

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
            grain = grains.popleft()
            self._sum -= grain.amount
            if grain.until < grain.at + self._span:
                self._early_at = now
        if not grains:
            self._sum = 0.0  # sums of floats drift; an empty window is exactly empty
