from __future__ import annotations

import heapq
import math
from random import Random
from typing import TYPE_CHECKING

import pytest
from benchmarks.limits.bound import bound_s
from benchmarks.limits.generate import SCENARIOS, generate
from benchmarks.limits.scenario import GroupLimits, Job, Scenario
from benchmarks.limits.workload import STORED_SEED, scenario, stated_bound_s
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.call import Charge
from llm.testing.accounts import Account, Lease

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.limits.scenario import Resource

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

NAMES = pytest.mark.parametrize("name", SCENARIOS)


@NAMES
def test_the_bound_of_the_stored_workload_is_the_one_that_is_written_in_it(name: str) -> None:
    assert bound_s(scenario(name, STORED_SEED)) == pytest.approx(stated_bound_s(name), rel=0.0005)


@NAMES
def test_a_seed_makes_the_same_scenario_every_time_and_another_seed_another(name: str) -> None:
    assert generate(name, 3) == generate(name, 3)
    assert generate(name, 3).jobs != generate(name, 4).jobs
    assert generate(name, 3).limits != generate(name, 4).limits


@NAMES
def test_a_made_scenario_is_like_the_stored_one(name: str) -> None:
    made, stored = scenario(name, 11), scenario(name, STORED_SEED)
    assert len(made.jobs) == len({job.tag for job in made.jobs}) == len(stored.jobs)
    assert [limits.mode for limits in made.limits.values()] == [limits.mode for limits in stored.limits.values()]
    assert list(made.groups.values()) == list(stored.groups.values())
    assert 90 <= bound_s(made) <= 160
    assert _tokens(made) == pytest.approx(_tokens(stored), rel=0.15)
    assert _streams(made) == pytest.approx(_streams(stored), abs=60)


def test_an_unknown_scenario_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no scenario 'equel'; expected one of equal, unequal, window"):
        scenario("equel", 7)


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(SCENARIOS), jobs=st.sampled_from((40, 150, 600)))
def test_no_order_of_the_jobs_ends_before_the_bound(seed: int, name: str, jobs: int) -> None:
    made = generate(name, seed, jobs=jobs)
    order = list(made.jobs)
    Random(seed).shuffle(order)  # noqa: S311 - a test's dice
    by_size = sorted(order, key=lambda job: sum(made.use(job).values()))
    for tried in (order, by_size, by_size[::-1]):
        assert _greedy(made, tried) >= bound_s(made)


def test_what_only_a_large_key_can_ever_take_is_work_for_that_key_alone() -> None:
    limits = {"small": _tokens_a_minute(100), "large": _tokens_a_minute(1000)}
    assert bound_s(_of_two_keys(limits, [_job(tokens=500)] * 4)) == pytest.approx(60 + 0.5)
    assert bound_s(_of_two_keys(limits, [_job(tokens=50)] * 40)) == pytest.approx(60 * 900 / 1100 + 0.5)


def test_a_window_gives_whole_allowances_alone() -> None:
    fixed, sliding = GroupLimits("fixed", {"requests": 2}, 40.0), GroupLimits("sliding", {"requests": 2})
    jobs = [_job(tokens=1)] * 6
    assert bound_s(_of_two_keys({"small": fixed, "large": sliding}, jobs)) == pytest.approx(40 + 0.5)
    assert bound_s(_of_two_keys({"small": fixed, "large": sliding}, jobs[:5] * 2)) == pytest.approx(100 + 0.5)


def test_what_somebody_else_takes_is_not_there_for_us() -> None:
    limits = {"small": _tokens_a_minute(1000), "large": _tokens_a_minute(1000)}
    ours = _of_two_keys(limits, [_job(tokens=500)] * 8)
    assert bound_s(ours) == pytest.approx(60 + 0.5)
    assert bound_s(ours, {"small": [_job(tokens=500)] * 2}) == pytest.approx(90 + 0.5)


def test_what_somebody_else_takes_from_a_large_key_leaves_a_small_one_as_it_is() -> None:
    limits = {"small": _tokens_a_minute(100), "large": _tokens_a_minute(1000)}
    ours = _of_two_keys(limits, [_job(tokens=50)] * 2)
    assert bound_s(ours, {"large": [_job(tokens=500)] * 4}) == pytest.approx(60 + 0.5)


def _greedy(scenario: Scenario, order: list[Job]) -> float:
    """Send each job, in this order, to the first key that takes it, knowing all that the server knows."""
    accounts = [Account(limits.enforced(), start=0.0, mode="bucket") for limits in scenario.limits.values()]
    now = finish = scenario.net_s[0]
    running: list[tuple[float, int, Lease, Charge]] = []
    for number, job in enumerate(order):
        while not isinstance(lease := _admit(accounts, now, _charge(scenario.charge(job))), Lease):
            now = min(now + lease, running[0][0]) if running else now + lease
            while running and running[0][0] <= now:
                end, _, ended, used = heapq.heappop(running)
                ended.settle(end, used)
        heapq.heappush(running, (now + job.service_s, number, lease, _charge(scenario.use(job))))
        finish = max(finish, now + job.service_s)
    return finish + scenario.net_s[0]


def _admit(accounts: list[Account], now: float, charge: Charge) -> Lease | float:
    """Return what was taken, or seconds until it may be."""
    soonest = math.inf
    for account in accounts:
        answer = account.admit(now, charge)
        if isinstance(answer, Lease):
            return answer
        soonest = min(soonest, answer.seconds)
    return soonest


def _charge(amounts: Mapping[Resource, int]) -> Charge:
    return Charge(amounts.get("input", 0), amounts.get("output", 0), amounts.get("tokens", 0))


def _tokens(scenario: Scenario) -> int:
    return sum(job.prompt_tokens + job.output_tokens for job in scenario.jobs)


def _streams(scenario: Scenario) -> int:
    return sum(job.stream for job in scenario.jobs)


def _tokens_a_minute(most: int) -> GroupLimits:
    return GroupLimits("bucket", {"requests": 1000, "tokens": most})


def _job(*, tokens: int) -> Job:
    return Job(0, "job", 0, tokens, tokens, 0, 0.5, stream=False)


def _of_two_keys(limits: Mapping[str, GroupLimits], jobs: list[Job]) -> Scenario:
    groups = {"k1": "small", "k2": "large"}
    return Scenario("two", 0, "openai", "gpt-4o-mini", ("k1", "k2"), groups, limits, (0.0, 0.0), tuple(jobs))
