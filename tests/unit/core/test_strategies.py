"""The order in which an alias's targets are tried."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.routing import Target
from llm.core.strategies import Alias, by_price, by_weight

A, B, C = (Target(name, "m/1") for name in "abc")


def test_targets_are_read_as_provider_and_model_which_may_hold_a_slash() -> None:
    alias = Alias.read(["a/m/1", "b/n"], "weighted", [1, 2])
    assert alias == Alias((A, Target("b", "n")), "weighted", (1, 2))
    assert Alias.read(["a/m/1"], "fallback", None).weights is None


@pytest.mark.parametrize(("weights", "shares"), [((6.0, 3.0, 1.0), (0.6, 0.3, 0.1)), (None, (1 / 3, 1 / 3, 1 / 3))])
def test_each_place_is_drawn_by_the_weights_of_those_left(
    weights: tuple[float, ...] | None, shares: tuple[float, ...]
) -> None:
    alias, dice = Alias((A, B, C), "weighted", weights), Random(7).random  # noqa: S311 - of a test
    drawn = [by_weight(alias, dice) for _ in range(6000)]
    firsts = Counter(order[0] for order in drawn)
    assert [firsts[target] / 6000 for target in (A, B, C)] == pytest.approx(shares, abs=0.02)
    after_a = Counter(order[1] for order in drawn if order[0] == A)
    assert after_a[B] / after_a.total() == pytest.approx(shares[1] / (shares[1] + shares[2]), abs=0.03)


@given(st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=3, max_size=3), st.floats(0.001, 1e6))
def test_no_target_is_lost_whatever_the_dice(rolls: list[float], weight: float) -> None:
    order = by_weight(Alias((A, B, C), "weighted", (weight, 1.0, 1.0)), iter(rolls).__next__)
    assert set(order) == {A, B, C}


def test_the_cheapest_stands_first_and_what_nobody_knows_last_in_its_order() -> None:
    prices = {A: 2.0, B: 1.0, C: 2.0}
    assert by_price(Alias((A, B, C)), prices.get) == (B, A, C)
    assert by_price(Alias((A, B, C)), {C: 0.0}.get) == (C, A, B)
