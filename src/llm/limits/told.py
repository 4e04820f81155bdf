"""What was taken within a time of a provider that tells what is left: what others took is in it, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .amounts import TOGETHER, alone, only
from .base import GUARD, MOMENT
from .draws import Draws
from .moments import NEVER, Drawn, Memory

if TYPE_CHECKING:
    from .moments import Moment


class Follower(Protocol):
    """A limit that was counted in a memory, and goes on elsewhere with what was taken."""

    def follow(self, now: float, hold: Drawn, used: int, /) -> None:
        """Settle what was taken in the memory."""


class ToldMemory(Memory):
    """A memory with what its windows reckon with as the provider tells of them.

    Attributes:
        draws: All that was drawn, by when it may have arrived.
        others: All that others took, as far as it was ever known.
        followers: Limits that were counted here before.
        places: Places of the units that windows count here.
    """

    __slots__ = ("_passed", "draws", "followers", "others", "places")

    def __init__(self, period: float) -> None:
        """Start empty."""
        super().__init__(period)
        self.draws: Draws = Draws()
        self.others: int = 0
        self.followers: tuple[Follower, ...] = ()
        self.places: frozenset[int] = frozenset()
        self._passed = [0] * TOGETHER  # how many of all moments there ever were a unit came back of, at least; by place

    def take(self, now: float, together: int) -> Drawn:
        """Count amounts of all units from now on."""
        moment = self._last
        if not moment.start <= now <= moment.end:
            moment = self.moment(now)
        if now > moment.at:  # noqa: PLR1730 - `max` is slower, by a tenth of the whole
            moment.at = now
        moment.takes += 1
        moment.together += together
        self.together += together
        draws = self.draws
        if now - (epoch := draws.epoch).start > GUARD:
            epoch = draws.begin(now)
        draws.drawn += together
        drawn = Drawn()
        drawn.at, drawn.amount, drawn.moment, drawn.epoch, drawn.void = now, together, moment, epoch, ()
        drawn.mark = self.together - self.others - draws.drawn
        return drawn

    def take_of(self, now: float, place: int, amount: float) -> Drawn:
        """Count an amount of one unit from now on."""
        drawn = self.take(now, alone(place, amount))
        moment = drawn.moment
        moment.takes -= 1
        moment.alone[place] = moment.alone.get(place, 0) + 1
        return drawn

    def settle(self, now: float, hold: Drawn, used: int) -> None:
        """Count what was used in place of what was taken, as far as it is still inside, and was not refused."""
        if self.followers:
            for follower in self.followers:
                follower.follow(now, hold, used)
        more, moment = used - hold.amount, hold.moment
        hold.amount = used
        if moment.at + self.span - now <= MOMENT:
            self.expire(now)
            return
        if hold.void or moment.gone:
            for place in {*hold.void, *moment.gone}:
                more -= only(more, place)
        moment.together += more
        self.together += more

    def void(self, now: float, hold: Drawn, place: int) -> int:
        """Know that the provider took nothing of a unit, and return what was counted for it."""
        amount = only(hold.amount, place)
        self.settle(now, hold, hold.amount - amount)
        hold.void = (*hold.void, place)
        return amount

    def followed_by(self, limit: Follower) -> None:
        """Have a limit settle what was taken of it here, which is taken of it elsewhere from now on."""
        self.followers = (*self.followers, limit)

    def moment(self, at: float) -> Moment:
        """Return where to count what is taken at a time, whenever it is heard of."""
        moment, moments = super().moment(at), self.moments
        if moment is not moments[-1]:
            for place, passed in enumerate(self._passed):
                if passed > self.forgotten and moment.start <= moments[passed - self.forgotten - 1].start:
                    self._passed[place] = 0
        return moment

    def first(self, place: int) -> int:
        """Return where those moments begin of which a unit did not come back sooner."""
        moments, first = self.moments, max(0, self._passed[place] - self.forgotten)
        while first < len(moments) and place in moments[first].gone:
            first += 1
        self._passed[place] = first + self.forgotten
        return first

    def put(self, at: float, now: float, unit: int, amount: float) -> None:
        """Count what others took of a unit at its place in time, or a little after it."""
        together = alone(unit, amount)
        self.others += together
        self.expire(now)
        if at + self.span - now > MOMENT:
            place = None
            for moment in reversed(self.moments):
                if moment.at < at:
                    break
                if unit not in moment.gone:
                    place = moment
            (place or self.moment(at)).together += together
            self.together += together

    def back(self, moment: Moment, place: int) -> None:
        """Know that one unit of a moment left; what is taken from now on is of another."""
        amount = only(moment.together, place)
        moment.together -= amount
        self.together -= amount
        moment.gone = (*moment.gone, place)
        if moment is self._last:
            self._last = NEVER
        while self.moments and self.places <= set(self.moments[0].gone):
            self.forget_first()
