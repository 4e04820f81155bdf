"""Whatever looks on is shown the progress in its own way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

from llm.utils.clock import Clock, SystemClock

from .lines import Lines
from .notebook import Notebook, in_notebook

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TextIO

    from .tracker import Progress, ProgressTracker

_LOG: Final = logging.getLogger("llm.progress")


class Painter(Protocol):
    """One way to show progress. `every`: seconds between two looks at it."""

    every: float

    def begin(self, progress: Progress, now: float) -> None: ...  # noqa: D102 - called once

    def paint(self, progress: Progress, now: float) -> None: ...  # noqa: D102 - called again and again

    def end(self, progress: Progress) -> None: ...  # noqa: D102 - called once


def show(
    tracker: ProgressTracker, *, quiet: bool = False, stream: TextIO | None = None, clock: Clock | None = None
) -> Show:
    """Show a run's progress until the context is left, which `with` and `async with` both take.

    A notebook shows it in the cell, a terminal in a display that stays at the bottom, anything else gets a plain line
    every few seconds. `NO_COLOR` and `TERM=dumb` are heeded.

    Args:
        tracker: Whose progress.
        quiet: Show nothing.
        stream: Where to; None for stderr, or the notebook's cell.
        clock: What the time between two lines is taken from.
    """
    return Show(tracker, None if quiet else partial(_painter, stream), clock or SystemClock())


def _painter(stream: TextIO | None) -> Painter:
    if stream is None and in_notebook():
        return Notebook()
    out: TextIO = stream or sys.stderr
    if out.isatty() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}:
        from .terminal import Terminal

        return Terminal(out)
    return Lines(out)


class Show:
    """Draws in a thread of its own, so that a terminal that is held up holds up no row."""

    def __init__(self, tracker: ProgressTracker, painter: Callable[[], Painter] | None, clock: Clock) -> None:
        """Let what `painter` returns draw; without it nothing is drawn."""
        self._tracker = tracker
        self._painter = painter
        self._clock = clock
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._painter is not None:
            # In this context a notebook finds the cell that runs.
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._draw, self._painter), name="llm-progress")
            self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Draw the last state, and give a terminal back as it was."""
        self._left.set()
        if self._thread is not None:
            self._thread.join()

    async def __aenter__(self) -> Self:
        """Begin to draw."""
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Draw the last state, and give a terminal back as it was."""
        self._left.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _draw(self, painting: Callable[[], Painter]) -> None:
        try:
            painter = painting()  # here, since `rich` takes its time to load
            try:
                painter.begin(self._tracker.snapshot(), self._clock.now())
                self._repeat(painter)
            finally:
                painter.end(self._tracker.snapshot())
        except Exception as error:  # noqa: BLE001 - a terminal that went away takes no run with it
            _LOG.warning("the progress is not shown any more, and the run goes on: %s", error)

    def _repeat(self, painter: Painter) -> None:
        # A program that ends without leaving the context waits for its threads, so this one looks whether it does.
        while not self._left.wait(painter.every) and threading.main_thread().is_alive():
            painter.paint(self._tracker.snapshot(), self._clock.now())
