"""All units in one whole number: it holds what each holds, and says which exceeds its most."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.call import Charge
from llm.limits.amounts import EXCEEDED, TOGETHER, alone, amounts_of, only, part, summed

TOKENS = st.integers(0, 10**12)
COSTS = st.integers(0, 2**40).map(lambda millionths: millionths / 2**20)
CHARGES = st.builds(Charge, TOKENS, TOKENS, TOKENS, COSTS, st.integers(0, 1000))
SLIGHT = 2.0**-40


def together(charge: Charge) -> int:
    whole = amounts_of(charge)[TOGETHER]
    assert isinstance(whole, int)
    return whole


def parts(whole: int) -> list[float]:
    return [part(whole, place) for place in range(TOGETHER)]


@given(CHARGES, st.lists(CHARGES, max_size=5))
def test_it_holds_the_sum_of_each_unit_and_the_difference(one: Charge, others: list[Charge]) -> None:
    whole = together(one) - sum(map(together, others))
    for place, amount in enumerate(parts(whole)):
        assert amount == one[place] - sum(other[place] for other in others)
        assert parts(only(whole, place)) == [amount if at == place else 0.0 for at in range(TOGETHER)]


@given(CHARGES, CHARGES, CHARGES)
def test_what_exceeds_its_most_in_some_unit_is_seen(most: Charge, one: Charge, other: Charge) -> None:
    exceeded = any(one[place] + other[place] > most[place] for place in range(TOGETHER))
    assert bool((together(most) - together(one) - together(other)) & EXCEEDED) is exceeded


@pytest.mark.parametrize("place", range(TOGETHER))
def test_it_is_exceeded_by_the_least_and_by_the_most(place: int) -> None:
    most = summed([5.0] * TOGETHER)
    assert not (most - most) & EXCEEDED
    for amount in (SLIGHT, 1.0, 1e30):
        assert (most - most - alone(place, amount)) & EXCEEDED
    assert (alone(place, -1.0) - most) & EXCEEDED  # where nothing fits


@pytest.mark.parametrize("unit", ["input_tokens", "output_tokens", "total_tokens", "cost", "requests"])
def test_what_no_call_ever_takes_is_not_counted_as_anything_else(unit: str) -> None:
    amounts: dict[str, Any] = Charge(1, 2, 3, 0.5, 4)._asdict()
    place = Charge._fields.index(unit)
    huge: Any
    for huge in (10**30, 1e30):
        with_huge = amounts | {unit: huge}
        whole = 1000 * together(Charge(**with_huge))
        thousandths = [amount / 1000 for amount in parts(whole)]
        assert [*thousandths[:place], *thousandths[place + 1 :]] == [amounts[name] for name in amounts if name != unit]
        assert part(whole, place) / 1000 > 1e18


@pytest.mark.parametrize("cost", [math.inf, math.nan, -math.inf])
def test_a_cost_that_is_no_number_is_the_most_that_is_counted_and_nothing_else(cost: float) -> None:
    whole = parts(together(Charge(1, 2, 3, cost, 4)))
    assert [*whole[:3], whole[4]] == [1, 2, 3, 4]
    assert abs(whole[3]) == 2.0**60


def test_parts_of_tokens_count_as_such() -> None:
    assert parts(summed((0.5, 1.25, 2, 0.125, 1))) == [0.5, 1.25, 2.0, 0.125, 1.0]
    halves: list[float] = [0.5, 1.5, 2.5, 0.0, 1]
    assert parts(amounts_of(Charge(*halves))[TOGETHER]) == halves  # type: ignore[arg-type]


def test_what_has_it_keeps_it() -> None:
    amounts = amounts_of(Charge(1, 2, 3))
    assert amounts_of(amounts) is amounts
    assert amounts.total_tokens == 3
