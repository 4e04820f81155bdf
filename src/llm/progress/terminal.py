"""Progress on a terminal: one display that stays at the bottom while other lines scroll by above it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .words import busiest, facts, percent, rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from rich.console import RenderableType

    from .tracker import Progress

_WIDEST: Final = 60  # columns of the bar
_NARROWEST: Final = 10
_KEYS: Final = 6  # that are shown, each a line
_OTHERS: Final = 9  # lines that are not of keys
_LABEL: Final = "dim"
_FULL: Final = "cyan"
_BACK: Final = "bright_black"
_STYLES: Final = {"failed": "red", "waiting": "bold magenta"}  # legible on light and on dark


class Terminal:
    """Draws with `rich`, four times a second."""

    every: float = 0.25

    def __init__(self, stream: TextIO) -> None:
        """Draw on `stream`, which is a terminal."""
        self._console = Console(file=stream, force_jupyter=False, highlight=False, soft_wrap=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file is data, and stays there
            redirect_stderr=sys.stderr.isatty(),
        )
        self._moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def begin(self, progress: Progress, now: float) -> None:
        """Take the bottom of the terminal."""
        before = (sys.stdout, sys.stderr)
        self._live.start()
        self._moved = moved_to(dict(zip(before, (sys.stdout, sys.stderr), strict=True)))
        self.paint(progress, now)

    def paint(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - a terminal shows every state
        """Draw the state."""
        self._live.update(drawn(progress, self._console), refresh=True)

    def end(self, progress: Progress) -> None:
        """Leave the last state there, and give the terminal back with its cursor."""
        try:
            self._live.update(drawn(progress, self._console, ended=True))
        finally:
            for handler, stream in self._moved:
                handler.setStream(stream)
            sys.stdout.flush()  # a line that is not whole yet is still with `rich`
            sys.stderr.flush()
            self._live.stop()


def drawn(progress: Progress, console: Console, *, ended: bool = False) -> RenderableType:
    """Return what is shown, as wide as the console at most; once `ended` without what only matters before."""
    label = Text(rows(progress), style="bold", no_wrap=True)
    room = min(_WIDEST, console.width - label.cell_len - 3)
    head = Table.grid(padding=(0, 2))
    if room >= _NARROWEST and (progress.total is not None or not ended):
        head.add_row(_bar(progress, room), label)
    else:
        head.add_row(label)
    body = Table.grid(padding=(0, 2))
    for each in facts(progress, ended=ended):
        body.add_row(Text(each.label, style=_LABEL), Text(each.text, style=_STYLES.get(each.label, "")))
    most = max(0, min(_KEYS, console.height - _OTHERS))
    if progress.saturation and most and not ended:
        body.add_row(Text("keys", style=_LABEL), _keys(progress, most, console.width))
    return Group(head, body)


def _bar(progress: Progress, width: int) -> ProgressBar:
    if progress.share is None:  # nobody has counted: it moves, and tells no part
        return ProgressBar(total=None, width=width, animation_time=progress.elapsed, style=_BACK, pulse_style=_FULL)
    return _filled(progress.share, width, finished="green")


def _filled(share: float, width: int, *, finished: str = _FULL) -> ProgressBar:
    return ProgressBar(1.0, share, width=width, style=_BACK, complete_style=_FULL, finished_style=finished)


def _keys(progress: Progress, most: int, width: int) -> RenderableType:
    keys, more = busiest(progress.saturation, most)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, min(32, width // 3)))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for key in keys:
        bar = _filled(key.saturation, min(20, width // 4))
        table.add_row(Text(key.name), bar, Text(percent(key.saturation)))
    return Group(table, Text(f"and {more:,} more", style=_LABEL)) if more else table


def moved_to(instead: Mapping[TextIO, TextIO]) -> list[tuple[logging.StreamHandler[TextIO], TextIO]]:
    """Have the handlers of logs that hold a stream write to the other, so above the display; return what they held."""
    moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
    for name in ("", "llm"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                writer = cast("logging.StreamHandler[TextIO]", handler)
                if writer.stream in instead:
                    moved.append((writer, writer.stream))
                    writer.setStream(instead[writer.stream])
    return moved
