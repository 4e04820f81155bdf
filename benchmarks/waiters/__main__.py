"""The command line: `python -m benchmarks.waiters --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from .measure import FEW, MANY, bare, full_queue, growth, waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measure import Cost

TARGET: Final = 1.5
"""The most that one of many may cost, in multiples of one of few and of what tasks alone grow by."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and return the exit status: 1 where the target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.waiters",
        description=f"CPU time of each of {MANY:,} calls that wait for a key, beside each of {FEW:,}.",
        epilog=f"Exit status: 0, or 1 where one of many costs more than {TARGET} times one of few.",
    )
    parser.parse_args(arguments)
    alone, found = asyncio.run(_measure())
    _show({"tasks alone": alone, **found})
    worst = max(max(cost.enter / max(1.0, alone.enter), cost.leave) for cost in found.values())
    Console(highlight=False).print(
        f"Worst: {worst:.2f}; at most {TARGET} is asked for: {'met' if worst <= TARGET else 'missed'}."
    )
    return 0 if worst <= TARGET else 1


async def _measure() -> tuple[Cost, dict[str, Cost]]:
    found: dict[str, Cost] = {}
    for users in (0, MANY // 10):
        queue, clock = await full_queue()
        found[f"of {users or 'no'} users"] = await growth(waiting(queue, clock, users))
    return await growth(bare), found


def _show(costs: dict[str, Cost]) -> None:
    table = Table(title=f"One of {MANY:,} waiters, x one of {FEW:,}", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("waiters", "to come", "to leave"):
        table.add_column(name, justify="left" if name == "waiters" else "right")
    for name, cost in costs.items():
        table.add_row(name, f"{cost.enter:.2f}", f"{cost.leave:.2f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
