"""Windows above the keys: of everything, of a user. What we take ourselves is all there is of these limits.

Those of one account and one period count the same requests, each in its own unit. So they have one memory of what was
taken, and a call that passes several of them is counted once. Windows that a provider tells of are in `window`.
"""

from __future__ import annotations

import math
from collections import deque
from operator import sub
from typing import TYPE_CHECKING, Any

from llm.core.call import Charge

from .base import EPSILON, GRAINS, GUARD, MOMENT, Hold, Timed
from .most import Most

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llm.core.exceptions import LimitScope

    from .base import Holds, Limit, Payer, Unit

_NOTHING = Charge(requests=0)


class Amounts:
    """So much in each unit."""

    __slots__ = ("cost", "input_tokens", "output_tokens", "requests", "total_tokens")

    def __init__(self) -> None:
        """Start at nothing."""
        self.input_tokens: float = 0
        self.output_tokens: float = 0
        self.total_tokens: float = 0
        self.cost: float = 0.0
        self.requests: float = 0


class Moment(Amounts):
    """What was taken within a moment; all of it leaves the windows with the last of it.

    Attributes:
        start: Monotonic seconds of the first that it holds.
        at: Monotonic seconds of the last.
        until: Monotonic seconds at which it leaves.
    """

    __slots__ = ("at", "start", "until")

    def __init__(self, at: float, until: float) -> None:
        """Begin at `at`."""
        super().__init__()
        self.start: float = at
        self.at: float = at
        self.until: float = until


class Memory(Amounts):
    """What was taken within the last `period` seconds: the sums of it, and at most 6000 moments.

    Attributes:
        moments: In order of time.
    """

    __slots__ = ("_grain", "_span", "moments")

    def __init__(self, period: float) -> None:
        """Start empty."""
        super().__init__()
        self._span = period + GUARD
        self._grain = period / GRAINS
        self.moments: deque[Moment] = deque()

    def take(self, now: float, amounts: tuple[float, ...]) -> Drawn:
        """Count amounts, in the order of a `Charge`, from now on; whoever draws puts in what."""
        moments = self.moments
        if moments and now - (moment := moments[-1]).start <= self._grain:
            if now > moment.at:
                moment.at = now
                moment.until = now + self._span
        else:
            self.expire(now)
            moment = Moment(now, now + self._span)
            moments.append(moment)
        self._count(moment, amounts)
        drawn = Drawn()
        drawn.at, drawn.moment = now, moment
        return drawn

    def correct(self, now: float, moment: Moment, more: tuple[float, ...]) -> None:
        """Count so much more than was taken in a moment, while that is still inside."""
        if moment.until - now <= MOMENT:
            self.expire(now)
        else:
            self._count(moment, more)

    def expire(self, now: float) -> None:
        """Forget what has left."""
        moments = self.moments
        while moments and moments[0].until - now <= MOMENT:
            gone = moments.popleft()
            self.input_tokens -= gone.input_tokens
            self.output_tokens -= gone.output_tokens
            self.total_tokens -= gone.total_tokens
            self.cost -= gone.cost
            self.requests -= gone.requests
        if not moments:
            super().__init__()  # sums of floats drift; an empty memory is exactly empty

    def _count(self, moment: Moment, more: tuple[float, ...]) -> None:
        # Written out for both, since a method of `Amounts` would see two kinds in turn, which takes twice as long.
        input_tokens, output_tokens, total_tokens, cost, requests = more
        moment.input_tokens += input_tokens
        self.input_tokens += input_tokens
        moment.output_tokens += output_tokens
        self.output_tokens += output_tokens
        moment.total_tokens += total_tokens
        self.total_tokens += total_tokens
        if cost:
            moment.cost += cost
            self.cost += cost
        if requests:
            moment.requests += requests
            self.requests += requests


