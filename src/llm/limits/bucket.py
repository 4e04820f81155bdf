"""Token bucket: starts full and refills continuously, as OpenAI and Anthropic do."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from .base import BEFORE_ALL, CROWD_GUARD, GUARD, MOMENT, Hold, Timed
from .draws import Draws
from .reckoning import Others, Rise, told_level

if TYPE_CHECKING:
    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Unit


_MOST_PEAKS = 2048  # an even number


class _Peaks:
    """The levels that a bucket fell from, in order, as far as a later one was not higher.

    Between two draws the level only rises, so the highest level since a draw is the first entry after it. Entries are
    kept as drops from the one before (the first from the capacity), so that all after a draw are raised in one step.

    A bucket of a day may fall for a million draws. So of too many entries every second is merged with the one after it,
    as the higher level of the two at the later draw: a refund may find less room than there was, never more.
    """

    __slots__ = ("_capacity", "_drops", "_last", "_numbers")

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._last = capacity
        self._drops: list[float] = []
        self._numbers: list[int] = []

    def fell(self, number: int, level: float) -> None:
        """Note that draw `number` found the bucket at `level`."""
        while self._drops and self._last <= level:
            self._numbers.pop()
            self._last += self._drops.pop()
        if not self._drops:
            self._last = self._capacity
        self._numbers.append(number)
        self._drops.append(self._last - level)
        self._last = level
        if len(self._drops) > _MOST_PEAKS:
            self._merge()

    def lift(self, number: int, amount: float, ceiling: float = math.inf) -> float:
        """Raise all levels after draw `number`, as if it had taken less, as far as none exceeds `ceiling`.

        Returns by how much.
        """
        place = bisect_right(self._numbers, number)
        if place == len(self._drops):
            return amount
        highest = self._last + sum(self._drops[place + 1 :])
        amount = max(0.0, min(amount, ceiling - highest))
        self._last += amount
        self._drops[place] -= amount
        while place and self._drops[place] <= 0.0:
            self._drops[place - 1] += self._drops.pop(place)
            self._numbers.pop(place - 1)
            place -= 1
        return amount

    def _merge(self) -> None:
        drops, numbers = self._drops, self._numbers  # an odd number of them: the last stays as it is
        self._drops = [drops[0], *(drops[place - 1] + drops[place] for place in range(2, len(drops), 2))]
        self._numbers = [*numbers[1::2], numbers[-1]]


class TokenBucket(Timed):
    """`capacity` per `period` seconds; a `Limit`.

    The vendor's bucket starts to refill when a request arrives there, up to `GUARD` seconds after ours saw it leave.
    So ours never ends its refill earlier than `GUARD` after the last draw: it may be behind the vendor's, never ahead.
    Where several processes draw it is `CROWD_GUARD`.

    Source: https://docs.anthropic.com/en/api/rate-limits names the algorithm and its continuous refill.
    """

    __slots__ = ("_drawn", "_draws", "_guard", "_level", "_others", "_peaks", "_refills_from", "_rise")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Start full."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self._level = capacity
        self._refills_from = -math.inf
        self._draws = 0
        self._guard = GUARD
        self._peaks = _Peaks(capacity)
        self._drawn = Draws()
        self._others = Others()
        self._rise = Rise()

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until the bucket holds `amount`."""
        capacity, others = self.capacity, self._others
        if amount > capacity:
            return math.inf
        if others.kept_back:
            amount = min(amount + others.margin(now, self.period), capacity)
        if amount <= self._level:  # what has come back meanwhile only makes more room
            return 0.0
        missing = amount - self._refilled(now)
        if missing <= 0.0:
            return 0.0
        seconds = missing * self.period / capacity + max(0.0, self._refills_from - now)
        return seconds if seconds > MOMENT else 0.0

    def take(self, now: float, amount: float) -> Hold:
        """Take `amount` out."""
        level, draws = self._refilled(now), self._drawn
        start, guard = self._refills_from, self._guard
        if start < now:  # noqa: PLR1730 - `max` is slower, by a twentieth of the whole
            start = now
        full_at = start + (self.capacity - level) * self.period / self.capacity
        self._draws += 1
        self._lower(level, level - amount)
        self._refills_from = start if full_at >= now + guard else start + (now + guard - full_at)
        epoch = draws.epoch if now - draws.epoch.start <= GUARD else draws.begin(now)
        draws.drawn += amount
        return Hold(now, amount, self._draws, draws.returned, epoch)

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Put back what was not used, or take what was used beyond; the bucket may go below zero then.

        What the bucket regained meanwhile is not given twice: had the amount not been taken, a full bucket would have
        let that much run over.
        """
        back = hold.amount - used
        if back == 0.0:
            return
        level = self._refilled(now)
        if back > 0.0:
            capacity = self.capacity
            ceiling = capacity - self._guard * capacity / self.period
            self._level = level + self._peaks.lift(hold.number, max(0.0, min(back, capacity - level)), ceiling)
            self._drawn.returned += back
        else:
            self._draws += 1
            self._lower(level, level + back)
            self._drawn.drawn -= back
        if self._refills_from < now:  # noqa: PLR1730 - as above
            self._refills_from = now
        hold.amount = used

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Lower the level at once to what the vendor must have now; raise it when it has had more for a while."""
        draws, others, epoch = self._drawn, self._others, hold.epoch
        least, most = told_level(report, self.period)
        arrived = hold.at
        if report.refused:
            if others.crowded:  # or each process that knows it a little late is refused for as little again
                arrived += GUARD
            if least < hold.amount:  # as far as rounded numbers tell, it was too little
                most = min(most, hold.amount)
            self._refused(now, hold)
        rate = self.capacity / self.period
        level = self._refilled(now)
        highest = (
            most + rate * (now - arrived)
            - draws.drawn_after(epoch) + draws.returned - hold.mark
        )  # fmt: skip
        if highest < level:
            self._draws += 1
            self._lower(level, highest)
            self._refills_from = max(now, self._refills_from)
            if epoch is not BEFORE_ALL:
                others.drew(now, level - highest, hold.at, self.period, report.rounding)
            self._rise.end()
        elif epoch is not BEFORE_ALL:
            lowest = (
                least + rate * (now - hold.at - self._guard)
                - draws.drawn_around(epoch) + hold.amount + draws.returned_after(epoch)
            )  # fmt: skip
            self._raise(now, level, self._rise.seen(now, min(lowest, self.capacity) - level))
        others.told_at = max(others.told_at, hold.at)

    def resize(self, now: float, capacity: float) -> None:
        """Go on with another capacity: a smaller bucket keeps the share that is taken, and a larger one fills in time.

        As many as were taken of a large bucket could keep a small one empty for hours, and nothing would be heard then
        that corrects it. Where more is gone, the report that told the capacity says so.
        """
        level = self._refilled(now) * min(1.0, capacity / self.capacity)
        self.capacity = capacity
        self._peaks = _Peaks(capacity)
        self._draws += 1
        self._lower(level, level)
        self._refills_from = max(now, self._refills_from)

    def crowd(self) -> None:
        """Know that several processes draw, each of which hears a part of the answers."""
        self._others.crowded = True
        self._guard = CROWD_GUARD

    def lacking(self, now: float) -> float:
        """Return what it must regain to be full; a refill that is yet to begin makes it more."""
        rate = self.capacity / self.period
        return self.capacity - self._refilled(now) + rate * max(0.0, self._refills_from - now)

    def saturation(self, now: float) -> float:
        """Return the share that is gone."""
        return min(1.0, max(0.0, 1.0 - self._refilled(now) / self.capacity))

    def free(self, now: float) -> float:
        """Return what it holds, less what is kept back for others."""
        return self._refilled(now) - self._others.margin(now, self.period)

    def _refilled(self, now: float) -> float:
        elapsed = now - self._refills_from
        if elapsed <= 0.0:
            return self._level
        capacity = self.capacity
        level = self._level + elapsed * capacity / self.period
        return level if level < capacity else capacity  # noqa: FURB136 - as above

    def _refused(self, now: float, hold: Hold) -> None:
        """Put back what the vendor did not take."""
        amount = hold.amount
        self.settle(now, hold, 0.0)
        if self._drawn.undraw(hold.epoch, amount):
            self._drawn.returned -= amount
        else:
            hold.mark += amount  # it came back, but was not gone when the vendor looked

    def _raise(self, now: float, level: float, amount: float) -> None:
        if amount > 0.0:
            self._peaks.lift(0, amount)
            self._level = level + amount
            self._refills_from = max(now, self._refills_from)

    def _lower(self, before: float, after: float) -> None:
        self._peaks.fell(self._draws, before)
        self._level = after
