"""What signals order a serving process to do.

SIGTERM: end once what runs is answered. Ctrl-C: end now. Either again: end at once. SIGHUP: read the configuration
again. SIGUSR1: have clients leave, before SIGTERM comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)
_LAST: Final = 0.95
"""Seconds after the last moment of grace at which the process ends, whatever a thread still waits for."""


class Orders:
    """Hears signals; a context manager, for the main thread.

    Attributes:
        received: The signal that ends the process; None before it came.
    """

    def __init__(  # noqa: PLR0913 - what each signal calls
        self,
        stop: Callable[[float], None],
        reload: Callable[[], None],
        drain: Callable[[], float],
        *,
        leave: Callable[[], object] = lambda: None,
        alone: bool = True,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Hear nothing yet.

        Args:
            stop: Ends the work in the running loop, which gets so many seconds.
            reload: Reads the configuration again, in the loop.
            drain: Returns how many seconds SIGTERM leaves.
            leave: Has connections end with their next answer, in the loop.
            alone: Whether it is a person who sends signals. A worker hears the same one twice where a whole group is
                told to end, and its parent knows what a second one means.
            end: Ends the process at once, with a status.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._reload = reload
        self._drain = drain
        self._leave = leave
        self._alone = alone
        self._end = end
        self._before: dict[signal.Signals, object] = {}
        self.received: signal.Signals | None = None

    @property
    def status(self) -> int:
        """Exit status of the process."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self) -> Self:
        """Hear signals; one that is ignored (as by `nohup`) stays so."""
        others = {signal.SIGHUP: self._hear_reload, signal.SIGUSR1: self._hear_leave}
        for number, hear in {**dict.fromkeys(_ENDINGS, self._hear_ending), **others}.items():
            self._before[number] = before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                signal.signal(number, hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give them back; where one ended the work, the process is about to end, and hears no more of them."""
        for number, before in self._before.items():
            if self.received is None and (callable(before) or isinstance(before, signal.Handlers)):
                signal.signal(number, before)

    def end(self, number: signal.Signals) -> None:
        """Begin to end, as that signal orders; the first counts."""
        if self.received is not None:
            return
        self.received = number
        grace = self._drain() if number == signal.SIGTERM else 0.0
        last = threading.Timer(grace + _LAST, self._end, [self.status])
        last.daemon = True
        last.start()
        self._loop.call_soon_threadsafe(self._stop, grace)

    def _hear_ending(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.end(signal.Signals(number))
        elif self._alone:
            self._end(128 + number)

    def _hear_reload(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._loop.call_soon_threadsafe(self._reload)

    def _hear_leave(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._loop.call_soon_threadsafe(self._leave)
