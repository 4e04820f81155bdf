"""From what was left when a request of ours was admitted, to what must be left now.

A report is old when it comes, so it is carried forward by what we know we drew since. What we cannot know is the order
in which requests that left within `GUARD` of each other arrived; so draws are counted by epochs of that length.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import GUARD, Epoch

if TYPE_CHECKING:
    from llm.core.call import LimitReport

_MILLISECOND = 0.001
_DATES = 1.5  # seconds that whole seconds, by another clock, may be off
_SPARE = 1.25
_SHARE = 12  # of a period: in less nobody is expected to be told
_REPORTS = 5
_SECONDS = 1.0
_CARE = 0.9


class Reckoning:
    """All that was drawn from a limit and came back, and what others turned out to draw.

    Attributes:
        drawn: All that was drawn.
        returned: All that came back.
        told_at: When the latest request was sent that a report told of.
        epoch: When the last draws were; draws go into it while it lasts.
        kept_back: What was kept back for others when some were last found; 0 where none ever were.
        crowded: Whether several processes draw, each of which hears a part of the answers: that this one hears nothing
            tells nothing then, so no more is kept back for it.
    """

    __slots__ = (
        "_found_at", "_horizon", "_last", "_recent",
        "crowded", "drawn", "epoch", "kept_back", "returned", "told_at",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start with nothing."""
        self.drawn: float = 0.0
        self.returned: float = 0.0
        self.told_at: float = -math.inf
        self.epoch: Epoch = Epoch(-math.inf, 0.0, 0.0)
        self._last = self.epoch
        self._recent = 0.0
        self._horizon = math.inf
        self.kept_back: float = 0.0
        self.crowded: bool = False
        self._found_at = -math.inf

    def undraw(self, epoch: Epoch, amount: float) -> bool:
        """Know that `amount` was refused, so that nothing was drawn; return False where that is known too late."""
        if epoch.until is not None:
            return False
        self.drawn -= amount
        current = self.epoch
        if epoch is not current:
            current.drawn -= amount
            if current.before != epoch.drawn:
                current.before -= amount
        return True

    def drawn_by(self, epoch: Epoch) -> float:
        """Return what was drawn until nothing could arrive before the end of `epoch` any more."""
        return self.drawn if epoch.until is None else epoch.until

    def drawn_after(self, epoch: Epoch) -> float:
        """Return what was drawn so late that it arrived after all of `epoch` for certain."""
        return 0.0 if epoch.until is None else self.drawn - epoch.until

    def drawn_around(self, epoch: Epoch) -> float:
        """Return all that was drawn since, with what may have been under way as `epoch` began."""
        return self.drawn - epoch.before

    def returned_after(self, epoch: Epoch) -> float:
        """Return what came back so late that no report about `epoch` can hold it."""
        return 0.0 if epoch.until is None else self.returned - epoch.returned

    def others_drew(self, now: float, amount: float, at: float, period: float, hidden: float) -> None:
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
        self._recent = amount * min(1.0, horizon / since) + self._recent * math.exp(-(now - self._found_at) / age)
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

    def begin(self, now: float) -> Epoch:
        """Begin another epoch; whoever draws asks for it once the last is older than `GUARD`."""
        last, current = self._last, self.epoch
        if last.until is None:
            last.until, last.returned = self.drawn, self.returned
        under_way = now - current.start <= 2 * GUARD
        if not under_way:
            current.until, current.returned = self.drawn, self.returned
        self._last = current
        self.epoch = Epoch(now, self.drawn, current.drawn if under_way else self.drawn)
        return self.epoch


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
