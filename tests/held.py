"""A server's time that stands still until a test lets it go on: what is to happen meanwhile need not be quick."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.patience import PATIENCE

from llm.testing import FakeClock
from llm.utils.clock import SystemClock


class HeldTime(FakeClock):
    """The time of a `MockUpstream` that serves in another thread: `MockUpstream(service=3, clock=held)`."""

    def __init__(self) -> None:
        """Stand still, now."""
        super().__init__(wall=SystemClock().wall())
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> float:
        """Return monotonic seconds, and remember who asks."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        return super().now()

    def go_on(self, seconds: float) -> None:
        """Let so many seconds pass at a server that was asked something."""
        assert self._loop is not None, "nobody has asked for the time"
        asyncio.run_coroutine_threadsafe(self.advance(seconds), self._loop).result(PATIENCE)
