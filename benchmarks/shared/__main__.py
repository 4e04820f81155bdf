"""The command line: `python -m benchmarks.shared --help`."""

from __future__ import annotations

import argparse
import sys

from benchmarks.limits.bound import bound_s
from benchmarks.limits.generate import generate
from benchmarks.limits.workload import STORED_SEED, scenario

from .crowd import Plan, run

_RATIO = 1.10
_REFUSALS = 10


def main() -> int:
    """Run it, print what came of it, and return 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared",
        description="How soon 600 jobs of several processes end on unequal keys that they share through a store.",
        epilog=f"Exit status: 1 where a job is without its answer or had two, the last ends after {_RATIO} x the "
        f"bound, or more than {_REFUSALS} requests are refused.",
    )
    parser.add_argument("url", help="address of an empty Redis or Valkey, such as redis://localhost:6379/0")
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--scenario", default="unequal", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=STORED_SEED, help="of the jobs (default: %(default)s)")
    parser.add_argument("--times", type=float, default=1.0, help="multiple of the usual two minutes (default: 1)")
    asked = parser.parse_args()
    whole = scenario(asked.scenario, asked.seed)
    jobs = whole if asked.times == 1.0 else generate(asked.scenario, asked.seed, times=asked.times)
    result, tally = run(Plan(jobs, asked.url, asked.processes, 0.0 if jobs is whole else asked.times))
    bound = bound_s(jobs)
    ratio, cpu = result.finish_s / bound, ", ".join(f"{seconds:.1f}" for seconds in result.cpu_s)
    print(  # noqa: T201 - a command line
        f"{asked.processes} processes, {len(jobs.jobs)} jobs: {len(result.answered)} in {result.finish_s:.1f} s"
        f", {ratio:.3f} x the bound of {bound:.1f} s; {tally.refused} refused, {tally.doubled} doubled; CPU {cpu} s; "
        f"failed: {result.failed or 'none'}"
    )
    met = len(result.answered) == len(jobs.jobs) and not tally.doubled and tally.refused <= _REFUSALS
    return 0 if met and result.finish_s <= _RATIO * bound else 1


if __name__ == "__main__":
    sys.exit(main())
