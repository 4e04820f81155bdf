"""The console script `manifold`, the same program as `python -m llm`."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from llm.utils.interrupt import hush, speak


def main() -> NoReturn:
    """Run the command line and exit with its status; Ctrl-C while modules load is a 130, too."""
    try:
        hush()
        _mend_streams()
        from llm.cli.main import run
        from llm.cli.serve import lend
        from llm.gateway import serve

        lend(serve)
        speak()
        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _mend_streams() -> None:
    """Give a closed stream a substitute, and write what the encoding lacks as an escape."""
    for name, mode, errors in (
        ("stdin", "r", "surrogateescape"),  # what is no text comes through to where it is refused by our own error
        ("stdout", "w", "backslashreplace"),
        ("stderr", "w", "backslashreplace"),
    ):
        stream: object = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115 - it lives as long as the process
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


if __name__ == "__main__":
    main()
