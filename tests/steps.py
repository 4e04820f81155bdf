"""What work costs, counted in steps: seconds say how busy a machine is, and how quick, too."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass
class Steps:
    """How many steps there were so far."""

    count: int = 0

    def step(self, *_: object) -> Any:  # noqa: ANN401 - a trace function returns the next one
        """Count one."""
        self.count += 1
        return self.step


@contextmanager
def counted() -> Generator[Steps]:
    """Count the lines of Python that this thread runs within the block, each turn of a loop anew.

    Loops within a function of C are one step; the lines of the test itself, which was called before, are none. Beside
    `coverage`, whose own trace function has its place back after it, what is run within the block is not measured.
    """
    steps, before = Steps(), sys.gettrace()
    sys.settrace(steps.step)
    try:
        yield steps
    finally:
        sys.settrace(before)
