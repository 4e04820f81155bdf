"""Unequal accounts and what is to be done on them, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from benchmarks.limits.generate import generate
from llm.core.call import Charge

if TYPE_CHECKING:
    from benchmarks.limits.scenario import Scenario

JOBS_EACH: Final = 100
"""Jobs for each account, on average."""

_SECONDS: Final = {"requests_per_minute": 90.0, "tokens_per_minute": 120.0}  # that all takes with that limit alone
_UNEQUAL: Final = 10.0  # the largest account in multiples of the smallest
_JITTER: Final = 0.05  # by which requests and tokens are not in proportion


@dataclass(frozen=True, slots=True)
class Job:
    """One request.

    Attributes:
        charge: What the server takes as it admits the request: the larger of an estimate and `max_tokens`.
        used: What it took when the answer has ended.
        service_s: Seconds from admission to the last token.
    """

    charge: Charge
    used: Charge
    service_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, by whom, and on what.

    Attributes:
        seed: What it was made from.
        limits: Each account's limits, under their names in `llm.yaml`.
        jobs: The jobs, in the order in which workers draw them.
        workers: How many draw them; each has one request in flight.
        net_s: Least and most seconds that a message takes, one way.
    """

    seed: int
    limits: tuple[dict[str, float], ...]
    jobs: tuple[Job, ...]
    workers: int
    net_s: tuple[float, float]


def make(accounts: int, seed: int, *, each: int = JOBS_EACH, jobs: int | None = None) -> Work:
    """Make work that takes about two minutes; the same for the same seed.

    Jobs have the sizes of the benchmark of limits: most prompts are a few paragraphs, one in ten is long, and one
    caller in four asks for twice the output that it needs. Accounts differ by ten times. There are as many workers as
    accounts.

    Args:
        accounts: How many accounts, with one key each.
        seed: Any number.
        each: Jobs that an account is large enough for, on average.
        jobs: How many there are; by default as many as the accounts are large enough for.
    """
    scenario = generate("unequal", seed, jobs=jobs or each * accounts)
    made = tuple(_job(scenario, number) for number in range(len(scenario.jobs)))
    limits = _limits(accounts, each * accounts / len(made), made, Random(f"{seed} scale"))  # noqa: S311 - a benchmark's dice
    return Work(seed, limits, made, accounts, scenario.net_s)


def _job(scenario: Scenario, number: int) -> Job:
    job = scenario.jobs[number]
    total = scenario.charge(job)["tokens"]
    estimate = -(-job.prompt_chars // 4)
    used = Charge(job.prompt_tokens, job.output_tokens, job.prompt_tokens + job.output_tokens)
    return Job(Charge(estimate, job.max_tokens, total), used, job.service_s)


def _limits(accounts: int, times: float, jobs: tuple[Job, ...], dice: Random) -> tuple[dict[str, float], ...]:
    """Return limits that are large enough for the jobs, so many times."""
    weights = [_UNEQUAL ** dice.random() for _ in range(accounts)]
    need = {"requests_per_minute": len(jobs), "tokens_per_minute": sum(job.used.total_tokens for job in jobs)}
    limits: list[dict[str, float]] = [{} for _ in range(accounts)]
    for name, seconds in _SECONDS.items():
        whole = times * need[name] / (1.0 + seconds / 60.0)  # all of it is there at the start, and again every minute
        for stated, weight in zip(limits, weights, strict=True):
            part = whole * weight / sum(weights) * dice.uniform(1.0 - _JITTER, 1.0 + _JITTER)
            stated[name] = max(1.0, round(part))
    largest = max(job.charge.total_tokens for job in jobs)
    biggest = limits[weights.index(max(weights))]
    biggest["tokens_per_minute"] = max(float(largest), biggest["tokens_per_minute"])  # somebody takes any of them
    return tuple(limits)
