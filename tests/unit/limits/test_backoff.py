"""Full jitter: the bounds of the dice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.limits.backoff import full_jitter


@pytest.mark.parametrize(("attempt", "span"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 30.0), (10_000, 30.0)])
def test_the_span_doubles_up_to_the_maximum_and_the_dice_pick_a_point_of_it(attempt: int, span: float) -> None:
    assert full_jitter(attempt, 0.0, initial=0.5, maximum=30.0) == 0.0
    assert full_jitter(attempt, 0.5, initial=0.5, maximum=30.0) == pytest.approx(span / 2)
    assert full_jitter(attempt, 1.0, initial=0.5, maximum=30.0) == pytest.approx(span)


@given(st.integers(1, 10**9), st.floats(0, 1), st.floats(0.001, 100), st.floats(0.001, 100))
def test_no_wait_is_negative_or_above_the_maximum(attempt: int, dice: float, initial: float, maximum: float) -> None:
    assert 0.0 <= full_jitter(attempt, dice, initial=initial, maximum=maximum) <= maximum
