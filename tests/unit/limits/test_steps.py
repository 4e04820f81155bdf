from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from llm.core.call import Charge
from llm.limits.memory import Account
from llm.limits.steps import Steps

if TYPE_CHECKING:
    from llm.limits.base import Limit


def limits(**stated: float) -> tuple[Limit, ...]:
    account = Account()
    account.state(0.0, stated, level="key", bucket=True)
    return account.limits


def test_an_allowance_is_a_step_that_its_account_can_pay_whole() -> None:
    accounts = [limits(tokens_per_minute=amount) for amount in (30_000, 29_999, 10_007, 333)]
    steps = Steps(accounts)
    for account in accounts:
        most = steps.most(account)
        assert steps.charges[most].total_tokens == account[0].capacity
        assert steps.of(Charge(0, 0, int(account[0].capacity))) == most


def test_a_charge_is_covered_by_its_step_and_not_by_the_one_below() -> None:
    steps = Steps([limits(tokens_per_minute=30_000), limits(tokens_per_minute=700)])
    for amount in range(1, 30_001, 97):
        step = steps.of(Charge(0, 0, amount))
        assert step is not None
        assert steps.charges[step].total_tokens >= amount
        assert step == 0 or steps.charges[step - 1].total_tokens < amount
    assert steps.of(Charge(0, 0, 30_001)) is None


def test_of_many_different_allowances_four_in_five_of_those_that_fit_are_known_to() -> None:
    accounts = [limits(tokens_per_minute=1000.0 + number) for number in range(1000)]
    steps = Steps(accounts)
    assert len(steps.charges) < 60
    for amount in range(1000, 2000, 61):
        step = steps.of(Charge(0, 0, amount))
        fit = sum(account[0].capacity >= amount for account in accounts)
        known = sum(step is not None and steps.most(account) >= step for account in accounts)
        assert known >= 0.8 * fit


def test_what_counts_is_the_unit_that_takes_the_largest_share() -> None:
    steps = Steps([limits(input_tokens_per_minute=50_000, output_tokens_per_minute=10_000)])
    step = steps.of(Charge(1000, 2000, 3000))
    assert step is not None
    assert steps.charges[step].output_tokens >= 2000
    assert steps.share(Charge(1000, 2000, 3000)) == pytest.approx(0.2)


def test_where_nobody_has_a_limit_of_tokens_there_is_one_step_for_all() -> None:
    steps = Steps([limits(requests_per_minute=5)])
    assert steps.charges == (Charge(),)
    assert steps.of(Charge(10**6, 0, 10**6)) == 0
    assert steps.of_requests == pytest.approx(0.2)


def test_who_has_no_limit_of_tokens_takes_what_is_too_large_for_the_others() -> None:
    free, small = limits(requests_per_minute=5), limits(tokens_per_minute=100)
    steps = Steps([free, small])
    step = steps.of(Charge(0, 0, 10**6))
    assert (step, steps.most(small) < steps.most(free)) == (steps.most(free), True)


def test_dollars_are_not_rounded_to_whole_ones() -> None:
    steps = Steps([limits(cost_per_day=0.5)])
    step = steps.of(Charge(cost=0.003))
    assert step is not None
    assert 0.003 <= steps.charges[step].cost < 0.0043


def test_who_may_send_less_than_one_request_never_pays() -> None:
    steps = Steps([limits(requests_per_minute=0.5), limits(requests_per_minute=2)])
    assert [steps.most(limits(requests_per_minute=amount)) for amount in (0.5, 2.0)] == [-1, 0]
    assert steps.of(Charge(requests=2)) is None
    assert Steps(()).share(Charge(0, 0, 5)) == 0.0
    assert not math.isnan(Steps(()).of_requests)
