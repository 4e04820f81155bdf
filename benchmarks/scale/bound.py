"""The soonest that work can end, whoever sends it.

A bucket hands out what it has at the start, and what it refills from the first request on. All jobs together need at
least what they use; those too large for small accounts need it of the others. And a worker has one request in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .work import Job, Work

_MINUTE: Final = 60.0
_SIZES: Final = 32  # of jobs, from which on the larger accounts alone are looked at


def bound_s(work: Work) -> float:
    """Return a lower bound of the finish time, in seconds after the workers begin."""
    there = work.net_s[0]
    shortest = min(job.service_s for job in work.jobs)
    longest = max(job.service_s for job in work.jobs)
    busy = sum(job.service_s + 2 * there for job in work.jobs) / work.workers
    return max(_last_admission(work) + shortest + there, longest + 2 * there, busy)


def _last_admission(work: Work) -> float:
    """Return when the last job can be admitted at the earliest, in seconds."""
    ordered = sorted(work.jobs, key=lambda job: -job.charge.total_tokens)
    ends = {len(ordered) * part // _SIZES for part in range(1, _SIZES + 1)} - {0}
    return max(_enough(work, ordered[:end]) for end in ends)


def _enough(work: Work, jobs: Sequence[Job]) -> float:
    """Return when the accounts that can take the smallest of the jobs have handed out what all of them need."""
    smallest = min(job.charge.total_tokens for job in jobs)
    takers = [limits for limits in work.limits if limits["tokens_per_minute"] >= smallest]
    tokens = sum(min(job.charge.total_tokens, job.used.total_tokens) for job in jobs)  # the last is not settled yet
    needs = {"requests_per_minute": len(jobs), "tokens_per_minute": tokens}
    return max(_when(sum(limits[name] for limits in takers), need, work.net_s[0]) for name, need in needs.items())


def _when(per_minute: float, need: float, opens: float) -> float:
    """Return when full buckets of so much together have handed out `need`, from the first arrival at `opens`."""
    return opens + _MINUTE * max(0.0, need / per_minute - 1.0)
