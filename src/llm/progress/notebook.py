"""Progress in a notebook: one output of the cell, that is replaced."""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .words import busiest, facts, line, percent, rows

if TYPE_CHECKING:
    from .tracker import Progress

_KEYS: Final = 10


def in_notebook() -> bool:
    """Tell whether a notebook's kernel runs this process. Where IPython is not loaded it does not."""
    found: Any = sys.modules.get("IPython")
    shell: Any = getattr(found, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """Shows plain HTML by the notebook's own display, and text where HTML is not shown; twice a second."""

    every: float = 0.5

    def __init__(self) -> None:
        """Take IPython's display, which is loaded in a notebook."""
        self._display: Any = import_module("IPython.display").display
        self._handle: Any = None

    def begin(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - a notebook shows every state
        """Add the output to the cell."""
        self._handle = self._display(_bundle(progress), raw=True, display_id=True)

    def paint(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - a notebook shows every state
        """Replace the output."""
        self._handle.update(_bundle(progress), raw=True)

    def end(self, progress: Progress) -> None:
        """Leave the last state there."""
        self._handle.update(_bundle(progress, ended=True), raw=True)


def _bundle(progress: Progress, *, ended: bool = False) -> dict[str, str]:
    return {"text/plain": line(progress, ended=ended), "text/html": html(progress, ended=ended)}


def html(progress: Progress, *, ended: bool = False) -> str:
    """Return the state as HTML without colours of its own, so that light and dark pages both fit."""
    cells = [(each.label, escape(each.text)) for each in facts(progress, ended=ended)]
    keys, more = busiest({} if ended else progress.saturation, _KEYS)
    cells += [(escape(key.name), f"{_bar(key.saturation)} {percent(key.saturation)}") for key in keys]
    if more:
        cells.append(("", f"and {more:,} more"))
    table = "".join(_row(*each) for each in cells)
    shown = "" if ended and progress.share is None else _bar(progress.share)
    return f"<div>{shown} <b>{rows(progress)}</b></div><table>{table}</table>"


def _bar(share: float | None) -> str:
    value = "" if share is None else f' value="{share:.4f}"'
    return f'<progress max="1"{value}></progress>'


def _row(label: str, cell: str) -> str:
    left = '<td style="text-align:left">'
    return f"<tr>{left}{label}</td>{left}{cell}</td></tr>"
