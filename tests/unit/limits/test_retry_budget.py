"""How many retries calls have together: a share of them, and some in any case."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.limits.retry_budget import RetryBudget


def withdrawn(budget: RetryBudget, now: float, most: int = 100_000) -> int:
    """Take what there is, and return how much that was."""
    taken = 0
    while taken < most and budget.withdraw(now):
        taken += 1
    return taken


def test_a_small_program_is_never_held_back() -> None:
    budget = RetryBudget(0.01)
    for second in range(100):
        budget.deposit(float(second))
        assert withdrawn(budget, float(second), most=9) == 9


def test_a_burst_after_a_long_rest_has_its_share_at_once() -> None:
    budget = RetryBudget(0.5)
    for _ in range(1000):
        budget.deposit(5000.0)
    assert withdrawn(budget, 5000.0) == 500


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_in_an_outage_retries_are_a_share_of_the_calls() -> None:
    budget = RetryBudget(0.5)
    taken = 0
    for tick in range(60_000):  # a thousand calls a second, for a minute, each wants a retry
        budget.deposit(tick / 1000)
        taken += budget.withdraw(tick / 1000)
    assert taken / 60_000 == pytest.approx(0.5, abs=0.1)
    assert budget.refused == 60_000 - taken


def test_ten_a_second_come_back_once_it_is_spent() -> None:
    budget = RetryBudget(0.5)
    assert withdrawn(budget, 0.0) == 100
    assert withdrawn(budget, 0.9) == 0
    taken = sum(withdrawn(budget, float(second)) for second in range(1, 61))
    assert taken / 60 == pytest.approx(10.0, abs=1.0)


def test_it_says_what_it_allows() -> None:
    budget = RetryBudget(0.25)
    for _ in range(800):
        budget.deposit(0.0)
    assert withdrawn(budget, 0.0) == 200
    assert budget.snapshot(0.0) == {"calls": 800.0, "retries": 200.0, "allowed": 200.0, "refused": 1}
    assert budget.told() == (
        "about 200 retries to 800 calls in the last 10 seconds are all that retry.budget (0.25) allows"
    )


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@settings(deadline=None)
@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 500), st.integers(0, 300)), max_size=30),
)
def test_there_are_never_more_than_the_share_of_all_calls_beside_what_is_always_allowed(
    share: float, events: list[tuple[float, int, int]]
) -> None:
    budget = RetryBudget(share)
    now = calls = taken = 0.0
    for seconds, fresh, wanted in events:
        now += seconds
        for _ in range(fresh):
            budget.deposit(now)
        calls += fresh
        taken += withdrawn(budget, now, most=wanted)
        assert taken <= 100 + 12.0 * now + 1.2 * share * calls
