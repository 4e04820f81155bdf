"""600 jobs on limited keys end as soon as arithmetic allows, and are refused almost never."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.limits.generate import SCENARIOS
from benchmarks.limits.run import HOSTS, TARGETS, Outcome, run
from benchmarks.limits.variation import VARIATIONS
from benchmarks.limits.workload import STORED_SEED, scenario

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet
    from benchmarks.limits.run import Host
    from benchmarks.limits.variation import Variation

SEEDS = (STORED_SEED, 11)
VARIED = ("unequal", "grouped", "anthropic")  # all of them by `make bench-limits`
OFTEN = {("unequal", 11), ("mixed", 11), ("window", 11), ("grouped", "streams"), ("anthropic", "shared")}
"""What is run each time beside each scenario with the first seed, and each variation of the first scenario."""


def often_or_soak(name: str, kind: str | int, *more: object) -> ParameterSet:
    often = kind == STORED_SEED or (name == VARIED[0] and isinstance(kind, str)) or (name, kind) in OFTEN
    return pytest.param(name, kind, *more, marks=() if often else pytest.mark.soak)


@pytest.mark.parametrize(
    ("name", "seed", "host"),
    [often_or_soak(name, seed, host) for name in SCENARIOS for seed, host in zip(SEEDS, HOSTS, strict=True)],
)
async def test_all_keys_are_filled_to_the_brim(name: str, seed: int, host: Host) -> None:
    _check(await run(scenario(name, seed), host, watched=False))


@pytest.mark.parametrize(
    ("name", "variation"), [often_or_soak(name, kind) for name in VARIED for kind in VARIATIONS if kind != "plain"]
)
async def test_the_same_with_streams_with_calls_given_up_and_with_somebody_else_on_a_key(
    name: str, variation: Variation
) -> None:
    _check(await run(scenario(name, STORED_SEED), variation=variation, watched=False))


def _check(outcome: Outcome) -> None:
    ratio, refusals = TARGETS["window" if outcome.scenario == "window" else "bucket"]
    assert outcome.failed == {}
    assert (outcome.answered, outcome.swapped, outcome.tally.doubled) == (outcome.jobs, 0, 0)
    assert outcome.ratio <= ratio
    assert outcome.tally.refused <= refusals
