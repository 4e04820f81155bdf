"""Waiting on a machine that does other things too: what must come has long, which costs nothing where it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 20.0
"""Seconds that anything may take that must come. What would come without it, too, is made to come later than that."""


async def until(holds: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return once something holds.

    Raises:
        TimeoutError: It does not in so many seconds.
    """
    clock = SystemClock()
    async with clock.timeout(seconds):
        while not holds():
            await clock.sleep(0.002)
