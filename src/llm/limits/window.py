"""Sliding window of a provider, which tells of it: what others take is counted, too, and what comes back sooner."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

from .amounts import part
from .base import BEFORE_ALL, EPSILON, GUARD, MOMENT
from .moments import Drawn, Said
from .own_window import OwnWindow
from .reckoning import Others
from .told import ToldMemory

if TYPE_CHECKING:
    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Hold, Unit
    from .moments import Moment

_SILENT = 1 / 4  # of a period
_UNSURE = 1 / 4  # of the capacity
_PATIENCE = 2.0  # seconds
_WHOLE = 1.0  # seconds that a reset in whole ones may be off
_MISLED = 8  # refusals


class SlidingWindow(OwnWindow):
    """`capacity` in any `period` seconds, as a provider counts it; a `Limit`.

    A full window sends nothing, so it is told nothing, while others may take what they like. After such a silence a
    quarter stays back until all answers have told what was left, or two seconds have passed.

    Where the provider says that all will be there again sooner, as one does whose windows are the same for all
    requests, that holds; unless calls are refused that relied on it.
    """

    __slots__ = (
        "_ample", "_asked_until", "_back_at", "_early_at", "_heard_until", "_misled", "_others", "_untold",
    )  # fmt: skip

    memory: ToldMemory  # pyright: ignore[reportIncompatibleVariableOverride] # it is made with one, and keeps it

    def __init__(  # noqa: PLR0913 - a limit's six facts, and a memory
        self,
        name: str,
        unit: Unit,
        capacity: float,
        period: float,
        *,
        level: LimitScope = "key",
        refuses: bool = False,
        memory: ToldMemory | None = None,
    ) -> None:
        """Start with what `memory` has; None for an empty one of its own."""
        own = ToldMemory(period) if memory is None else memory
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses, memory=own)
        own.places |= {self.place}
        self._heard_until = math.inf  # what is taken before need not ask how long nothing was told
        self._others = Others()
        self._asked_until = -math.inf
        self._ample = capacity * (1 - _UNSURE)
        self._untold = 0
        self._back_at = math.inf  # nothing leaves sooner than it would by itself before then
        self._early_at = math.inf
        self._misled = 0

    @property
    def ample(self) -> float:
        """What fits without a further look, with all that is counted."""
        return self._ample

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until so much has left the window that `amount` fits."""
        capacity, others, counted = self.capacity, self._others, part(self.memory.together, self.place)
        if counted + amount <= self._ample:
            return 0.0
        if amount > capacity:
            return math.inf
        if others.kept_back:
            amount = min(amount + others.margin(now, self.period), capacity)
        asking = now < self._asked_until
        if counted + amount <= (capacity * (1 - _UNSURE) if asking else capacity):
            return 0.0  # what has left the window meanwhile only makes more room
        counted = self._counted(now)
        seconds, least = self._due(now, counted + amount - capacity), capacity * (1 - _UNSURE)
        if not asking:
            return seconds
        told = max(seconds, self._asked_until - now)
        return told if amount > least else min(told, self._due(now, counted + amount - least))

    def take(self, now: float, amount: float) -> Drawn:
        """Count `amount` from now on."""
        self.look(now)
        return self.memory.take_of(now, self.place, amount)

    def look(self, now: float) -> None:
        """Forget what left, and know that a request is sent: where nothing was told for long, it asks what is left."""
        self._counted(now)
        told_at = self._others.told_at
        if now <= self._heard_until:
            return
        if now < self._asked_until:
            self._untold += 1
        elif told_at <= self._asked_until:  # nothing was told since: to ask again would tell as little
            self._heard_until = math.inf
        elif now - told_at > self.period * _SILENT:
            self._asked_until, self._untold = now + _PATIENCE, 1

    @property
    def look_at(self) -> float:
        """Monotonic seconds up to which nobody need look before something is taken."""
        return min(self._heard_until, self._back_at - MOMENT)

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Count what others took, as far as it is not counted yet; it is over with `hold`'s window.

        What the vendor has more than we think needs no correction: whatever it is, it is over within a period.
        """
        memory, others, epoch = self.memory, self._others, hold.epoch
        if report.refused:
            if isinstance(hold, Drawn):
                refused = memory.void(now, hold, self.place)
                if not memory.draws.undraw(epoch, refused):
                    hold.mark -= refused  # it was not counted when the vendor looked
            self._misled += hold.at >= self._early_at
        counted = part(hold.mark + memory.draws.drawn_by(epoch) + memory.others, self.place)
        missing = self.capacity - report.remaining - report.rounding - counted
        if missing > EPSILON:
            self._counted(now)
            memory.put(hold.at, now, self.place, missing)
            if epoch is not BEFORE_ALL:
                others.drew(now, missing, hold.at, self.period, report.rounding)
        if report.reset is not None and self._misled < _MISLED:
            self._all_back(hold, report.reset)
        others.told_at = max(others.told_at, hold.at)
        if hold.at >= self._asked_until - _PATIENCE:
            self._untold -= 1
            if not self._untold:
                self._asked_until = -math.inf
        self._heard_until = -math.inf if now < self._asked_until else others.told_at + self.period * _SILENT
        self._ample = self.capacity * (1 - _UNSURE) - others.most_kept_back

    def resize(self, now: float, capacity: float) -> None:  # noqa: ARG002 - a limit's signature
        """Go on with another capacity; what is counted stays counted."""
        self.capacity = capacity
        self._ample = capacity * (1 - _UNSURE) - self._others.most_kept_back

    def crowd(self) -> None:
        """Know that several processes draw, each of which hears a part of the answers."""
        self._others.crowded = True

    def free(self, now: float) -> float:
        """Return what fits beside what is counted, less what is kept back for others."""
        counted = self._counted(now)
        least = self.capacity * (1 - _UNSURE) if now < self._asked_until else self.capacity
        return least - counted - self._others.margin(now, self.period)

    def _all_back(self, hold: Hold, reset: float) -> None:
        """Know that what `hold` found there, and it, is there again `reset` seconds later.

        In which order requests of the same moment arrived nobody knows, so all of theirs must have told.
        """
        until = hold.at + reset + GUARD + (0.0 if reset % 1.0 else _WHOLE)
        if isinstance(hold, Drawn):
            said = hold.moment.said.setdefault(self, Said())
            said.told += 1
            said.back = max(said.back, until)
            if said.told == hold.moment.taken(self.place):
                self._leaves(hold.moment, said.back)
        for moment in reversed(self.memory.moments):
            if moment.at < hold.at - GUARD and not self._leaves(moment, until):
                return  # as all before it do

    def _leaves(self, moment: Moment, until: float) -> bool:
        """Have a moment leave by then; return False where it does anyhow."""
        if self._until(moment) <= until:
            return False
        said = moment.said.setdefault(self, Said())
        said.until, said.takes = until, moment.taken(self.place)
        self._back_at = min(self._back_at, until)
        return True

    def _until(self, moment: Moment) -> float:
        """Return when what is counted in a moment leaves this window."""
        if self.place in moment.gone:
            return -math.inf
        said, in_time = moment.said.get(self), moment.at + self.memory.span
        return in_time if said is None or said.takes != moment.taken(self.place) else min(said.until, in_time)

    def _oldest(self) -> Moment | None:
        """Return the first that is still there: nothing leaves before it."""
        memory, place = self.memory, self.place
        for number in range(memory.first(place), len(memory.moments)):
            moment = memory.moments[number]
            if place not in moment.gone and (moment.taken(place) or part(moment.together, place)):
                return moment
        return None

    def _due(self, now: float, excess: float) -> float:
        """Return seconds until time alone has made room for what is too much."""
        due, memory = now, self.memory
        for moment in islice(memory.moments, memory.first(self.place), None):
            if excess <= EPSILON:
                break
            amount = part(moment.together, self.place)
            if amount or moment.taken(self.place):
                excess -= amount
                due = max(due, self._until(moment))
        return due - now

    def _counted(self, now: float) -> float:
        """Return what is inside."""
        memory = self.memory
        memory.expire(now)
        if self._back_at - now <= MOMENT:
            self._back_at = math.inf
            while (oldest := self._oldest()) is not None:
                until = self._until(oldest)
                if until - now > MOMENT:
                    self._back_at = until
                    break
                memory.back(oldest, self.place)
                self._early_at = now
        return part(memory.together, self.place)
