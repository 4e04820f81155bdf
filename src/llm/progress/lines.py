"""Progress without a terminal: a plain line every few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .words import line

if TYPE_CHECKING:
    from typing import TextIO

    from .tracker import Progress

_OFTEN: Final = 5.0  # seconds between lines
_SELDOM: Final = 30.0  # the same, of a run that takes long
_LONG: Final = 120.0  # seconds after which it does


class Lines:
    """Writes a line every 5 seconds, after 2 minutes every 30, and one at the end."""

    every: float = 0.5

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._due: float | None = None

    def begin(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - nothing to say yet
        """Start the time."""
        self._due = now + _OFTEN

    def paint(self, progress: Progress, now: float) -> None:
        """Write a line where one is due."""
        if self._due is not None and now >= self._due:
            self._due = now + (_SELDOM if progress.elapsed >= _LONG else _OFTEN)
            self._write(line(progress))

    def end(self, progress: Progress) -> None:
        """Write the last line."""
        self._write(line(progress, ended=True))

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")  # at once, so that lines of others stay whole beside it
        self._stream.flush()
