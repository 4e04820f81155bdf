"""So many calls at once, and never one more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from llm.limits.concurrency import Concurrency

if TYPE_CHECKING:
    from llm.limits.base import Hold


def test_a_place_is_free_again_however_the_call_ended_and_only_once() -> None:
    limit = Concurrency("concurrent_requests", 2)
    first = limit.take(0.0, 1.0)
    limit.take(0.0, 1.0)
    assert limit.wait(0.0, 1.0) > 0.0
    assert limit.saturation(0.0) == 1.0
    limit.settle(1.0, first, 1.0)
    assert limit.wait(1.0, 1.0) == 0.0
    limit.settle(2.0, first, 0.0)
    assert limit.saturation(2.0) == 0.5


def test_time_alone_frees_nothing_and_it_says_so() -> None:
    limit = Concurrency("concurrent_requests", 1)
    limit.take(0.0, 1.0)
    assert not limit.timed
    assert limit.wait(1e6, 1.0) > 0.0


def test_more_than_all_places_waits_for_ever() -> None:
    assert Concurrency("concurrent_requests", 1).wait(0.0, 2.0) == math.inf


@given(capacity=st.integers(1, 5), steps=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=60))
def test_never_more_run_at_once_than_allowed(capacity: int, steps: list[int | None]) -> None:
    limit = Concurrency("concurrent_requests", capacity)
    running: list[Hold] = []
    for step in steps:
        if step is None:
            free = limit.wait(0.0, 1.0) == 0.0
            assert free == (len(running) < capacity)
            if free:
                running.append(limit.take(0.0, 1.0))
        elif running:
            limit.settle(0.0, running.pop(step % len(running)), float(step))
        assert limit.saturation(0.0) == len(running) / capacity
