"""What was taken within a time, of which windows are views: one memory for all units that are counted over it."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from .amounts import part
from .base import GRAINS, GUARD, MOMENT, Hold


class Moment:
    """What was taken within a moment; all of it leaves the windows with the last of it.

    Attributes:
        start: Monotonic seconds of the first that it holds.
        end: Seconds up to which it takes more in.
        at: Monotonic seconds of the last.
        together: Amounts of all units.
        takes: How often was taken in it, of all units at once; where a provider tells of them.
        alone: How often of one unit by itself, by its place in a charge.
        said: What it told, by the window that it told of.
        gone: Places of the units that came back sooner.
    """

    __slots__ = ("alone", "at", "end", "gone", "said", "start", "takes", "together")

    def __init__(self, start: float, end: float) -> None:
        """Begin at `start`."""
        self.start: float = start
        self.end: float = end
        self.at: float = start
        self.together: int = 0
        self.takes: int = 0
        self.alone: dict[int, int] = {}
        self.said: dict[object, Said] = {}
        self.gone: tuple[int, ...] = ()

    def taken(self, place: int) -> int:
        """Return how often was taken of a unit, where a provider tells of them."""
        return self.takes + self.alone.get(place, 0)


class Said:
    """What a provider told of a moment, for one window.

    Attributes:
        told: Of how many requests it told when it will have all back.
        back: The latest of what it told.
        until: Monotonic seconds at which the moment leaves the window; infinite where nobody said so.
        takes: How often had been taken in it when that was said: a later one makes it open again.
    """

    __slots__ = ("back", "takes", "told", "until")

    def __init__(self) -> None:
        """Know nothing."""
        self.told: int = 0
        self.back: float = -math.inf
        self.until: float = math.inf
        self.takes: int = 0


NEVER = Moment(math.inf, math.inf)


class Drawn(Hold):
    """Amounts of all units, taken together.

    Attributes:
        amount: What is counted for it now.
        moment: Where.
        void: Places of units of which the provider took nothing, since it refused them; where it tells of them.
    """

    __slots__ = ("moment", "void")

    moment: Moment
    void: tuple[int, ...]
    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Leave it to the memory to fill it."""
    else:  # a call draws from several memories, and passing what a draw holds takes a third of each
        __init__ = object.__init__


def amount_of(hold: Hold, place: int) -> float:
    """Return what a hold has of the unit at a place of a charge, which is its limit's."""
    return part(hold.amount, place) if isinstance(hold, Drawn) else hold.amount


class Memory:
    """What was taken within the last `period` seconds: the sum of it, and 6000 moments.

    They are more where one unit comes back before its time, and another does not: a moment that lost a part takes
    nothing more in.

    Attributes:
        span: Seconds for which it counts.
        together: The sum, of all units.
        moments: In order of time.
        forgotten: How many others have left.
    """

    __slots__ = ("_grain", "_last", "forgotten", "moments", "span", "together")

    def __init__(self, period: float) -> None:
        """Start empty."""
        self.span: float = period + GUARD
        self.together: int = 0
        self.moments: deque[Moment] = deque()
        self.forgotten: int = 0
        self._grain = period / GRAINS
        self._last = NEVER

    def take(self, now: float, together: int) -> Drawn:
        """Count amounts from now on."""
        moment = self._last
        if not moment.start <= now <= moment.end:
            moment = self.moment(now)
        if now > moment.at:  # noqa: PLR1730 - `max` is slower, by a tenth of the whole
            moment.at = now
        moment.together += together
        self.together += together
        drawn = Drawn()
        drawn.at, drawn.amount, drawn.moment = now, together, moment
        return drawn

    def settle(self, now: float, hold: Drawn, used: int) -> None:
        """Count what was used in place of what was taken, while its moment is still inside."""
        moment = hold.moment
        if moment.at + self.span - now <= MOMENT:
            self.expire(now)
        else:
            more = used - hold.amount
            moment.together += more
            self.together += more
        hold.amount = used

    def moment(self, at: float) -> Moment:
        """Return where to count what is taken at a time, whenever it is heard of."""
        moments = self.moments
        self.expire(at)
        after = len(moments)
        while after and moments[after - 1].start > at:
            after -= 1
        if after:
            before = moments[after - 1]
            if at <= before.end and not before.gone:
                return before
            if before.start == at:  # no two begin together, so that they have an order
                at = math.nextafter(at, math.inf)
        moment = Moment(at, at + self._grain)
        moments.insert(after, moment)
        if moment is moments[-1]:
            self._last = moment
        return moment

    def expire(self, now: float) -> None:
        """Forget what has left."""
        moments, span = self.moments, self.span
        while moments and moments[0].at + span - now <= MOMENT:
            self.forget_first()

    def forget_first(self) -> None:
        """Forget the first moment, for good: also for who comes later with an earlier time, as of another thread."""
        gone = self.moments.popleft()
        self.forgotten += 1
        self.together -= gone.together
        gone.together = 0
        gone.at = gone.end = -math.inf
