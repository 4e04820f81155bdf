"""The command line: `python -m benchmarks.batch --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid, made

from .cost import AT_ONCE, measure
from .memory import peak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cost import Costs

MOST_BESIDE: Final = 1.0
"""What a row may cost beside its call, in multiples of a bare call."""
MOST_GROWTH: Final = 50.0
"""By how many megabytes the peak of many rows may be above that of few."""
_FEW: Final = 1_000
_MEGA: Final = 1e6


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, and return the exit status: 1 where a target is missed."""
    asked = _parser().parse_args(arguments)
    cost = measure(asked.cost_rows, asked.rounds)
    few, many = peak(_FEW) / _MEGA, peak(asked.rows) / _MEGA
    grids = [_costs(cost), _memory(few, many, asked.rows)]
    for grid in grids:
        grid.show()
    if asked.results is not None:
        asked.results.mkdir(parents=True, exist_ok=True)
        parts = [
            "# What a batch costs beside its calls",
            made("benchmarks.batch"),
            *(grid.markdown() for grid in grids),
        ]
        (asked.results / "batch.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0 if cost.beside <= MOST_BESIDE and many - few <= MOST_GROWTH else 1


def _costs(cost: Costs) -> Grid:
    alone = median(cost.bare)
    ways = {"a bare call": cost.bare, "a call by a client": cost.call, "a row of a file": cost.row}
    rows = [[name, f"{median(all_of):.0f}", f"{median(all_of) / alone:.2f}", ""] for name, all_of in ways.items()]
    rows.append(["a row beside its call", "", f"{cost.beside:.2f}", _met(cost.beside <= MOST_BESIDE)])
    title = f"CPU time, {AT_ONCE} at once, medians of {len(cost.bare)} rounds"
    return Grid(title, ["what", "µs", "x a bare call", f"at most {MOST_BESIDE:g}"], rows, ["what"])


def _memory(few: float, many: float, rows: int) -> Grid:
    grown = many - few
    found = [
        [f"{_FEW:,}", f"{few:.1f}", "", ""],
        [f"{rows:,}", f"{many:.1f}", f"{grown:.1f}", _met(grown <= MOST_GROWTH)],
    ]
    head = ["rows", "MB", "MB more", f"at most {MOST_GROWTH:g} more"]
    return Grid("Peak resident memory of a run over a file", head, found, [])


def _met(met: bool) -> str:  # noqa: FBT001 - the only thing there is to say
    return "met" if met else "missed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch",
        description="CPU time of a row of a batch beside its call, in multiples of a call by bare aiohttp, and peak "
        "memory of a million rows beside that of a thousand.",
        epilog=f"Exit status: 0; 1 where a row costs more than {MOST_BESIDE:g} bare call beside its own, or many rows "
        f"take more than {MOST_GROWTH:g} MB more than few.",
    )
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows (default: %(default)s)")
    parser.add_argument(
        "--cost-rows", type=int, default=4_000, metavar="N", help="rows of a round of calls (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of calls (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="write the tables there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
