"""A pace that is learned from refusals, where the provider says neither what its limits are nor what is left of them.

Down at once, up slowly, and after a rest not all together: one call goes first, and each that succeeds lets two more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .base import MOMENT, PLACES, Hold

if TYPE_CHECKING:
    from llm.core.exceptions import LimitScope

    from .base import Unit

_MINUTE: Final = 60.0
_FACTOR: Final = 0.9  # of what was admitted of late
_STEP: Final = 0.1 / _MINUTE  # requests a second that a success adds, which makes a tenth in a minute
_MEMORY: Final = 300.0  # seconds in which a second refusal shows that there is a limit, and not just a bad moment
_PATIENCE: Final = 1.0  # seconds until one more goes though no answer came: some take minutes, and some never come


class Count:
    """How often something happened in the last minute, about: what is older counts as far as it is still inside."""

    __slots__ = ("_before", "_now", "_since")

    def __init__(self) -> None:
        """Start at nothing."""
        self._since = -math.inf
        self._now = 0
        self._before = 0

    def add(self, now: float) -> None:
        """Count one more."""
        if now - self._since >= _MINUTE:
            self._turn(now)
        self._now += 1

    def last_minute(self, now: float) -> float:
        """Return how many there were."""
        if now - self._since >= _MINUTE:
            self._turn(now)
        return self._now + self._before * (1.0 - (now - self._since) / _MINUTE)

    def _turn(self, now: float) -> None:
        self._before = self._now if now - self._since < 2 * _MINUTE else 0
        self._now = 0
        self._since = now


class Pace:
    """So many requests a minute as were admitted of late, and a ramp after every rest; a `Limit`."""

    __slots__ = (
        "_bound_at", "_cut_at", "_free", "_next", "_rate", "_sent_at",
        "capacity", "level", "name", "place", "refuses", "timed", "unit",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start with one call; without a rate, since one refusal shows none."""
        self.name: str = "learned_pace"
        self.unit: Unit = "requests"
        self.place: int = PLACES["requests"]
        self.capacity: float = math.inf
        self.level: LimitScope = "key"
        self.refuses: bool = False
        self.timed: bool = True
        self._rate = math.inf
        self._free = 0
        self._next = self._sent_at = self._cut_at = self._bound_at = -math.inf

    def refused(self, now: float, admitted: float, seconds: float | None = None) -> None:
        """Slow down.

        `admitted` is how many requests were served in the last minute; `seconds` is what the provider asked to wait,
        if it did: at least one request in so long it will take.
        """
        if now - self._cut_at < _MEMORY:
            self._rate = _FACTOR * max(admitted, 1.0) / _MINUTE
            if seconds is not None:
                self._rate = max(self._rate, 1.0 / max(seconds, MOMENT))
        self._cut_at = self._bound_at = now
        self._free = 1

    def succeeded(self, now: float) -> None:
        """Let two more go, and all of them a little faster: the longer nothing was refused, the more."""
        self._free += 2
        self._rate += _STEP * 2.0 ** min((now - self._cut_at) / _MINUTE, 32.0)

    def binds(self, now: float) -> bool:
        """Return whether it made anybody wait of late."""
        return now - self._bound_at < _MINUTE

    def wait(self, now: float, amount: float) -> float:  # noqa: ARG002 - a limit's signature
        """Return seconds until the next call's turn."""
        due = self._due()
        if due - now <= MOMENT:
            return 0.0
        self._bound_at = now
        return due - now

    def take(self, now: float, amount: float) -> Hold:
        """Take a turn."""
        self._free = max(0, self._free - 1)
        self._sent_at = now
        self._next = max(now, self._next) + 1.0 / self._rate
        return Hold(now, amount)

    def settle(self, now: float, hold: Hold, used: float) -> None:
        """Do nothing: a turn is over once it is taken."""

    def saturation(self, now: float) -> float:
        """Return 1 while the next call must wait."""
        return float(self._due() - now > MOMENT)

    def free(self, now: float) -> float:
        """Return 1 for the next call's turn, else 0."""
        return float(self.wait(now, 1.0) == 0.0)

    def _due(self) -> float:
        return self._next if self._free > 0 else max(self._next, self._sent_at + _PATIENCE)
