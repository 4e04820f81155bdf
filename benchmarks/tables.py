"""Tables of what was measured: on the terminal, and on a page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import cpu_count, getloadavg

from rich.console import Console
from rich.table import Table

from llm.utils.clock import SystemClock


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Attributes:
        title: What stands above it.
        head: Names of its columns.
        rows: As many words each.
        words: Columns of words, by name; the others hold numbers.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str]

    def show(self) -> None:
        """Print it; what missed its target is red."""
        shown = Table(title=self.title, box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in self.head:
            shown.add_column(name, no_wrap=True, justify="left" if name in self.words else "right")
        for row in self.rows:
            shown.add_row(*row, style="red" if row[-1] == "missed" else None)
        Console(highlight=False).print(shown)

    def markdown(self) -> str:
        """Return it as a page has it."""
        rule = ["---" if name in self.words else "---:" for name in self.head]
        lines = [self.head, rule, *self.rows]
        return "\n".join([f"{self.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


def made(module: str) -> str:
    """Return where and when `module` measures: day, machine, Python, and how busy the machine is already."""
    day = datetime.fromtimestamp(SystemClock().wall(), UTC).date()
    return (
        f"Measured on {day} with `python -m {module}`: {cpu_count()} cores ({platform.machine()}), "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}; "
        f"load average when it began: {getloadavg()[0]:.1f}."
    )
