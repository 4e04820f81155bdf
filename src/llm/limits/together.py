"""What pays for limits: windows with one memory in one step, all others by themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from .amounts import EXCEEDED, TOGETHER, part, summed
from .auto import AutoLimit
from .own_window import OwnWindow
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm.core.exceptions import LimitScope

    from .base import Hold, Holds, Limit, Payer
    from .moments import Drawn, Memory


class _Taking(Protocol):
    def __call__(self, now: float, amount: int, /) -> Drawn: ...


class _Settling(Protocol):
    def __call__(self, now: float, hold: Drawn, used: int, /) -> None: ...


class Together:
    """Windows with one memory, which all units of a charge are taken from in one step; a `Payer`.

    Attributes:
        limits: The windows, or what is counted in them.
        memory: Theirs.
        level: Whose limits they are.
        take: Takes amounts of all units.
        settle: Counts what was used in place of what was taken.
    """

    __slots__ = (
        "_ample", "_look_at", "_told", "_windows", "level", "limits", "memory", "place", "settle", "take", "timed",
    )  # fmt: skip

    def __init__(self, limits: Sequence[Limit], windows: Sequence[OwnWindow]) -> None:
        """Take limits of one account, and the windows with one memory that they are counted in, one at least."""
        self.limits: tuple[Limit, ...] = tuple(limits)
        self.memory: Memory = windows[0].memory
        self.level: LimitScope = limits[0].level
        self.place: int = TOGETHER
        self.timed: bool = True
        self._windows = tuple(windows)
        self._told = [window for window in windows if isinstance(window, SlidingWindow)]
        # Asked for every call, so without a step in between.
        self.take: _Taking = self._look_and_take if self._told else self.memory.take
        self.settle: _Settling = self.memory.settle
        self.level_up()

    def level_up(self) -> None:
        """Follow the windows, which were told what is left."""
        ample = [math.inf] * TOGETHER
        for window in self._windows:
            ample[window.place] = min(ample[window.place], window.ample)
        self._ample = summed(ample)
        self._look_at = min([window.look_at for window in self._told], default=math.inf)

    def wait(self, now: float, amount: int) -> float:
        """Return seconds until so much of all units fits all of them."""
        if not (self._ample - self.memory.together - amount) & EXCEEDED:
            return 0.0
        return max([limit.wait(now, part(amount, limit.place)) for limit in self.limits])

    def counts(self, limit: Limit) -> bool:
        """Return whether what is taken here is counted for a limit, which may have come later."""
        counted = _counted(limit)
        return limit in self.limits or (isinstance(counted, OwnWindow) and counted.memory is self.memory)

    def _look_and_take(self, now: float, amount: int) -> Drawn:
        if now >= self._look_at:
            for window in self._told:
                window.look(now)
            self._look_at = min([window.look_at for window in self._told])
        return self.memory.take(now, amount)


def payers(limits: Iterable[Limit]) -> tuple[Payer, ...]:
    """Return what a charge is taken from, so that all of `limits` count it: windows of one memory as one."""
    together: dict[Memory, list[tuple[Limit, OwnWindow]]] = {}
    others: list[Payer] = []
    for limit in limits:
        counted = _counted(limit)
        if isinstance(counted, OwnWindow):
            together.setdefault(counted.memory, []).append((limit, counted))
        else:
            others.append(limit)
    return (*[Together(*zip(*pairs, strict=True)) for pairs in together.values()], *others)


def limits_of(holds: Holds) -> list[Limit]:
    """Return the limits that were taken from."""
    limits: list[Limit] = []
    for payer, _ in holds:
        limits += payer.limits if isinstance(payer, Together) else (payer,)
    return limits


def hold_of(holds: Holds, limit: Limit) -> Hold | None:
    """Return what was taken from a limit; None where nothing was."""
    for payer, hold in holds:
        if payer is limit or (isinstance(payer, Together) and payer.counts(limit)):
            return hold
    return None


def _counted(limit: Limit) -> object:
    return limit.counted if isinstance(limit, AutoLimit) else limit
