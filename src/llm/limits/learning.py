"""Which limit of an account a report tells of, and what the account learns from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .auto import AutoLimit, Evidence
from .base import DAY, Hold
from .bucket import TokenBucket
from .moments import amount_of
from .stating import PERIODS
from .together import hold_of
from .told import ToldMemory
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm.core.call import Charge, LimitReport, ReportedUnit

    from .auto import Kind
    from .base import Holds, Learning, Limit

_LEARNING: Final = (AutoLimit, TokenBucket, SlidingWindow)
_FIELDS: Final[dict[ReportedUnit, str]] = {
    "requests": "requests",
    "total_tokens": "tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
}
_CLOSE: Final = 0.03
_REPORTS: Final = 8
_SECONDS: Final = 2.0


class _Subject:
    """A limit that reports tell of.

    Attributes:
        limit: The limit.
        most: What the configuration states, above which nothing is believed; infinite where it states nothing.
        longest: A reset of more seconds is not this limit's.
        told_at: Monotonic seconds of the last report of it.
    """

    __slots__ = ("_count", "_since", "limit", "longest", "most", "told_at")

    def __init__(self, limit: Learning, most: float) -> None:
        self.limit = limit
        self.most = most
        self.longest = 2 * limit.period
        self.told_at = -math.inf
        self._count = 0
        self._since = 0.0

    def resize(self, now: float, reported: float) -> bool:
        """Follow the provider's number: down at once, up after several reports in a row; return whether it did."""
        capacity = min(reported, self.most)
        if capacity == self.limit.capacity:
            self._count = 0
            return False
        if capacity > self.limit.capacity:
            self._since = self._since if self._count else now
            self._count += 1
            if self._count < _REPORTS or now - self._since < _SECONDS:
                return False
        self._count = 0
        self.limit.resize(now, capacity)
        return True


class Learner:
    """What one account learns.

    Attributes:
        learned: Limits that nobody stated, as the provider tells them.
    """

    def __init__(self, *, bucket: bool) -> None:
        """Know of no limit; `bucket` is what limits that are learned start as."""
        self.learned: tuple[Learning, ...] = ()
        self._bucket = bucket
        self._kind: Kind | None = None
        self._undecided = False
        self._evidence = Evidence()
        self._subjects: list[_Subject] = []
        self._known: dict[tuple[str, float], _Subject] = {}
        self._memories = {period: ToldMemory(period) for period in PERIODS.values()}

    def restate(self, stated: Iterable[Limit], numbers: Mapping[str, float]) -> None:
        """Go on with these stated limits, and what the configuration says they are; what was learned stays."""
        stating = [_Subject(limit, numbers[limit.name]) for limit in stated if isinstance(limit, _LEARNING)]
        names = {subject.limit.name for subject in stating}
        self.learned = tuple(limit for limit in self.learned if limit.name not in names)
        self._subjects = stating + [_Subject(limit, math.inf) for limit in self.learned]
        self._known.clear()
        self._apply()

    def learn(self, now: float, holds: Holds, reports: Sequence[LimitReport]) -> tuple[bool, bool]:
        """Level the limits with what the provider said as it admitted or refused a call that holds `holds`.

        Returns:
            Whether the limits changed otherwise than by their level; whether a report tells why the call was refused.
        """
        changed = explained = False
        for report in reports:
            subject = self._known.get((report.unit, report.limit))
            if subject is None or (report.reset is not None and report.reset > subject.longest):
                subject, new = self._subject(report)
                if subject is None:
                    continue
                changed |= new
            limit, subject.told_at = subject.limit, now
            if limit.capacity != report.limit and subject.resize(now, report.limit):
                changed = True
            if self._undecided and self._judge(report, limit.period):
                changed = True
            hold = hold_of(holds, limit)
            if hold is None:
                if limit not in self.learned:
                    continue
                hold = Hold(holds[0][1].at if holds else now, 0.0)  # sent before the limit was known
            if report.refused:  # what was refused took nothing, so that there will be nothing to settle
                explained |= report.remaining < max(1.0, amount_of(hold, limit.place))
                holds[:] = [entry for entry in holds if entry[0] is not limit]
            limit.learn(now, hold, report)
        return changed, explained

    def doubt(self, now: float, charge: Charge) -> bool:
        """Believe no longer what keeps `charge` out for ever, where it was not told again for a period.

        With nothing sent nothing is told, so a number that is too low would never be corrected. One call finds out.
        """
        doubtful = [
            subject
            for subject in self._subjects
            if getattr(charge, subject.limit.unit) > subject.limit.capacity < subject.most
            and now - subject.told_at >= subject.limit.period
        ]
        for subject in doubtful:
            if subject.most < math.inf:
                subject.limit.resize(now, subject.most)
            else:
                self._subjects.remove(subject)
                self.learned = tuple(limit for limit in self.learned if limit is not subject.limit)
                self._known.clear()
        return bool(doubtful)

    def _judge(self, report: LimitReport, period: float) -> bool:
        if period >= DAY:
            return False
        kind = self._evidence.see(report, period)
        if kind is None:
            return False
        self._kind = kind
        self._apply()
        return True

    def _apply(self) -> None:
        """Decide what is undecided as far as it is known how the provider counts."""
        undecided = [s.limit for s in self._subjects if isinstance(s.limit, AutoLimit) and s.limit.kind is None]
        self._undecided = bool(undecided) and self._kind is None
        for limit in undecided if self._kind is not None else ():
            limit.decide(self._kind)

    def _subject(self, report: LimitReport) -> tuple[_Subject | None, bool]:
        """Return the limit that a report tells of, and whether it is new; None where that cannot be told."""
        alike = [s for s in self._subjects if s.limit.unit == report.unit]
        same = [s for s in alike if s.most == report.limit and (report.reset or 0.0) <= s.longest]
        if len(same) != 1:
            period = _period(report)
            if period is None:
                return None, False
            same = [s for s in alike if s.limit.period == period] or [self._new(report, period)]
        self._known[report.unit, report.limit] = same[0]
        return same[0], same[0] not in alike

    def _new(self, report: LimitReport, period: float) -> _Subject:
        span = next(name for name, seconds in PERIODS.items() if seconds == period)
        name = f"{_FIELDS[report.unit]}_per_{span}"
        limit: Learning
        memory = self._memories[period]
        if period < DAY:
            limit = AutoLimit(name, report.unit, report.limit, period, bucket=self._bucket, memory=memory)
        elif self._bucket or self._kind == "bucket":  # nothing is proved of a day while it is counted
            limit = TokenBucket(name, report.unit, report.limit, period)
        else:
            limit = SlidingWindow(name, report.unit, report.limit, period, memory=memory)
        subject = _Subject(limit, math.inf)
        self._subjects.append(subject)
        self.learned += (limit,)
        self._apply()
        return subject


def _period(report: LimitReport) -> float | None:
    """Return the seconds that a report's limit is counted over.

    A bucket's can be told from its use and reset; it is never shorter than the reset of one that owes nothing.
    """
    used = report.limit - report.remaining
    if report.reset is None or used <= 0.0:
        return None
    refill = report.reset * report.limit / used
    for period in PERIODS.values():
        if abs(refill - period) <= _CLOSE * period:
            return period
    allowed = 1.1 if report.remaining > report.rounding else 2.0
    return next((period for period in PERIODS.values() if report.reset <= allowed * period), None)
