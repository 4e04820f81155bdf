"""`algorithm: auto`: a bucket or a window, whichever the provider's own headers prove."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .base import Hold, Timed
from .bucket import TokenBucket
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Learning, Unit

Kind: TypeAlias = Literal["bucket", "window"]

_PLACES: Final[dict[Kind, int]] = {"bucket": 0, "window": 1}

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


class _Both(Hold):
    """A hold in the bucket and one in the window."""

    __slots__ = ("holds",)

    def __init__(self, of_bucket: Hold, of_window: Hold) -> None:
        super().__init__(of_bucket.at, of_bucket.amount)
        self.holds = (of_bucket, of_window)


class AutoLimit(Timed):
    """`capacity` per `period` seconds, counted both ways until one is proved; a `Limit`.

    Until then both hold, or with `bucket` the bucket alone: at the hosts that are known to have them.

    Attributes:
        kind: What was proved.
    """

    __slots__ = ("_alone", "_parts", "_ruling", "kind")

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
    ) -> None:
        """Start undecided."""
        super().__init__(name, unit, capacity, period, level=level, refuses=refuses)
        self.kind: Kind | None = None
        self._alone: Learning | None = None
        in_bucket = TokenBucket(name, unit, capacity, period)
        self._parts: tuple[Learning, ...] = (in_bucket, SlidingWindow(name, unit, capacity, period))
        self._ruling: tuple[Learning, ...] = (in_bucket,) if bucket else self._parts

    def decide(self, kind: Kind | None = None) -> None:
        """Go on as `kind` alone, from where that stands, and drop the other; None: as what holds until a proof."""
        if kind is None:
            kind = "window" if len(self._ruling) > 1 else "bucket"
        self._alone = self._parts[_PLACES[kind]]
        self._parts = self._ruling = (self._alone,)
        self.kind = kind

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until `amount` could be taken."""
        if self._alone is not None:
            return self._alone.wait(now, amount)
        return max([part.wait(now, amount) for part in self._ruling])

    def take(self, now: float, amount: float) -> Hold:
        """Take `amount`, from both while both are in question."""
        if self._alone is not None:
            return self._alone.take(now, amount)
        bucket, window = self._parts
        return _Both(bucket.take(now, amount), window.take(now, amount))

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Correct what is counted for `hold` to `used`."""
        if self._alone is not None and type(hold) is Hold:
            self._alone.settle(now, hold, used)
            return
        for part, held in self._held(hold):
            part.settle(now, held, used)

    def learn(self, now: float, hold: Hold, report: LimitReport) -> None:
        """Be told what was left right after the provider admitted (or refused) `hold`."""
        if self._alone is not None and type(hold) is Hold:
            self._alone.learn(now, hold, report)
            return
        for part, held in self._held(hold):
            part.learn(now, held, report)

    def resize(self, now: float, capacity: float) -> None:
        """Go on with another capacity; what is taken stays taken."""
        self.capacity = capacity
        for part in self._parts:
            part.resize(now, capacity)

    def saturation(self, now: float) -> float:
        """Return the share that is taken, of what counts."""
        return max([part.saturation(now) for part in self._ruling])

    def _held(self, hold: Hold) -> Iterable[tuple[Learning, Hold]]:
        if not isinstance(hold, _Both):
            return [(part, hold) for part in self._parts]
        if self.kind is None:
            return zip(self._parts, hold.holds, strict=True)
        return [(self._parts[0], hold.holds[_PLACES[self.kind]])]
