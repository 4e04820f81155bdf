"""The command line: `python -m benchmarks.overhead --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from .measure import AT_ONCE, added, measure, relative, server
from .profiling import profile
from .ways import ALL_LIMITS, BARE, NO_LIMITS, WAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET: Final = 0.2
"""The most that limits may add to a call, as a part of what a bare call costs."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and return the exit status: 1 where the target is missed."""
    asked = _parser().parse_args(arguments)
    with server() as base_url:
        figures = asyncio.run(measure(WAYS, base_url, rounds=asked.rounds, calls=asked.calls))
        limits = added(figures, by=ALL_LIMITS.name, over=NO_LIMITS.name, unit=BARE.name)
        _show(figures, limits)
        if asked.profile:
            _show_profile(base_url, asked.calls)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({"microseconds": figures, "limits_add": limits, "target": TARGET}))
    return 0 if limits <= TARGET else 1


def _show(figures: dict[str, list[float]], limits: float) -> None:
    table = Table(title=f"CPU of one call at {AT_ONCE} at once", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("way")
    table.add_column("µs", justify="right")
    table.add_column("x bare", justify="right")
    multiples = relative(figures, BARE.name)
    for name, costs in figures.items():
        table.add_row(name, f"{median(costs):.0f}", f"{multiples[name]:.2f}")
    console = Console(highlight=False)
    console.print(table)
    verdict = "met" if limits <= TARGET else "missed"
    console.print(f"Limits on all levels add {limits:.2f} of a bare call; at most {TARGET} is asked for: {verdict}.")


def _show_profile(base_url: str, calls: int) -> None:
    table = Table(title="Limits: the costliest functions, under the profiler", box=None, padding=(0, 2, 0, 0))
    for name in ("function", "entered", "own µs", "with what it calls µs"):
        table.add_column(name, justify="left" if name == "function" else "right")
    rooms = ("llm/limits/", "middleware/rate_limiter", "core/pool", "runtime/accounts")
    for spent in profile(ALL_LIMITS, base_url, calls=calls, rooms=rooms, most=20):
        table.add_row(spent.place, f"{spent.times:.1f}", f"{spent.own_us:.1f}", f"{spent.whole_us:.1f}")
    Console(highlight=False).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=f"CPU time of one call, {AT_ONCE} at once, against a server that does nothing.",
        epilog=f"Exit status: 0, or 1 where limits add more than {TARGET} of a bare call.",
    )

    def option(name: str, default: object, text: str, **how: Any) -> None:  # noqa: ANN401 - argparse checks them
        parser.add_argument(name, default=default, help=text, **how)

    option("--rounds", 15, "how often each way has its turn (default: %(default)s)", type=int, metavar="N")
    option("--calls", 640, "calls of a turn (default: %(default)s)", type=int, metavar="N")
    option("--profile", False, "also print where the limits' time goes", action="store_true")  # noqa: FBT003 - the switch's default
    option("--json", None, "write all figures there", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
