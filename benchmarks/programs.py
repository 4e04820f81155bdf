"""Other programs that a benchmark runs, from the checkout's root and on its sources."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import FrameType

ROOT: Final = Path(__file__).resolve().parents[1]
OTHER_PYTHON: Final = ROOT / ".cache" / "bench-venv" / "bin" / "python"
"""The environment of what this package does not depend on."""


def draw(package: str, folder: Path, figures: bytes, *, python: Path = OTHER_PYTHON) -> None:
    """Have a benchmark's `picture` draw figures into a folder, where the environment with matplotlib is there."""
    if python.exists():
        command = [str(python), "-m", f"{package}.picture", str(folder.resolve())]
        subprocess.run(command, cwd=ROOT, input=figures, check=True)  # noqa: S603 - our own program


@contextmanager
def program(
    python: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str]]:
    """Run a module with pipes to and from it; it is killed at the end, and an interrupt of the terminal is not its."""
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    command = [python, "-m", module, *arguments]
    with subprocess.Popen(  # noqa: S603 - our own programs
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a program says."""
    if process.stdout is None:
        raise RuntimeError("the process was started without a pipe from it")
    return process.stdout.readline().strip()


@contextmanager
def terminated_is_interrupted() -> Generator[None]:
    """Have a signal to terminate raise `KeyboardInterrupt`, as Ctrl-C does: a limit in time ends it so."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
