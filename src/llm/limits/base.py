"""What a limit is: it says how long an amount must wait, takes it, and settles it to what was used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, get_args

from llm.core.call import Charge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .amounts import Amounts

Unit = Literal["requests", "input_tokens", "output_tokens", "total_tokens", "cost"]

PLACES: Final[dict[Unit, int]] = {unit: Charge._fields.index(unit) for unit in get_args(Unit)}
"""Where each unit stands in a charge: a look there takes a fifth of one by name, and a call takes three a limit."""

GUARD = 0.1
"""Seconds that our view of a limit stays behind: the vendor refills once a request has arrived, not once it left."""

CROWD_GUARD = 0.5
"""As `GUARD`, where several processes draw: the log has what others took before they open a connection to send it."""

GRAINS = 6000
"""Moments of a period that a window tells apart: ten milliseconds of a minute."""

MOMENT = 1e-7
"""Seconds that are no wait: sums of floats are off by less, and no timer is as fine."""

EPSILON = 1e-9
"""Of an amount: sums of dollars are off by less."""

DAY = 86400.0

Amount: TypeAlias = Any
"""So much of a limit's unit, a float; or of all units together, the whole number of `amounts`."""


class Epoch:
    """A time of `GUARD` seconds in which draws may have overtaken each other.

    Attributes:
        start: Monotonic seconds of its first draw.
        drawn: All that was drawn before it.
        before: What had been drawn when it began, less what may have arrived only later.
        until: What had been drawn by when no later draw can have arrived earlier; None while that is now.
        returned: What had come back by then.
    """

    __slots__ = ("before", "drawn", "returned", "start", "until")

    def __init__(self, start: float, drawn: Amount, before: Amount, until: Amount | None = None) -> None:
        """Begin."""
        self.start: float = start
        self.drawn: Amount = drawn
        self.before: Amount = before
        self.until: Amount | None = until
        self.returned: Amount = 0


BEFORE_ALL = Epoch(-math.inf, 0, 0, 0)
"""The epoch of a request that was sent before its limit was known."""


class Hold:
    """An amount taken from a limit, until it is settled.

    Attributes:
        at: Monotonic seconds at which it was taken.
        amount: What is counted for it now.
        number: Which of the limit's holds it is, for limits that ask.
        mark: Where the limit stood right after it, for limits that are told what was left then.
        epoch: When that was, among the other draws.
    """

    __slots__ = ("amount", "at", "epoch", "mark", "number")

    def __init__(self, at: float, amount: Amount, number: int = 0, mark: Amount = 0, epoch: Epoch = BEFORE_ALL) -> None:
        """Keep time, amount, number and place."""
        self.at: float = at
        self.amount: Amount = amount
        self.number: int = number
        self.mark: Amount = mark
        self.epoch: Epoch = epoch


class Limit(Protocol):
    """One number that must not be exceeded.

    Attributes:
        name: Its field in the configuration, such as `tokens_per_minute`.
        level: Whose limit it is.
        unit: Which part of a charge counts.
        place: Where that stands in a charge.
        capacity: The number.
        refuses: Whether what does not fit is refused at once instead of waiting: limits per day, and in dollars.
        timed: Whether time alone makes room; else another call must end.
    """

    name: str
    level: LimitScope
    unit: Unit
    place: int
    capacity: float
    refuses: bool
    timed: bool

    def wait(self, now: float, amount: float, /) -> float:
        """Return seconds until `amount` could be taken: 0 for now, infinite for never."""
        ...

    def take(self, now: float, amount: float, /) -> Hold:
        """Take `amount`; the caller asked `wait` first, in the same step."""
        ...

    def settle(self, now: float, hold: Hold, used: float, /) -> None:
        """Correct what is counted for `hold` to `used`, which may be more."""
        ...

    def saturation(self, now: float, /) -> float:
        """Return how full it is, 0 to 1."""
        ...

    def free(self, now: float, /) -> float:
        """Return how much could be taken now, in its unit; infinite where what is taken counts against nobody else."""
        ...


class Payer(Protocol):
    """A limit, or several that are taken from in one step.

    Attributes:
        level: Whose they are.
        place: Where what they count stands in `Amounts`.
        timed: Whether time alone makes room; else another call must end.
    """

    level: LimitScope
    place: int
    timed: bool

    def wait(self, now: float, amount: Any, /) -> float:  # noqa: ANN401 - what stands at that place
        """Return seconds until the amount could be taken: 0 for now, infinite for never."""
        ...

    @property
    def take(self) -> Callable[[float, Any], Hold]:
        """Take the amount."""
        ...

    @property
    def settle(self) -> Callable[[float, Any, Any], None]:
        """Correct what is counted for a hold to what was used."""
        ...


Holds: TypeAlias = "list[tuple[Any, Hold]]"
"""Payers, or some of the limits that they pay for, with what was taken of each."""


class Learning(Limit, Protocol):
    """A limit in a time, which levels itself with what the provider says is left.

    Attributes:
        period: Seconds in which the capacity is there once.
    """

    period: float

    def learn(self, now: float, hold: Hold, report: LimitReport, /) -> None:
        """Be told what the provider had left right after it admitted (or refused) `hold`."""
        ...

    def resize(self, now: float, capacity: float, /) -> None:
        """Go on with another capacity; what is taken stays taken."""
        ...


class Timed:
    """What all limits have that hold so much in a period."""

    __slots__ = ("capacity", "level", "name", "period", "place", "refuses", "timed", "unit")

    def __init__(  # noqa: PLR0913 - a limit's six facts
        self, name: str, unit: Unit, capacity: float, period: float, *, level: LimitScope = "key", refuses: bool = False
    ) -> None:
        """Keep the limit's facts."""
        self.name: str = name
        self.unit: Unit = unit
        self.place: int = PLACES[unit]
        self.capacity: float = capacity
        self.period: float = period
        self.level: LimitScope = level
        self.refuses: bool = refuses
        self.timed: bool = True


@dataclass(frozen=True, slots=True)
class Binding:
    """The limit that keeps a charge waiting longest.

    Attributes:
        seconds: Seconds that it must wait.
        limit: The limit; None where nothing binds.
    """

    seconds: float = 0.0
    limit: Limit | None = None

    @property
    def timed(self) -> bool:
        """Whether the wait is known, since time alone ends it."""
        return self.limit is None or self.limit.timed


FREE = Binding()
NEVER = Binding(math.inf)


def can_pay(payers: Iterable[Payer], amounts: Amounts, now: float) -> bool:
    """Return whether these amounts could be taken from all of them now."""
    for payer in payers:  # noqa: SIM110 - with a generator it takes twice as long
        if payer.wait(now, amounts[payer.place]) > 0.0:
            return False
    return True


def binding(limits: Iterable[Limit], charge: Charge, now: float) -> Binding:
    """Return the limit that `charge` waits for longest; `FREE` when it can be paid now."""
    longest, found = 0.0, None
    for limit in limits:
        seconds = limit.wait(now, charge[limit.place])
        if seconds > longest:
            longest, found = seconds, limit
            if seconds == math.inf:
                break
    return FREE if found is None else Binding(longest, found)


def never_fits(limits: Iterable[Limit], charge: Charge) -> Limit | None:
    """Return the first limit that `charge` exceeds even when nothing else is counted."""
    return next((limit for limit in limits if getattr(charge, limit.unit) > limit.capacity), None)
