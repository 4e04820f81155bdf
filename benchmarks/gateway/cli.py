"""The command line of the benchmark of the gateway."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid, made

from .measure import BARE, GATEWAY, LITELLM, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measure import Measured

_LEAST_PART: Final = 0.77
_MOST_P99: Final = 2.0
_LEAST_TIMES: Final = 20.0
_NAME: Final = "gateway.md"
_HOW: Final = (
    "`manifold serve` runs with keys, limits of user and key, metrics and its log. CPU is the server's process alone; "
    "the upstream and who asks are processes of their own on the same machine."
)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, and return the exit status: 1 where a target is missed."""
    asked = _parser().parse_args(arguments)
    measured = measure(asked.rounds, asked.requests, asked.connections, lambda way: sys.stderr.write(f"{way}\n"))
    if LITELLM not in measured.turns:
        sys.stderr.write(f"{LITELLM} was left out: .cache/bench-venv does not have all that `litellm[proxy]` needs\n")
    grids = (ways(measured, asked.connections), targets(measured))
    for grid in grids:
        grid.show()
    if asked.results is not None:
        asked.results.mkdir(parents=True, exist_ok=True)
        page = [
            "# The gateway",
            "",
            f"{made('benchmarks.gateway')} {asked.rounds} rounds of {asked.requests} requests.",
            "",
            _HOW,
            "",
            *(f"{grid.markdown()}\n" for grid in grids),
        ]
        (asked.results / _NAME).write_text("\n".join(page) + "\n", encoding="utf-8")
    return 1 if any(row[-1] == "missed" for row in grids[1].rows) else 0


def ways(measured: Measured, connections: int) -> Grid:
    """Return what a request of each way took."""
    rows = [
        (
            way,
            f"{measured.of(way, 'per_second'):,.0f}",
            f"{measured.of(way, 'cpu') * 1e6:,.0f}",
            f"{measured.of(way, 'p50') * 1e3:.1f}",
            f"{measured.of(way, 'p99') * 1e3:.1f}",
        )
        for way in measured.turns
    ]
    head = ("way", "requests/s", "CPU µs", "p50 ms", "p99 ms")
    return Grid(f"/v1/chat/completions, {connections} connections", head, rows, ("way",))


def targets(measured: Measured) -> Grid:
    """Return what was asked for, beside what was found."""
    rows = [
        _row("requests/s of bare Starlette's", measured.beside(GATEWAY, BARE, "per_second"), _LEAST_PART, least=True),
        _row("its p99", measured.beside(GATEWAY, BARE, "p99"), _MOST_P99, least=False),
    ]
    if LITELLM in measured.turns:
        times = measured.beside(GATEWAY, LITELLM, "per_second")
        rows.append(_row("requests/s of litellm's proxy", times, _LEAST_TIMES, least=True))
    return Grid("Targets: times of …", ("what", "found", "target", "met"), rows, ("what", "met"))


def _row(what: str, found: float, target: float, *, least: bool) -> tuple[str, str, str, str]:
    met = found >= target if least else found <= target
    return what, f"{found:.2f}", f"{'≥' if least else '≤'} {target:g}", "met" if met else "missed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way")
    parser.add_argument("--requests", type=int, default=5000, help="requests of a turn")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--results", type=Path, help="folder for gateway.md")
    return parser
