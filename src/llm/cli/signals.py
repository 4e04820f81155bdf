"""The first Ctrl-C or SIGTERM ends a command in good order, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, Self

from .errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_STATUS: Final = {signal.SIGINT: ExitStatus.INTERRUPTED, signal.SIGTERM: ExitStatus.TERMINATED}
_PATIENCE: Final = 0.3  # seconds that are left to the process once its work is in order


class Signals:
    """Cancels the current task at the first signal; a context manager, for the main thread.

    Attributes:
        received: The signal that came.
    """

    def __init__(self, *, end: Callable[[int], object] = os._exit) -> None:
        """Take the task; `end` ends the process at once, with a status."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._end = end
        self.received: signal.Signals | None = None

    @property
    def status(self) -> ExitStatus:
        """Exit status of a command that the signal ended."""
        return ExitStatus.DONE if self.received is None else _STATUS[self.received]

    def __enter__(self) -> Self:
        """Hear signals; one that is ignored (as by `nohup`) stays so."""
        self._before = {number: signal.getsignal(number) for number in _STATUS}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give them back; after a signal the process ends soon, whatever a thread still waits for."""
        if self.received is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            return
        last = threading.Timer(_PATIENCE, self._end, [self.status])
        last.daemon = True
        last.start()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            self._end(_STATUS[signal.Signals(number)])
            return
        self.received = signal.Signals(number)
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
