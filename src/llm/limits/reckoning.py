"""From what was left when a request of ours was admitted, to what must be left now.

A report is old when it comes, so it is carried forward by what we know we drew since (`draws`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import GUARD

if TYPE_CHECKING:
    from llm.core.call import LimitReport

_MILLISECOND = 0.001
_DATES = 1.5  # seconds that whole seconds, by another clock, may be off
_SPARE = 1.25
_SHARE = 12  # of a period: in less nobody is expected to be told
_REPORTS = 5
_SECONDS = 1.0
_CARE = 0.9


class Others:
    """What others turned out to draw, and what is kept back for them.

    Attributes:
        told_at: When the latest request was sent that a report told of.
        kept_back: What was kept back for others when some were last found; 0 where none ever were.
        crowded: Whether several processes draw, each of which hears a part of the answers: that this one hears nothing
            tells nothing then, so no more is kept back for it.
    """

    __slots__ = ("_found_at", "_horizon", "_recent", "crowded", "kept_back", "told_at")

    def __init__(self) -> None:
        """Know of none."""
        self.told_at: float = -math.inf
        self.kept_back: float = 0.0
        self.crowded: bool = False
        self._recent = 0.0
        self._horizon = math.inf
        self._found_at = -math.inf

    def drew(self, now: float, amount: float, at: float, period: float, hidden: float) -> None:
        """Know that somebody else drew `amount`, as a report about a request sent at `at` tells.

        `hidden` is what may be drawn unseen, since the vendor rounds what it tells; as much is kept back at least.

        As much may have been drawn again before the next report comes, and it comes in lumps. So a little more than
        that is kept back: what others draw in the time that reports take, or in a twelfth of the period. Once nothing
        is found for half a period it halves with every further one.
        """
        age = max(GUARD, now - at)
        since = min(period, max(GUARD, at - self.told_at))
        horizon = max(2 * age, period / _SHARE)
        kept_back = self.kept_back * self._fading(now, period)
        self._recent = amount * min(1.0, horizon / since) + self._recent * math.exp(
            -max(0.0, now - self._found_at) / age
        )
        self._found_at = now
        self._horizon = horizon
        self.kept_back = max(kept_back, _SPARE * self._recent, hidden)

    def margin(self, now: float, period: float) -> float:
        """Return what is to be kept back for others: the more, the longer nothing was told."""
        if self.kept_back == 0.0:
            return 0.0
        silence = 0.0 if self.crowded else min(period, now - self.told_at)
        return self.kept_back * self._fading(now, period) * max(1.0, silence / self._horizon)

    @property
    def most_kept_back(self) -> float:
        """What is never less than the margin, however long nothing is told."""
        return _SHARE * self.kept_back

    def _fading(self, now: float, period: float) -> float:
        quiet = (now - self._found_at) / period - 0.5
        return 0.5**quiet if quiet > 0.0 else 1.0


class Rise:
    """How much more the vendor has than we think, if all of several reports in a row say so over some seconds."""

    __slots__ = ("_count", "_least", "_since")

    def __init__(self) -> None:
        """Begin."""
        self.end()

    def end(self) -> None:
        """Start again."""
        self._count = 0
        self._least = math.inf
        self._since = 0.0

    def seen(self, now: float, surplus: float) -> float:
        """Note what a report has over; return what to give back now, most of the least of them."""
        if surplus <= 0.0:
            if self._count:
                self.end()
            return 0.0
        if not self._count:
            self._since = now
        self._count += 1
        self._least = min(self._least, surplus)
        if self._count < _REPORTS or now - self._since < _SECONDS:
            return 0.0
        back = _CARE * self._least
        self.end()
        return back


def told_level(report: LimitReport, period: float) -> tuple[float, float]:
    """Return the least and the most that a bucket may have held when the report was made.

    What is left comes in whole numbers, rounded down, and never below nothing. How long the bucket takes to be full
    tells more, as far as the two agree: to the fraction, where it comes in fractions of a second itself.
    """
    left, reset = report.remaining, report.reset
    least = left - report.rounding
    # That it did not suffice shows that the better half of the doubt was wrong.
    most = left if report.refused else left + report.rounding + 1.0
    if reset is not None:
        each = report.limit / period
        sooner, later = (0.0, _MILLISECOND) if reset % 1.0 else (_DATES, _DATES)
        low, high = report.limit - (reset + sooner) * each, report.limit - (reset - later) * each
        if low <= most and (high >= least or left <= 0.0):
            return min(max(low, least), high), min(high, most)
    return least, most
