"""The command line of the soak."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from .report import show
from .run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Report


def main(arguments: Sequence[str]) -> int:
    """Load a gateway, print what happened, and return the exit status: 1 where a promise is broken."""
    asked = _parser().parse_args(arguments)
    print(f"seed {asked.seed}")  # noqa: T201 - to run the same again
    report = asyncio.run(run(asked.minutes * 60.0, seed=asked.seed, callers=asked.callers, tell=_tell))
    show(report)
    print("all promises kept" if not report.broken else f"{len(report.broken)} promises broken")  # noqa: T201
    return 1 if report.broken else 0


def _tell(report: Report) -> None:
    memory = report.memory[-1] / 2**20 if report.memory else 0.0
    sys.stderr.write(f"{report.seconds:5.0f} s  {report.calls.total():>9,} calls  {memory:6.1f} MiB\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Everything that `manifold serve` can be asked, at once and for long: whole answers and streams in "
        "all dialects, sockets, GraphQL, wrong keys, limits, clients that leave, a provider that fails in every way, "
        "and reloads. Its memory must stay flat, no error may be its own, and its log and its metrics must account for "
        "every call.",
        epilog="Exit status: 0; 1 where a promise is broken, which is then printed with what was seen.",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=24, help="that call at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all dice (default: %(default)s)")
    return parser
