"""The command line of the chaos run."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.progress import Progress

from . import fallback, report, run, sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHARE: Final = 0.2


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, print what happened, and return the exit status: 1 where a promise is broken."""
    asked = _parser().parse_args(arguments)
    print(f"seed {asked.seed}")  # noqa: T201 - to run the same again
    broken = _chaos(asked.calls, asked.seed) if asked.calls else []
    broken += _fallback(asked.fallback, asked.seed) if asked.fallback else []
    broken += _sweep(asked.secrets, asked.seed) if asked.secrets else []
    print("all promises kept" if not broken else f"{len(broken)} promises broken")  # noqa: T201
    return 1 if broken else 0


def _chaos(calls: int, seed: int) -> list[str]:
    with Progress(transient=True) as progress:
        task = progress.add_task("Calls through faults, reloads and cancellations", total=calls)
        done = asyncio.run(run.run(calls, seed=seed, share=_SHARE, advance=lambda n: progress.advance(task, n)))
    report.show(done)
    return done.broken


def _fallback(calls: int, seed: int) -> list[str]:
    with Progress(transient=True) as progress:
        task = progress.add_task("Calls that fall back", total=calls)
        done = asyncio.run(fallback.run(calls, seed=seed, advance=lambda n: progress.advance(task, n)))
    report.show_fallen(done)
    return done.broken


def _sweep(calls: int, seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        task = progress.add_task("Calls with planted secrets", total=calls)
        sections, environment = sweep.plant(Path(folder))
        os.environ.update(environment)
        gc.collect()  # what other phases left has no part in it
        done = asyncio.run(sweep.run(calls, sections, seed=seed, advance=lambda n: progress.advance(task, n)))
        for name in environment:
            del os.environ[name]
    report.show_sweep(done)
    return done.found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Thousands of calls through faults of every kind at one in five requests, keys that die and come "
        "back, reloads and cancellations: every call must end in its own answer or its own error, and nothing may be "
        "left. Then calls that fall back from a provider that fails, and a search for planted secrets.",
        epilog="Exit status: 0; 1 where a promise is broken, which is then printed with what was seen.",
    )
    parser.add_argument("--calls", type=int, default=20_000, help="of the first part (default: %(default)s)")
    parser.add_argument("--fallback", type=int, default=5_000, help="calls that fall back (default: %(default)s)")
    parser.add_argument("--secrets", type=int, default=10_000, help="calls with secrets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all dice (default: %(default)s)")
    return parser
