"""The command line of the benchmark of calls."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import Progress

from benchmarks.programs import OTHER_PYTHON, ROOT
from benchmarks.tables import made

from . import report
from .figures import Figures, Imports, targets
from .measure import AT_ONCE, Plan, costs, held, imports, memory, server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARTS: Final = ("calls", "streams", "memory", "import")
_INTERRUPTED: Final = 130
_QUICK: Final = Plan(rounds=3, calls=320, at_once=(32,))
_LEAST_PAIRS: Final = 5


def measured(plan: Plan, parts: Sequence[str]) -> Figures:
    """Return the figures of the parts that are asked for."""
    if not OTHER_PYTHON.exists():
        sys.stderr.write("litellm and the pictures are left out: `make bench` installs what they need.\n")
    pairs = max(_LEAST_PAIRS, plan.rounds)
    kinds = [streamed for part, streamed in (("calls", False), ("streams", True)) if part in parts]
    steps = sum(plan.turns(streamed=streamed) for streamed in kinds)
    steps += held() if "memory" in parts else 0
    steps += pairs + 1 if "import" in parts else 0
    with Progress(console=Console(stderr=True), transient=True) as progress, server() as root:
        task = progress.add_task("", total=steps)

        def tell(what: str) -> None:
            progress.update(task, description=what, advance=1)

        return Figures(
            [cost for streamed in kinds for cost in costs(root, plan, streamed=streamed, tell=tell)],
            memory(root, tell) if "memory" in parts else [],
            imports(pairs, tell) if "import" in parts else Imports(),
        )


def main(arguments: Sequence[str], measure: Callable[[Plan, Sequence[str]], Figures] = measured) -> int:
    """Measure, print the tables, and return the exit status: 1 where a target is missed, 130 where it is stopped."""
    asked = _parser().parse_args(arguments)
    begun = made("benchmarks.calls")
    plan = _QUICK if asked.quick else Plan(asked.rounds, asked.calls)
    try:
        figures = measure(plan, asked.only)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; nothing was written.\n")
        return _INTERRUPTED
    report.show(figures)
    told = json.dumps(report.as_json(figures))
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(told)
    if asked.results is not None:
        report.write(asked.results, figures, made=begun)
        _draw(asked.results, told)
    return 0 if all(target.met for target in targets(figures)) else 1


def _draw(folder: Path, figures: str) -> None:
    if OTHER_PYTHON.exists():
        command = [str(OTHER_PYTHON), "-m", f"{__package__}.picture", str(folder.resolve())]
        subprocess.run(command, cwd=ROOT, input=figures, text=True, check=True)  # noqa: S603 - our own program


def _parser() -> argparse.ArgumentParser:
    counts = ", ".join(f"{count:,}" for count in AT_ONCE)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calls",
        description="CPU time of calls and of streamed chunks, memory of open streams and time of the import, beside "
        f"bare aiohttp, the vendors' clients and litellm; at {counts} at once.",
        epilog="Exit status: 0; 1 where a target is missed; 130 where it is interrupted.",
    )

    def option(name: str, default: object, text: str, **how: Any) -> None:  # noqa: ANN401 - argparse checks them
        parser.add_argument(name, default=default, help=text, **how)

    option("--rounds", 10, "how often each way has its turn (default: %(default)s)", type=_count, metavar="N")
    option("--calls", 640, "calls of a turn that are not streams (default: %(default)s)", type=_count, metavar="N")
    option("--only", list(PARTS), f"of {', '.join(PARTS)} (default: all)", nargs="+", choices=PARTS, metavar="PART")
    option("--json", None, "write all figures there", type=Path, metavar="FILE")
    option("--results", None, "write tables and pictures there", type=Path, metavar="FOLDER")
    option(
        "--quick",
        False,  # noqa: FBT003 - the switch's default
        f"{_QUICK.rounds} rounds of {_QUICK.calls} calls, at 32 at once alone: a first look",
        action="store_true",
    )
    return parser


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1")
    return count
