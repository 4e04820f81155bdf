"""The progress of a fetch: a bar where somebody looks on, a line now and then where nobody does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.progress import Progress, TaskID

    from .shell import Shell

_LINE_EVERY: Final = 0.25  # share of a step


class FetchProgress(Protocol):
    """Is told the step and the share of it that is done, 0 to 1; `began` is whether there was anything to do."""

    began: bool

    def __call__(self, step: str, share: float) -> None:
        """Show it."""


class _Lines:
    def __init__(self, shell: Shell, name: str) -> None:
        self.began = False
        self._shell = shell
        self._name = name
        self._step = ""
        self._next = 0.0

    def __call__(self, step: str, share: float) -> None:
        self.began = True
        if step != self._step:
            self._step, self._next = step, 0.0
        if share >= self._next:
            self._next = share + _LINE_EVERY
            self._shell.remark(f"{step} {self._name}: {share:.0%}")


class _Bars:
    def __init__(self, progress: Progress, name: str) -> None:
        self.began = False
        self._progress = progress
        self._name = name
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, share: float) -> None:
        self.began = True
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(f"{step} {self._name}", total=1.0)
        self._progress.update(self._tasks[step], completed=share)


@contextmanager
def shown(shell: Shell, name: str) -> Generator[FetchProgress]:
    """Show on stderr how far the fetch of a model is."""
    if not shell.drawing:
        yield _Lines(shell, name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bars(progress, name)
