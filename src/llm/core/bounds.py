"""Scopes that can be ended from outside, and scopes of limited time that share a timer.

They follow the rules of `asyncio.timeout` on cancellation, at a third of its cost: every call passes two.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from llm.utils.clock import Clock, Timer


class Scope:
    """A `with` block that `end` ends: what it waits for is cancelled, and leaving it raises `TimeoutError`.

    Attributes:
        bound: What ends it in time; None where nothing does.
        reason: Why it was ended; None where nobody told.
        ended: Whether it was ended.
    """

    __slots__ = ("_cancelling", "_task", "bound", "ended", "reason")

    def __init__(self, bound: Bound | None = None) -> None:
        """Begin nothing yet."""
        self.bound: Bound | None = bound
        self.reason: BaseException | None = None
        self.ended: bool = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            RuntimeError: Outside a task.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is made inside a task; run it by asyncio.run(), or await it in one")
        self._task = task
        self._cancelling = task.cancelling()
        if self.bound is not None:
            self.bound.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave.

        Raises:
            TimeoutError: It was ended, and nobody else cancelled the task.
        """
        if self.bound is not None:
            self.bound.leave(self)
        task, self._task = self._task, None
        if self.ended and task is not None:
            only_ours = task.uncancel() <= self._cancelling
            if only_ours and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

    @property
    def runs(self) -> bool:
        """Whether it was entered and not left."""
        return self._task is not None

    def pull(self, reason: BaseException) -> None:
        """End it for a reason, where it runs; the first reason counts."""
        if self.reason is None and self.runs:
            self.reason = reason
            self.end()

    def end(self) -> None:
        """End it, where it runs and was not ended yet."""
        if self._task is not None and not self.ended:
            self.ended = True
            self._task.cancel()


class Bound:
    """Gives scopes that last so many seconds at most.

    The first to begin is the first to end, so one timer is enough for all that run at the same time.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        """Give scopes of `seconds`."""
        self.seconds: float = seconds
        self._clock = clock
        self._ends: dict[Scope, float] = {}
        self._timer: Timer | None = None

    def scope(self) -> Scope:
        """Return a scope whose time begins as it is entered."""
        return Scope(self)

    def begin(self, scope: Scope) -> None:
        """Let the time of a scope begin, which was entered."""
        self._ends[scope] = self._clock.now() + self.seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self.seconds, self._time_has_come)

    def leave(self, scope: Scope) -> None:
        """Forget a scope, which was left."""
        self._ends.pop(scope, None)
        if not self._ends and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_has_come(self) -> None:
        self._timer = None
        now = self._clock.now()
        for scope, end in list(self._ends.items()):
            if end > now:
                self._timer = self._clock.call_later(end - now, self._time_has_come)
                return
            del self._ends[scope]
            scope.end()
