"""`algorithm: auto`: a bucket or a window, whichever the provider's own headers prove.

Until then a window holds where nothing is known: what fits in a window fits in a bucket of the same size, since a
bucket refills at least as fast as a window forgets. At the hosts that are known to have buckets a bucket holds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from .amounts import alone, only, part
from .base import GUARD, Hold, Timed
from .bucket import TokenBucket
from .moments import Drawn
from .window import SlidingWindow

if TYPE_CHECKING:
    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Unit
    from .moments import Moment
    from .told import ToldMemory

Kind: TypeAlias = Literal["bucket", "window"]

_WHOLE = 2.0  # seconds: resets and dates come in whole ones
_SHARE = 0.05
_AGREEING = 3


class Evidence:
    """What reports prove about how a provider counts.

    With `limit`, `remaining` and a period, a bucket is full again after `(limit - remaining) * period / limit`. A
    window is empty again when its time is over, however little of it is used. One report well beside the first proves
    a window; several that fit it, of so different use that no window fits them all, prove a bucket.
    """

    __slots__ = ("_fitting", "_longest", "_shortest")

    def __init__(self) -> None:
        """Know nothing."""
        self._fitting = 0
        self._shortest = math.inf
        self._longest = 0.0

    def see(self, report: LimitReport, period: float) -> Kind | None:
        """Take a report in, and return what is proved now."""
        reset, used = report.reset, report.limit - report.remaining
        if reset is None or used <= 0.0:
            return None
        each = period / report.limit
        least, most = (used - 1.0 - report.rounding) * each, (used + report.rounding) * each
        slack = _WHOLE + _SHARE * max(0.0, most)
        # An empty bucket may owe more than it holds, so nothing follows from its taking long.
        if reset < least - 2 * slack or (reset > most + 2 * slack and report.remaining > report.rounding):
            return "window"
        if least - slack <= reset <= most + slack:
            self._fitting += 1
            self._shortest = min(self._shortest, reset)
            self._longest = max(self._longest, reset)
        differ = self._longest - self._shortest > 2 * slack
        return "bucket" if differ and self._fitting >= _AGREEING else None


class _Waiting(Protocol):
    def __call__(self, now: float, amount: float, /) -> float: ...


class _Taking(Protocol):
    def __call__(self, now: float, amount: float, /) -> Hold: ...


class _Settling(Protocol):
    def __call__(self, now: float, hold: Hold, used: float, /) -> None: ...


class _Filling(Protocol):
    def __call__(self, now: float, /) -> float: ...


class AutoLimit(Timed):
    """`capacity` per `period` seconds, counted in a window or a bucket until one is proved; a `Limit`.

    Attributes:
        kind: What was proved.
        counted: What it is counted in meanwhile.
        wait: Returns seconds until an amount could be taken.
        take: Takes an amount.
        settle: Corrects what is counted for a hold to what was used.
        saturation: Returns the share that is taken.
        free: Returns how much could be taken.
    """

    __slots__ = ("_drawn", "_heirs", "_history", "counted", "free", "kind", "saturation", "settle", "take", "wait")

    def __init__(  # noqa: PLR0913 - a limit's six facts, and what is taken for granted
        self,
        name: str,
        unit: Unit,
        capacity: float,
        period: float,
        *,
        level: LimitScope = "key",
        refuses: bool = False,
        bucket: bool = False,
        memory: ToldMemory | None = None,
    ) -> None:
        """Start undecided; a window has `memory`, or where that is None one of its own."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self.kind: Kind | None = None
        self._heirs: dict[Hold, Hold] = {}
        self._drawn: dict[Moment, Hold] = {}
        self._history: deque[Hold] = deque()
        if bucket:
            self._count_in(TokenBucket(name, unit, capacity, period), remember=True)
        else:
            self._count_in(SlidingWindow(name, unit, capacity, period, memory=memory))

    def decide(self, kind: Kind | None = None) -> None:
        """Go on as `kind`, from where that would stand; None: as what holds until a proof."""
        counted = self.counted
        if kind == "bucket" and isinstance(counted, SlidingWindow):
            bucket = TokenBucket(self.name, self.unit, self.capacity, self.period)
            moments = [moment for moment in counted.memory.moments if self.place not in moment.gone]
            self._drawn = {moment: bucket.take(moment.at, part(moment.together, self.place)) for moment in moments}
            counted.memory.followed_by(self)
            counted = bucket
        elif kind == "window" and isinstance(counted, TokenBucket):
            window = SlidingWindow(self.name, self.unit, self.capacity, self.period)
            self._heirs = {hold: window.take(hold.at, hold.amount) for hold in self._history}
            counted = window
        self._count_in(counted, switched=counted is not self.counted)
        self._history.clear()
        self.kind = "bucket" if isinstance(counted, TokenBucket) else "window"

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Be told what was left right after the provider admitted (or refused) `hold`."""
        self.counted.learn(now, self._heir(hold), report)
        if report.refused and isinstance(hold, Drawn) and hold.moment in self._drawn:
            hold.amount -= only(hold.amount, self.place)
            hold.void = (*hold.void, self.place)

    def resize(self, now: float, capacity: float) -> None:
        """Go on with another capacity; what is taken stays taken."""
        self.capacity = capacity
        self.counted.resize(now, capacity)

    def follow(self, now: float, hold: Drawn, used: int) -> None:
        """Settle what was taken when it was counted in a window with others."""
        if hold.moment in self._drawn and self.place not in hold.void:
            self.counted.settle(now, self._heir(hold), part(used, self.place))

    def _count_in(
        self, counted: TokenBucket | SlidingWindow, *, remember: bool = False, switched: bool = False
    ) -> None:
        self.counted: TokenBucket | SlidingWindow = counted
        # Asked for every call, so without a step in between.
        self.wait: _Waiting = counted.wait
        # A bucket by itself forgets when it was drawn from.
        self.take: _Taking = self._take_and_remember if remember else counted.take
        self.saturation: _Filling = counted.saturation
        self.free: _Filling = counted.free
        self.settle: _Settling = self._settle_for if switched else counted.settle

    def _take_and_remember(self, now: float, amount: float) -> Hold:
        hold, history = self.counted.take(now, amount), self._history
        history.append(hold)
        while history[0].at < now - self.period - GUARD:
            history.popleft()
        return hold

    def _settle_for(self, now: float, hold: Hold, used: float) -> None:
        if isinstance(self.counted, TokenBucket) and isinstance(hold, Drawn):
            together = alone(self.place, used)
            self.follow(now, hold, together)
            hold.amount = together
        else:
            self.counted.settle(now, self._heirs.get(hold, hold), used)

    def _heir(self, hold: Hold) -> Hold:
        """Return what stands for `hold` in what is counted now; of what had left before, that it was sent."""
        if isinstance(self.counted, TokenBucket) is not isinstance(hold, Drawn):
            return hold
        if isinstance(hold, Drawn):
            drawn = self._drawn.get(hold.moment)
            if drawn is not None:
                return Hold(hold.at, part(hold.amount, self.place), drawn.number, drawn.mark, drawn.epoch)
        return self._heirs.get(hold) or Hold(hold.at, 0.0)
