"""How many retries a provider's calls may have together, so that an outage is not answered with twice the load.

Sources: https://finagle.github.io/blog/2016/02/08/retry-budgets (a share of the calls of ten seconds, beside so many a
second in any case), https://github.com/grpc/proposal/blob/master/A6-client-retries.md (throttling of retries, per
server, by what failed and what succeeded).
"""

from __future__ import annotations

import math
from typing import Any, Final

_WINDOW: Final = 10.0
"""Seconds in which a call or a retry comes to count for a third of what it did."""

_STEP: Final = 1.0
"""Seconds in which all count the same, so that a call costs an addition."""

_FLOOR: Final = 10.0
"""Retries a second that are always allowed, so that no small program is held back."""


class RetryBudget:
    """Retries of about the last ten seconds: at most a share of the calls, or a hundred if that is more.

    Attributes:
        share: Retries for each call.
        refused: How many retries there were not.
    """

    __slots__ = ("_at", "_calls", "_retries", "refused", "share")

    def __init__(self, share: float) -> None:
        """Allow retries for a `share` of the calls."""
        self.share: float = share
        self.refused: int = 0
        self._at = -math.inf
        self._calls = 0.0
        self._retries = 0.0

    def deposit(self, now: float) -> None:
        """Count a call, whatever comes of it."""
        if now - self._at >= _STEP:
            self._fade(now)
        self._calls += 1.0

    def withdraw(self, now: float) -> bool:
        """Take a retry; False where the budget is spent."""
        self._fade(now)
        if self._retries + 1.0 > self._most:
            self.refused += 1
            return False
        self._retries += 1.0
        return True

    def told(self) -> str:
        """Return in words why there was no retry."""
        return (
            f"about {self._retries:.0f} retries to {self._calls:.0f} calls in the last {_WINDOW:g} seconds are all "
            f"that retry.budget ({self.share:g}) allows"
        )

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return its state for a status: counts of about the last ten seconds, and `refused` of all time."""
        self._fade(now)
        return {
            "calls": round(self._calls, 1),
            "retries": round(self._retries, 1),
            "allowed": round(self._most, 1),
            "refused": self.refused,
        }

    @property
    def _most(self) -> float:
        return max(_FLOOR * _WINDOW, self.share * self._calls)

    def _fade(self, now: float) -> None:
        """Let what was before count less, the longer ago it was."""
        seconds = now - self._at
        if seconds < _STEP:
            return
        kept = math.exp(-seconds / _WINDOW)
        self._calls *= kept
        self._retries *= kept
        self._at = now
