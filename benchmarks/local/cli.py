"""The command line of the benchmark of the local model."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Console
from rich.progress import Progress

from benchmarks.programs import draw, terminated_is_interrupted
from benchmarks.tables import made
from llm.core.exceptions import LLMConfigurationError

from . import report
from .figures import Figures
from .files import files
from .measure import Plan, measure
from .promises import promises
from .saved import as_json, load, save
from .shape import AT_ONCE, ENGINES, NEW, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_INTERRUPTED: Final = 130
_USAGE: Final = 2
_QUICK: Final = Plan(rounds=1, at_once=(1, 4), tokens=16)

Measure: TypeAlias = "Callable[[argparse.Namespace], Iterator[Figures]]"
"""Measures what is asked for, and gives the figures each time there are more."""


def shown(asked: argparse.Namespace) -> Iterator[Figures]:
    """Measure, and show how far it is."""
    plan = _plan(asked)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("files", total=len(list(plan.turns())))

        def tell(now: str) -> None:
            progress.update(task, description=now)

        read = files()
        how = f"{made('benchmarks.local')} Rounds: {plan.rounds}."
        figures = Figures(how)
        if not asked.only_promises:
            for more in measure(plan, read, tell):
                figures = replace(more, made=how)
                progress.update(task, completed=len(figures.turns))
                yield figures
        if not asked.no_promises:
            for found in promises(plan.engines, read, tell, memory=asked.memory):
                yield replace(figures, promises=list(found))


def main(arguments: Sequence[str], measured: Measure = shown) -> int:
    """Measure, print the tables, and return the exit status: 1 where a target is missed, 130 where it is stopped."""
    asked = _parser().parse_args(arguments)
    stopped = False
    figures = Figures()
    try:
        if asked.redraw:
            figures = load(_needed(asked.json))
        else:
            with terminated_is_interrupted():
                for figures in measured(asked):
                    if asked.json is not None:
                        save(asked.json, figures)
    except KeyboardInterrupt:
        stopped = True
        figures = replace(figures, made=f"{figures.made} **Incomplete**: it was stopped.")
    except (LLMConfigurationError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return _USAGE
    report.show(figures)
    if asked.results is not None:
        report.write(asked.results, figures)
        draw("benchmarks.local", asked.results, as_json(figures), python=OTHER / "bin" / "python")
    if stopped:
        sys.stderr.write("Stopped: only what was measured until then is shown.\n")
        return _INTERRUPTED
    words = [*(target.word for target in figures.targets()), *(promise.word for promise in figures.promises)]
    return 1 if "missed" in words else 0


def _needed(path: Path | None) -> Path:
    if path is None:
        raise ValueError("--redraw needs --json FILE, the figures of an earlier run")
    return path


def _plan(asked: argparse.Namespace) -> Plan:
    engines = tuple(ENGINES[word] for word in asked.engines)
    if asked.quick:
        return replace(_QUICK, engines=engines)
    return Plan(asked.rounds, tuple(sorted(set(asked.at_once))), engines, asked.tokens)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.local",
        description="Tokens per second, time to the first token, gaps and memory of the model on the box, beside naive "
        "generate, static batches, transformers serve and llama.cpp, on the same prompts in turns.",
        epilog="Exit status: 0; 1 where a target is missed; 2 where it cannot begin; 130 where it is stopped, with "
        "what was measured before written.",
    )

    def option(name: str, default: object, text: str, **how: Any) -> None:  # noqa: ANN401 - argparse checks them
        parser.add_argument(name, default=default, help=text, **how)

    words = list(ENGINES)
    option("--engines", words, f"of {', '.join(words)} (default: all)", nargs="+", choices=words, metavar="ENGINE")
    option("--at-once", list(AT_ONCE), "requests at once (default: 1 4 16 32)", nargs="+", type=_count, metavar="N")
    option("--rounds", 3, "how often each engine has its turn (default: %(default)s)", type=_count, metavar="N")
    option("--tokens", NEW, "new tokens of each answer (default: %(default)s)", type=_count, metavar="N")
    option("--json", None, "write all figures there", type=Path, metavar="FILE")
    option("--results", None, "write tables and the picture there", type=Path, metavar="FOLDER")
    switches = {
        "--quick": f"one round at 1 and 4 at once, {_QUICK.tokens} new tokens: a first look",
        "--no-promises": "leave out the warm prefix, the long prompt and the idle time",
        "--only-promises": "measure nothing else",
        "--memory": "see also what a thousand requests leave in memory (some minutes more)",
        "--redraw": "measure nothing: tables and picture of what the file of --json has",
    }
    for name, text in switches.items():
        option(name, False, text, action="store_true")  # noqa: FBT003 - the switch's default
    return parser


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1")
    return count
