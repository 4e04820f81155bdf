"""How a vendor counts one limit: a bucket, a fixed window, a sliding window, or calls in flight. Pure: `now` comes in.

Written from the vendors' side and on purpose not from `llm.limits`, so that neither hides a mistake of the other.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

_SLACK = 1e-9  # a client that comes exactly when it was told must not be refused for the last bit of a float


@dataclass(slots=True)
class Taken:
    """What a request took.

    Attributes:
        at: When, in monotonic seconds.
        amount: How much.
    """

    at: float
    amount: float


class Allowance(Protocol):
    """A limit and what is left of it; all times in monotonic seconds."""

    limit: float

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until `amount` is there if nothing else comes; 0 for now, infinite for never."""
        ...

    def take(self, now: float, amount: float) -> Taken:
        """Take `amount`."""
        ...

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """Correct what was taken to `amount`."""

    def remaining(self, now: float) -> float:
        """Return what is left, 0 or more."""
        ...

    def reset(self, now: float) -> float:
        """Return seconds until all of it is there again."""
        ...


class BucketAllowance:
    """Full at the start, refilled continuously, never above the limit: OpenAI and Anthropic."""

    def __init__(self, limit: float, period: float, start: float) -> None:
        """Allow `limit` per `period` seconds."""
        self.limit = limit
        self._rate = limit / period
        self._level = limit
        self._at = start

    def wait(self, now: float, amount: float) -> float:
        """As in `Allowance`."""
        if amount > self.limit + _SLACK:
            return math.inf
        missing = amount - self._fill(now)
        return missing / self._rate if missing > _SLACK else 0.0

    def take(self, now: float, amount: float) -> Taken:
        """As in `Allowance`."""
        self._fill(now)
        self._level -= amount
        return Taken(now, amount)

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """As in `Allowance`; an answer larger than reserved may leave less than nothing."""
        self._level = min(self.limit, self._fill(now) + taken.amount - amount)
        taken.amount = amount

    def remaining(self, now: float) -> float:
        """As in `Allowance`."""
        return max(0.0, self._fill(now))

    def reset(self, now: float) -> float:
        """As in `Allowance`."""
        return (self.limit - self._fill(now)) / self._rate

    def _fill(self, now: float) -> float:
        self._level = min(self.limit, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return self._level


class FixedAllowance:
    """A whole allowance at the start, the next one at `phase` seconds, and then one every period."""

    def __init__(self, limit: float, period: float, start: float, phase: float) -> None:
        """Allow `limit` in each window."""
        self.limit = limit
        self._period = period
        self._ends = start + phase
        self._used = 0.0

    def wait(self, now: float, amount: float) -> float:
        """As in `Allowance`."""
        if amount > self.limit + _SLACK:
            return math.inf
        return 0.0 if amount <= self._left(now) + _SLACK else self._ends - now

    def take(self, now: float, amount: float) -> Taken:
        """As in `Allowance`."""
        self._left(now)
        self._used += amount
        return Taken(now, amount)

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """As in `Allowance`; what was taken in a window that is over changes nothing."""
        self._left(now)
        if taken.at >= self._ends - self._period - _SLACK:
            self._used += amount - taken.amount
        taken.amount = amount

    def remaining(self, now: float) -> float:
        """As in `Allowance`."""
        return max(0.0, self._left(now))

    def reset(self, now: float) -> float:
        """As in `Allowance`."""
        return self._ends - now if self._left(now) < self.limit else 0.0

    def _left(self, now: float) -> float:
        if now >= self._ends - _SLACK:
            self._ends += (math.floor((now + _SLACK - self._ends) / self._period) + 1) * self._period
            self._used = 0.0
        return self.limit - self._used


class SlidingAllowance:
    """No span of a period's length holds more than the limit."""

    def __init__(self, limit: float, period: float) -> None:
        """Allow `limit` in any `period` seconds."""
        self.limit = limit
        self._period = period
        self._log: deque[Taken] = deque()

    def wait(self, now: float, amount: float) -> float:
        """As in `Allowance`."""
        if amount > self.limit + _SLACK:
            return math.inf
        missing = amount - self._left(now)
        for taken in self._log:
            if missing <= _SLACK:
                break
            missing -= taken.amount
            if missing <= _SLACK:
                return taken.at + self._period - now
        return 0.0

    def take(self, now: float, amount: float) -> Taken:
        """As in `Allowance`."""
        taken = Taken(now, amount)
        self._log.append(taken)
        return taken

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """As in `Allowance`; it counts from when it was taken."""
        del now
        taken.amount = amount

    def remaining(self, now: float) -> float:
        """As in `Allowance`."""
        return max(0.0, self._left(now))

    def reset(self, now: float) -> float:
        """As in `Allowance`."""
        self._left(now)
        return self._log[-1].at + self._period - now if self._log else 0.0

    def _left(self, now: float) -> float:
        while self._log and self._log[0].at + self._period <= now + _SLACK:
            self._log.popleft()
        return self.limit - sum(taken.amount for taken in self._log)


class InFlightAllowance:
    """So many calls at once."""

    def __init__(self, limit: float) -> None:
        """Allow `limit` at once."""
        self.limit = limit
        self._used = 0.0

    def wait(self, now: float, amount: float) -> float:
        """As in `Allowance`; when a call will end is not known, so one second stands for it."""
        del now
        return 1.0 if self._used + amount > self.limit else 0.0

    def take(self, now: float, amount: float) -> Taken:
        """As in `Allowance`."""
        self._used += amount
        return Taken(now, amount)

    def settle(self, now: float, taken: Taken, amount: float) -> None:
        """As in `Allowance`; a call that has ended takes nothing."""
        del now, amount
        self._used -= taken.amount
        taken.amount = 0.0

    def remaining(self, now: float) -> float:
        """As in `Allowance`."""
        del now
        return self.limit - self._used

    def reset(self, now: float) -> float:
        """As in `Allowance`."""
        return 1.0 if self.remaining(now) < self.limit else 0.0
