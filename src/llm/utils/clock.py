"""The one door to time: everything that waits takes a `Clock`, everything that decides takes `now`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Make sure that it is not called; free when it was called already."""


class Timeout(Protocol):
    """A scope of limited time, as `asyncio.timeout` makes it."""

    async def __aenter__(self) -> object:
        """Start the time."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None, /
    ) -> bool | None:
        """Turn the cancellation that the time's end caused into `TimeoutError`; let any other through."""

    def reschedule(self, when: float | None) -> None:
        """Move the end to `when`, in the clock's monotonic seconds; None takes it away."""


class Clock(Protocol):
    """What the package knows of time. Seconds throughout."""

    def now(self) -> float:
        """Return monotonic seconds, from an arbitrary start."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970 (UTC), for what leaves the process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; zero lets others run once."""

    def timeout(self, seconds: float | None) -> Timeout:
        """Return a scope that raises `TimeoutError` where its body takes longer; None never does."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back on the running loop after so many seconds."""
        ...


class SystemClock:
    """The machine's time and the running event loop's timers."""

    now = staticmethod(time.monotonic)  # a call asks twenty times, so without a step in between
    """Returns monotonic seconds, from an arbitrary start."""

    def wall(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; zero lets others run once."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> Timeout:
        """Return a scope that raises `TimeoutError` where its body takes longer; None never does."""
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back on the running loop after so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback)
