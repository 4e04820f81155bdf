"""The soonest that a scenario can end, whoever sends it.

All jobs together need at least what they use, and the server hands out no more than it has at the start and refills
since. That holds for every resource, and for every set of accounts and the jobs that fit no other account: a request
larger than a small key's whole allowance is work for the large keys alone. The job that is admitted last still has to
be answered.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .scenario import GroupLimits, Job, Resource, Scenario

_MINUTE: Final = 60.0
_PRECISION: Final = 1e-6  # seconds
_SLACK: Final = 1e-9  # of a token; the server forgives as much


def bound_s(scenario: Scenario, others: Mapping[str, Sequence[Job]] | None = None) -> float:
    """Return a lower bound of the finish time, in seconds after all jobs were submitted.

    Args:
        scenario: What is to be done.
        others: Limit group → what somebody else took from it before the end.
    """
    shortest = min(job.service_s for job in scenario.jobs)
    longest = max(job.service_s for job in scenario.jobs)
    there = scenario.net_s[0]
    return max(_last_admission(scenario, others or {}) + shortest, there + longest) + there


def _last_admission(scenario: Scenario, others: Mapping[str, Sequence[Job]]) -> float:
    fits = [(job, _fitting(scenario, job)) for job in scenario.jobs]
    fits += [(job, frozenset({group})) for group, jobs in others.items() for job in jobs]
    return max(_enough(scenario, groups, [job for job, on in fits if on <= groups]) for groups in _sets(scenario))


def _sets(scenario: Scenario) -> Iterator[frozenset[str]]:
    for size in range(1, len(scenario.limits) + 1):
        yield from map(frozenset, combinations(scenario.limits, size))


def _fitting(scenario: Scenario, job: Job) -> frozenset[str]:
    charge = scenario.charge(job)
    return frozenset(
        name
        for name, limits in scenario.limits.items()
        if all(charge[resource] <= most for resource, most in limits.per_minute.items())
    )


def _enough(scenario: Scenario, groups: Iterable[str], jobs: list[Job]) -> float:
    """Return when the groups have handed out what the jobs need at least, in seconds."""
    sources = [scenario.limits[name] for name in groups]
    return max(
        _when(sources, resource, sum(_least(scenario, job, resource) for job in jobs), opens=scenario.net_s[0])
        for resource in sources[0].per_minute
    )


def _least(scenario: Scenario, job: Job, resource: Resource) -> int:
    # An answer that is still under way at the end may have been charged less than it uses.
    return min(scenario.charge(job)[resource], scenario.use(job)[resource])


def _when(sources: list[GroupLimits], resource: Resource, need: int, *, opens: float) -> float:
    def enough(now: float) -> bool:
        return sum(_supply(limits, resource, now, opens) for limits in sources) >= need - _SLACK

    if enough(opens):
        return opens
    early, late = opens, opens + _MINUTE
    while not enough(late):
        early, late = late, 2 * late
    while late - early > _PRECISION:
        middle = (early + late) / 2
        early, late = (early, middle) if enough(middle) else (middle, late)
    return early


def _supply(limits: GroupLimits, resource: Resource, now: float, opens: float) -> float:
    """Return all that may have been used until `now`, when the first request can arrive at `opens`."""
    most = limits.per_minute[resource]
    if limits.mode == "bucket":  # a full one refills only from the first request on
        return most + most * (now - opens) / _MINUTE
    if limits.mode == "sliding":
        return most * (1 + (now - opens) // _MINUTE)
    return most * (1 + max(0.0, (now - limits.phase_s) // _MINUTE + 1))
