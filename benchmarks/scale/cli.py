"""The command line of the simulation at scale."""

from __future__ import annotations

import argparse
import asyncio
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.progress import track

from benchmarks.programs import draw
from benchmarks.tables import made as made_with

from . import report
from .cost import measure
from .simulate import TARGET, simulate
from .work import make

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .simulate import Outcome

_ACCOUNTS: Final = (10, 30, 100, 300, 1000)
_DECIDED: Final = (10, 100, 1000, 3000)
_SEED: Final = 7


def main(arguments: Sequence[str]) -> int:
    """Simulate what is asked for, print the tables, and return the exit status: 1 where a target is missed."""
    asked = _parser().parse_args(arguments)
    made = made_with("benchmarks.scale")
    costs = asyncio.run(measure(_DECIDED, _SEED)) if asked.cost else []
    cases = [(accounts, seed) for accounts in asked.accounts for seed in asked.seeds]
    outcomes = list(track(_run_all(cases), "On a virtual clock", total=len(cases), transient=True))
    report.show(outcomes, costs)
    if asked.results is not None:
        report.write(asked.results, outcomes, costs, made=made)
        figures = {
            "finish": [{**asdict(outcome), "ratio": outcome.ratio} for outcome in outcomes],
            "cost": [asdict(cost) for cost in costs],
        }
        draw("benchmarks.scale", asked.results, json.dumps(figures).encode())
    return 0 if all(outcome.met for outcome in outcomes if outcome.accounts >= 1000) else 1


def _run_all(cases: Sequence[tuple[int, int]]) -> Iterator[Outcome]:
    """Simulate the cases, the largest first, on all cores; yield what came of them in their order."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        runs = {case: pool.submit(_run, *case) for case in sorted(cases, reverse=True)}
        for case in cases:
            yield runs[case].result()


def _run(accounts: int, seed: int) -> Outcome:
    return asyncio.run(simulate(make(accounts, seed)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description="The real queue with up to a thousand accounts and workers, against the soonest that is possible.",
        epilog=f"Exit status: 0; 1 where a thousand accounts or more take longer than {TARGET} times the bound, leave "
        "a job out or are refused more than 5 times of 600.",
    )
    parser.add_argument(
        "--accounts", type=int, nargs="+", default=list(_ACCOUNTS), metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[_SEED], metavar="N", help="of the work (default: %(default)s)"
    )
    parser.add_argument(
        "--cost",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="also measure what a decision costs (default: yes)",
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="write tables and a picture there")
    return parser
