"""Ctrl-C while the command line still loads: nothing has begun, so the process ends with 130 and says nothing."""

from __future__ import annotations

import os
import signal
import sys

_STATUS = 130


def is_command_line() -> bool:
    """Return whether this process is `python -m llm` or `manifold`, so that nobody else's Ctrl-C is touched."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - pathlib takes longer to load
    if program != "-m":  # while its package loads a module that is run has no other name
        return program.removesuffix(".exe") == "manifold"
    options = sys.orig_argv
    return options[options.index("-m") + 1 :][:1] == ["llm"] if "-m" in options else "-mllm" in options


def hush() -> None:
    """End the process at once where Ctrl-C comes, until `speak`; what a shell had ignored stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:  # noqa: SIM105 - contextlib takes longer to load
            signal.signal(signal.SIGINT, _end)
        except ValueError:  # a thread that is not the first: no command line of ours
            pass


def speak() -> None:
    """Have Ctrl-C raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os._exit(_STATUS)
