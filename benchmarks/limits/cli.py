"""The command line of the benchmark of limits."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import track

from benchmarks.programs import draw
from benchmarks.tables import made as made_with

from . import report
from .generate import SCENARIOS
from .run import HOSTS, TARGETS
from .sockets import SCENARIOS as SOCKET_SCENARIOS
from .sockets import compare
from .variation import VARIATIONS
from .virtual import Case, run_all
from .workload import STORED_SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Outcome
    from .sockets import SocketOutcome

_TARGETS: Final = ", ".join(f"{kind}: {ratio} x the bound, {most} refusals" for kind, (ratio, most) in TARGETS.items())


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, print the tables, and return the exit status: 1 where a target is missed."""
    asked = _parser().parse_args(arguments)
    made = made_with("benchmarks.limits")
    hosts = HOSTS if asked.host == "both" else (asked.host,)
    cases = [Case(*case) for case in product(asked.scenario, asked.seeds, hosts, asked.variation)]
    outcomes = list(track(run_all(cases), "On a virtual clock", total=len(cases), transient=True))
    report.show(outcomes)
    compared = _compare(asked.scenario, asked.seeds[0]) if asked.sockets else []
    if compared:
        report.show_compared(compared)
    figures = json.dumps({"virtual": _rows(outcomes), "sockets": _rows(compared)})
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(figures)
    if asked.results is not None:
        report.write(asked.results, outcomes, compared, made=made)
        draw("benchmarks.limits", asked.results, figures.encode())
    return 0 if all(outcome.met for outcome in outcomes) else 1


def _compare(scenarios: Sequence[str], seed: int) -> list[SocketOutcome]:
    names = [name for name in SOCKET_SCENARIOS if name in scenarios]
    runs = compare(names, seed)
    return list(track(runs, "Over sockets, up to two minutes each", total=None, transient=True))


def _rows(outcomes: Sequence[Outcome | SocketOutcome]) -> list[dict[str, Any]]:
    return [{**asdict(outcome), "ratio": outcome.ratio} for outcome in outcomes]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits",
        description="How soon 600 jobs end on limited keys, against the soonest that arithmetic allows.",
        epilog="Exit status: 0; 1 where a run on the virtual clock leaves a job without its answer, or misses a target "
        f"({_TARGETS}).",
    )

    def option(name: str, default: object, text: str, **how: Any) -> None:  # noqa: ANN401 - argparse checks them
        parser.add_argument(name, default=default, help=text, **how)

    option(
        "--seeds",
        [STORED_SEED, 11, 23],
        f"of the jobs; {STORED_SEED} is the stored workload (default: %(default)s)",
        nargs="+",
        type=int,
        metavar="N",
    )
    option(
        "--scenario",
        list(SCENARIOS),
        f"of {', '.join(SCENARIOS)} (default: all)",
        nargs="+",
        choices=SCENARIOS,
        metavar="NAME",
    )
    option(
        "--host",
        "both",
        "vendor: the vendor's own address; unknown: another, whose way to count is to be learned (default: both)",
        choices=(*HOSTS, "both"),
    )
    option(
        "--variation",
        ["plain"],
        f"what else happens, of {', '.join(VARIATIONS)} (default: plain)",
        nargs="+",
        choices=VARIATIONS,
        metavar="NAME",
    )
    option(
        "--sockets",
        False,  # noqa: FBT003 - the switch's default
        "also compare clients over sockets, in real time: about seven minutes (default: no)",
        action=argparse.BooleanOptionalAction,
    )
    option("--json", None, "write all figures there", type=Path, metavar="FILE")
    option("--results", None, "write tables and pictures there", type=Path, metavar="FOLDER")
    return parser
