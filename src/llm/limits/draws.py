"""What was drawn from a limit, by when it may have arrived.

In which order requests that left within `GUARD` of each other arrived nobody knows; so draws are counted by epochs of
that length.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import GUARD, Epoch

if TYPE_CHECKING:
    from .base import Amount


class Draws:
    """All that was drawn, in one unit or in all of them together, and all that came back.

    Attributes:
        drawn: All that was drawn.
        returned: All that came back.
        epoch: When the last draws were; draws go into it while it lasts.
    """

    __slots__ = ("_last", "drawn", "epoch", "returned")

    def __init__(self) -> None:
        """Start with nothing."""
        self.drawn: Amount = 0
        self.returned: Amount = 0
        self.epoch: Epoch = Epoch(-math.inf, 0, 0)
        self._last = self.epoch

    def undraw(self, epoch: Epoch, amount: Amount) -> bool:
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

    def drawn_by(self, epoch: Epoch) -> Amount:
        """Return what was drawn until nothing could arrive before the end of `epoch` any more."""
        return self.drawn if epoch.until is None else epoch.until

    def drawn_after(self, epoch: Epoch) -> Amount:
        """Return what was drawn so late that it arrived after all of `epoch` for certain."""
        return 0 if epoch.until is None else self.drawn - epoch.until

    def drawn_around(self, epoch: Epoch) -> Amount:
        """Return all that was drawn since, with what may have been under way as `epoch` began."""
        return self.drawn - epoch.before

    def returned_after(self, epoch: Epoch) -> Amount:
        """Return what came back so late that no report about `epoch` can hold it."""
        return 0 if epoch.until is None else self.returned - epoch.returned

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
