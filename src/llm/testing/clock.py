"""A clock that a test moves: what waits on it takes no time."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from itertools import count
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_ROUNDS = 100_000  # of the loop, in a row, at one moment: only polling without a pause takes so many
_BLIND_ROUNDS = 100  # where the loop does not show what is ready (uvloop)


class FakeClock:
    """A `Clock` whose time moves only when it is told to, or with `auto` when nothing else is left to do.

    `await clock.advance(3600)` goes through the hour timer by timer, in order of time and first come first served
    among equals, and lets the loop run until nothing can go on by itself before the first timer and after each.

    What it sees is the event loop's queue of ready callbacks. It cannot see bytes on their way through a socket, nor
    what a thread is doing: a task that waits for those looks idle. So give it programs that do their input and output
    in the process, `MockUpstream.transport()` for one. One loop at a time, and one `auto` clock a loop.
    """

    def __init__(self, start: float = 0.0, *, auto: bool = False, wall: float = 1_767_225_600.0) -> None:
        """Start at `start` monotonic seconds, when it is `wall` seconds after 1970 (2026-01-01, UTC).

        With `auto` the clock moves by itself to the next timer whenever the loop has nothing else to do.
        """
        self._now = start
        self._wall = wall - start
        self._auto = auto
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = count()
        self._advancing = False
        self._driven: asyncio.AbstractEventLoop | None = None

    @property
    def timers(self) -> int:
        """How many timers wait: sleeps, timeouts and callbacks. 0 after a program that cleaned up."""
        return sum(not timer.dead() for _, _, timer in self._timers)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return self._wall + self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has moved on by so many seconds; zero lets others run once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, seconds: float | None) -> FakeTimeout:
        """Raise `TimeoutError` where the body takes longer; None never does."""
        return FakeTimeout(self, None if seconds is None else self._now + seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        """Call back on the running loop after so many seconds; at once, without a move of the clock, for zero."""
        timer = _Timer(asyncio.get_running_loop(), callback)
        if seconds <= 0:
            timer.fire()
        else:
            heapq.heappush(self._timers, (self._now + seconds, next(self._order), timer))
            self._drive_soon()
        return timer

    async def advance(self, seconds: float) -> None:
        """Move on by so many seconds, and return when all that can run has run.

        Raises:
            ValueError: `seconds` is below zero; time does not go back.
            RuntimeError: Another task is advancing this clock, or something runs on without ever waiting.
        """
        if seconds < 0:
            raise ValueError(f"advance by {seconds:g} seconds: expected zero or more, for time does not go back")
        if self._advancing:
            raise RuntimeError("this clock is being advanced by another task; advance it from one place")
        self._advancing = True
        try:
            await self._go_to(self._now + seconds)
        finally:
            self._advancing = False
            self._drive_soon()

    async def _go_to(self, until: float) -> None:
        await _settle()
        while (when := self._next()) is not None and when <= until:
            self._fire_next()
            await _settle()
        self._now = max(self._now, until)

    def _next(self) -> float | None:
        while self._timers and self._timers[0][2].dead():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _fire_next(self) -> None:
        when, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, when)
        timer.fire()

    def _drive_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._auto and not self._advancing and self._driven is not loop and self._timers:
            self._driven = loop
            loop.call_soon(self._drive, loop, 0)

    def _drive(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        # Runs once a round of the loop while somebody waits; alone in a round, nothing else was left to do.
        self._driven = None
        if self._advancing or self._next() is None:
            return
        idle = not _ready(loop) if _shows_ready(loop) else rounds >= _BLIND_ROUNDS
        if idle:
            self._fire_next()
        self._driven = loop
        loop.call_soon(self._drive, loop, 0 if idle else rounds + 1)


class FakeTimeout:
    """`asyncio.timeout` on a `FakeClock`: an `async with` block that ends by `TimeoutError`.

    A cancellation from outside that comes in the same moment goes through; it is never turned into the `TimeoutError`.
    """

    def __init__(self, clock: FakeClock, when: float | None) -> None:
        """End at `when`, in the clock's monotonic seconds; None for never."""
        self._clock = clock
        self._when = when
        self._task: asyncio.Task[Any] | None = None
        self._timer: _Timer | None = None
        self._cancelling = 0
        self._expired = False

    def when(self) -> float | None:
        """Return when it ends, in the clock's monotonic seconds."""
        return self._when

    def expired(self) -> bool:
        """Return whether it has ended the block."""
        return self._expired

    def reschedule(self, when: float | None) -> None:
        """End at `when` instead, in the clock's monotonic seconds; None for never."""
        self._when = when
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None and self._task is not None and not self._expired:
            self._timer = self._clock.call_later(when - self._clock.now(), self._expire)

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            RuntimeError: Outside a task, or entered before.
        """
        task = asyncio.current_task()
        if task is None or self._task is not None:
            raise RuntimeError("a timeout is entered once, and inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stop.

        Raises:
            TimeoutError: The block was ended by this timeout, and by nothing else.
        """
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or self._task is None:
            return
        only_ours = self._task.uncancel() <= self._cancelling
        if only_ours and isinstance(exc_val, asyncio.CancelledError):
            raise TimeoutError from exc_val

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


class _Timer:
    """A callback of the clock: called on the loop that asked for it, unless that is closed by then."""

    __slots__ = ("_callback", "_cancelled", "_context", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._callback = callback
        self._context = contextvars.copy_context()
        self._handle: asyncio.Handle | None = None
        self._cancelled = False

    def dead(self) -> bool:
        """Return whether nobody waits for it any more."""
        return self._cancelled or self._loop.is_closed()

    def cancel(self) -> None:
        """Make sure that it is not called."""
        self._cancelled = True
        if self._handle is not None:
            self._handle.cancel()

    def fire(self) -> None:
        """Have it called."""
        # On the loop, so that a callback's failure goes where the loop's own timers' failures go.
        self._handle = self._loop.call_soon(self._callback, context=self._context)


def _shows_ready(loop: asyncio.AbstractEventLoop) -> bool:
    return hasattr(loop, "_ready")


def _ready(loop: asyncio.AbstractEventLoop) -> int:
    return len(getattr(loop, "_ready", ()))


async def _settle() -> None:
    """Return when no callback is ready but the caller's own."""
    loop = asyncio.get_running_loop()
    shown = _shows_ready(loop)
    for _ in range(_ROUNDS if shown else _BLIND_ROUNDS):
        await asyncio.sleep(0)
        if shown and not _ready(loop):
            return
    if shown:
        raise RuntimeError("the loop does not come to rest: something runs on without waiting (a loop of sleep(0)?)")
