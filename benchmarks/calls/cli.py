"""The command line of the benchmark of calls."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Console
from rich.progress import Progress

from benchmarks.programs import OTHER_PYTHON, draw, terminated_is_interrupted
from benchmarks.tables import made
from llm.utils.clock import SystemClock

from . import report
from .figures import PARTS, Figures, targets
from .measure import AT_ONCE, Plan, measure
from .saved import as_json, load, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .figures import Part, Piece

_INTERRUPTED: Final = 130
_USAGE: Final = 2
_QUICK: Final = Plan(rounds=3, calls=320, at_once=(32,))

Measure: TypeAlias = "Callable[[Plan, Sequence[Piece]], Iterator[Figures]]"
"""Measures pieces; gives the figures of each as soon as it is done."""


def shown(plan: Plan, pieces: Sequence[Piece]) -> Iterator[Figures]:
    """Measure, and show how far it is."""
    if not OTHER_PYTHON.exists():
        sys.stderr.write("litellm and the pictures are left out: `make bench` installs what they need.\n")
    clock = SystemClock()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(pieces))
        begun = clock.now()
        found = measure(plan, pieces, lambda now: progress.update(task, description=now))
        for piece, figures in zip(pieces, found, strict=True):
            progress.console.print(f"{piece}: {clock.now() - begun:.0f} s", highlight=False)
            progress.advance(task)
            yield figures
            begun = clock.now()


def main(arguments: Sequence[str], measure: Measure = shown) -> int:
    """Measure, print the tables, and return the exit status: 1 where a target is missed, 130 where it is stopped."""
    asked = _parser().parse_args(arguments)
    try:
        known = _known(asked)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return _USAGE
    run = _Run(asked.json, known)
    plan = _QUICK if asked.quick else Plan(asked.rounds, asked.calls)
    stopped = not asked.redraw and not run.measure(measure, plan, asked.only)
    report.show(run.figures)
    if asked.results is not None:
        report.write(asked.results, run.figures)
        draw("benchmarks.calls", asked.results, as_json(run.figures))
    if stopped:
        sys.stderr.write("Stopped. " + ("`--resume` goes on.\n" if asked.json else "Without --json nothing is kept.\n"))
        return _INTERRUPTED
    return 0 if all(target.met for target in targets(run.figures)) else 1


class _Run:
    """Figures that become more, and are saved whenever they do."""

    def __init__(self, path: Path | None, known: Figures) -> None:
        self.figures = known
        self._path = path

    def measure(self, measure: Measure, plan: Plan, parts: Sequence[Part]) -> bool:
        """Measure what is not there yet of some parts; returns False where an interrupt stopped it."""
        names = [str(piece) for piece in plan.pieces(parts)]
        pieces = [piece for piece in plan.pieces(parts) if str(piece) not in self.figures.names]
        left = [str(piece) for piece in pieces]
        elsewhere = [name for name in self.figures.missing if name not in names]
        rounds = f"At most {plan.rounds} rounds (where targets hold, more of them), {plan.calls} calls a turn."
        how = f"{made('benchmarks.calls')} {rounds}"
        self._keep(replace(self.figures, missing=[*left, *elsewhere]))
        try:
            with terminated_is_interrupted():
                for more in measure(plan, pieces):
                    name = left.pop(0)
                    joined = self.figures.joined(more)
                    self._keep(replace(joined, made={**joined.made, name: how}, missing=[*left, *elsewhere]))
        except KeyboardInterrupt:
            return False
        return True

    def _keep(self, figures: Figures) -> None:
        self.figures = figures
        if self._path is not None:
            save(self._path, figures)


def _known(asked: argparse.Namespace) -> Figures:
    """Return what earlier runs measured and this one does not measure anew.

    Raises:
        OSError: The file with it cannot be read.
        ValueError: It is not named, or does not hold that.
    """
    goes_on = asked.redraw or asked.resume
    if goes_on and asked.json is None:
        raise ValueError("--resume and --redraw need --json FILE, the figures of an earlier run")
    if asked.json is None or not (asked.redraw or asked.json.exists()):
        return Figures()
    if goes_on:
        return load(asked.json)
    return Figures() if set(asked.only) == set(PARTS) else load(asked.json).without(asked.only)


def _parser() -> argparse.ArgumentParser:
    counts = ", ".join(f"{count:,}" for count in AT_ONCE)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calls",
        description="CPU time of calls and of streamed chunks, memory of open streams and time of the import, beside "
        f"bare aiohttp, the vendors' clients and litellm; at {counts} at once.",
        epilog="Exit status: 0; 1 where a target is missed; 2 where it cannot begin; 130 where it is stopped, with "
        "what was measured before written.",
    )

    def option(name: str, default: object, text: str, **how: Any) -> None:  # noqa: ANN401 - argparse checks them
        parser.add_argument(name, default=default, help=text, **how)

    option("--rounds", 6, "how often each way has its turn at most (default: %(default)s)", type=_count, metavar="N")
    option("--calls", 640, "calls of a turn that are not streams (default: %(default)s)", type=_count, metavar="N")
    option("--only", list(PARTS), f"of {', '.join(PARTS)} (default: all)", nargs="+", choices=PARTS, metavar="PART")
    option(
        "--json", None, "write all figures there; with --only, beside those of other parts", type=Path, metavar="FILE"
    )
    option("--results", None, "write tables and pictures there", type=Path, metavar="FOLDER")
    switches = {
        "--quick": f"{_QUICK.rounds} rounds of {_QUICK.calls} calls, at 32 at once alone: a first look",
        "--resume": "measure only what the file of --json has not yet",
        "--redraw": "measure nothing: tables and pictures of what the file of --json has",
    }
    for name, text in switches.items():
        option(name, False, text, action="store_true")  # noqa: FBT003 - the switch's default
    return parser


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1")
    return count