class Drawn(Hold):
    """An amount taken from a window, or a charge taken from several.

    Attributes:
        moment: Where it is counted.
    """

    __slots__ = ("moment",)

    moment: Moment
    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Leave it to the memory to fill it."""
    else:  # as of a window of a provider
        __init__ = object.__init__


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

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        if self._sum + amount <= self.capacity:
            return 0.0  # what has left the window meanwhile only makes more room
        if amount > self.capacity:
            return math.inf
        self.memory.expire(now)
        excess, due = self._sum + amount - self.capacity, now
        for moment in self.memory.moments:
            if excess <= EPSILON:
                break
            excess -= getattr(moment, self.unit)
            due = max(due, moment.until)
        return due - now

    def take(self, now: float, amount: float) -> Drawn:
        """Count `amount` from now on."""
        drawn = self.memory.take(now, self._alone(amount))
        drawn.amount = amount
        return drawn

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Count `used` in place of what was taken, where its window still runs."""
        if isinstance(hold, Drawn):
            self.memory.correct(now, hold.moment, self._alone(used - hold.amount))
        hold.amount = used

    def resized(self, now: float, capacity: float) -> OwnWindow:  # noqa: ARG002 - as of a window of a provider
        """Return one of another capacity with the same memory."""
        return OwnWindow(
            self.name, self.unit, capacity, self.period, level=self.level, refuses=self.refuses, memory=self.memory
        )

    def saturation(self, now: float) -> float:
        """Return the share that is taken."""
        self.memory.expire(now)
        return min(1.0, max(0.0, self._sum / self.capacity))

    def free(self, now: float) -> float:
        """Return what fits beside what is counted."""
        self.memory.expire(now)
        return self.capacity - self._sum

    @property
    def taken(self) -> Iterator[tuple[float, float]]:
        """What it remembers, in order of time: monotonic seconds, and amount."""
        return ((moment.at, getattr(moment, self.unit)) for moment in self.memory.moments)

    @property
    def _sum(self) -> float:
        taken: float = getattr(self.memory, self.unit)
        return taken

    def _alone(self, amount: float) -> tuple[float, ...]:
        """Return what a charge would be of this unit alone."""
        return (*_NOTHING[: self.place], amount, *_NOTHING[self.place + 1 :])


class Together:
    """Windows with one memory, which a charge is taken from in one step; a `Payer`.

    Attributes:
        windows: They.
        level: Whose limits they are.
    """

    __slots__ = ("_memory", "_most", "level", "place", "timed", "windows")

    def __init__(self, windows: Sequence[OwnWindow]) -> None:
        """Take windows of one account that have one memory, one at least."""
        self.windows: tuple[OwnWindow, ...] = tuple(windows)
        self.level: LimitScope = windows[0].level
        self.place: slice = slice(None)  # all of a charge
        self.timed: bool = True
        self._memory = windows[0].memory
        self._most = tuple(Most.of(windows))

    def wait(self, now: float, charge: tuple[float, ...]) -> float:
        """Return seconds until the charge fits all of them."""
        memory = self._memory
        input_tokens, output_tokens, total_tokens, cost, requests = charge
        most_requests, most_input, most_output, most_total, most_cost = self._most
        if (
            memory.requests + requests <= most_requests
            and memory.total_tokens + total_tokens <= most_total
            and memory.input_tokens + input_tokens <= most_input
            and memory.output_tokens + output_tokens <= most_output
            and memory.cost + cost <= most_cost
        ):
            return 0.0
        return max([window.wait(now, charge[window.place]) for window in self.windows])

    def take(self, now: float, charge: tuple[float, ...]) -> Drawn:
        """Count the charge from now on."""
        drawn = self._memory.take(now, charge)
        held: Any = drawn
        held.amount = charge
        return drawn

    def settle(self, now: float, hold: Hold, used: tuple[float, ...]) -> None:
        """Count what was used in place of what was taken, where its windows still run."""
        held: Any = hold
        if isinstance(hold, Drawn):
            self._memory.correct(now, hold.moment, tuple(map(sub, used, held.amount)))
        held.amount = used


def payers(limits: Iterable[Limit]) -> tuple[Payer, ...]:
    """Return what a charge is taken from, so that all of `limits` count it: windows of one memory as one."""
    windows: dict[Memory, list[OwnWindow]] = {}
    others: list[Payer] = []
    for limit in limits:
        if isinstance(limit, OwnWindow):
            windows.setdefault(limit.memory, []).append(limit)
        else:
            others.append(limit)
    return (*map(Together, windows.values()), *others)


def limits_of(holds: Holds) -> list[Limit]:
    """Return the limits that were taken from."""
    limits: list[Limit] = []
    for payer, _ in holds:
        limits += payer.windows if isinstance(payer, Together) else (payer,)
    return limits
