"""A wait that somebody else can break off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.utils.clock import Clock


class Pause:
    """One wait at a time on a clock, for a source whose `close` must wake its reader."""

    def __init__(self, clock: Clock) -> None:
        """Wait on `clock`."""
        self._clock = clock
        self._waiting: asyncio.Future[None] | None = None

    async def wait(self, seconds: float | None) -> None:
        """Return after so many seconds; None never does.

        Raises:
            Exception: The one that `break_off` was called with meanwhile.
        """
        if seconds is not None and seconds <= 0:
            return
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        timer = None
        if seconds is not None:
            timer = self._clock.call_later(seconds, lambda: None if waiting.done() else waiting.set_result(None))
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def break_off(self, error: Exception) -> None:
        """Have the wait that is under way, if one is, raise `error`."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
