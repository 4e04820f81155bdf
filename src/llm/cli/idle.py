"""Whether the keys of a batch stayed mostly idle since no more calls were let go at once."""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import TYPE_CHECKING, Final, Self

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from types import TracebackType

    from llm.progress import ProgressTracker
    from llm.utils.clock import Clock

_EVERY: Final = 1.0  # seconds
_ENOUGH: Final = 10  # looks, before anything is said of a run
_MOSTLY: Final = 0.5
_WELL_USED: Final = 0.9


class Idle:
    """Looks on from time to time while a batch runs: an async context manager."""

    def __init__(self, tracker: ProgressTracker, concurrency: int, *, clock: Clock | None = None) -> None:
        """Take whom to ask, and how many calls are let go at once."""
        self._tracker = tracker
        self._concurrency = concurrency
        self._clock = clock or SystemClock()
        self._used: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Note how full the keys are, where as many calls run as may."""
        progress = self._tracker.snapshot()
        if progress.saturation and progress.in_flight >= self._concurrency:
            self._used.append(fmean(progress.saturation.values()))

    def said(self) -> str | None:
        """Return what to say, once it has ended; None where there is nothing."""
        if len(self._used) < _ENOUGH or (used := fmean(self._used)) >= _MOSTLY:
            return None
        more = round(self._concurrency * _WELL_USED / max(used, 0.01))
        return (
            f"the keys were used to {used:.0%} of their limits, since no more than {self._concurrency:,} calls went at "
            f"once; --concurrency {more:,} may be faster"
        )

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(_EVERY)
            self.look()
