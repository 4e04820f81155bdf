from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from llm.core.types import TokenUsage
from llm.progress import Progress, ProgressTracker
from llm.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE = TokenUsage(100, 20, 10, 5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(start=1000.0)


async def seconds_of(tracker: ProgressTracker, clock: FakeClock, seconds: int, *, a_second: int = 1) -> None:
    for _ in range(seconds):
        for _ in range(a_second):
            tracker.answered(USAGE, 0.001, cached=False)
        await clock.advance(1.0)


async def test_rows_are_counted_by_what_they_came_to(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(20, skipped=5)
    tracker.running(3)
    tracker.answered(USAGE, 0.5, cached=False)
    tracker.answered(USAGE, None, cached=True)
    tracker.failed("LLMTimeoutError")
    tracker.failed("LLMTimeoutError")
    await clock.advance(4.0)
    told = tracker.snapshot()
    assert (told.total, told.answered, told.failed, told.skipped, told.in_flight) == (20, 2, 2, 5, 3)
    assert (told.done, told.share) == (9, 0.45)
    assert told.usage == USAGE + USAGE
    assert (told.cache_hits, told.cache_ratio) == (1, 0.5)
    assert told.errors == {"LLMTimeoutError": 2}
    assert told.elapsed == 4.0
    assert told.overall_rows_per_second == told.rows_per_second == 1.0
    assert (told.input_tokens_per_second, told.output_tokens_per_second) == (50.0, 10.0)


def test_before_the_start_there_is_nothing() -> None:
    assert ProgressTracker().snapshot() == Progress()
    assert Progress().share is None
    assert Progress(total=0).share == 1.0
    assert Progress().cache_ratio == 0.0


async def test_a_snapshot_does_not_change_with_what_comes_after(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(2)
    tracker.failed("LLMAPIError")
    told = tracker.snapshot()
    tracker.failed("LLMAPIError")
    assert told.errors == {"LLMAPIError": 1}


async def test_the_time_runs_from_the_start_and_stands_still_after_the_end(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    await clock.advance(100.0)
    tracker.begin(None)
    assert tracker.snapshot().seconds_left is None
    await clock.advance(5.0)
    tracker.begin(50)  # counted by now
    await clock.advance(5.0)
    tracker.finish()
    await clock.advance(60.0)
    assert (tracker.snapshot().elapsed, tracker.snapshot().total) == (10.0, 50)


async def test_a_run_after_the_end_of_one_is_counted_from_nothing(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(3)
    tracker.answered(USAGE, 0.5, cached=True)
    tracker.failed("LLMTimeoutError")
    tracker.waiting("for a key")
    await clock.advance(5.0)
    tracker.finish()
    tracker.begin(2)
    assert tracker.snapshot() == Progress(total=2)
    tracker.answered(USAGE, 0.5, cached=False)
    await clock.advance(4.0)
    told = tracker.snapshot()
    assert (told.done, told.share, told.elapsed, told.cost, told.errors) == (1, 0.5, 4.0, 0.5, {})


async def test_the_expected_cost_follows_from_the_rows_that_are_left(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(10, skipped=2)
    assert tracker.snapshot().expected_cost is None
    tracker.answered(USAGE, 0.25, cached=False)
    tracker.failed("LLMAPIError")
    assert tracker.snapshot().cost == 0.25
    assert tracker.snapshot().expected_cost == 1.0


async def test_a_price_that_is_not_known_makes_the_expected_cost_unknown(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(10)
    tracker.answered(USAGE, 0.25, cached=False)
    tracker.answered(USAGE, None, cached=False)
    told = tracker.snapshot()
    assert (told.cost, told.unpriced, told.expected_cost) == (0.25, 1, None)


async def test_a_cached_answer_costs_nothing_and_so_has_a_price(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(10)
    tracker.answered(USAGE, None, cached=True)
    assert (tracker.snapshot().unpriced, tracker.snapshot().expected_cost) == (0, 0.0)


async def test_during_a_pause_the_end_is_unknown_and_after_it_what_it_was(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(100)
    await seconds_of(tracker, clock, 20)
    before = tracker.snapshot().seconds_left
    tracker.waiting("the provider is overloaded")
    await clock.advance(60.0)
    assert tracker.snapshot().seconds_left is None
    await clock.advance(240.0)
    tracker.waiting("the provider is still overloaded")
    await clock.advance(300.0)
    told = tracker.snapshot()
    assert (told.seconds_left, told.waiting) == (None, "the provider is still overloaded")
    tracker.waiting(None)
    told = tracker.snapshot()
    assert told.seconds_left == before == 80.0
    assert told.waiting is None


async def test_a_row_that_ends_ends_the_pause(clock: FakeClock) -> None:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(100)
    await seconds_of(tracker, clock, 20)
    tracker.waiting("the provider is overloaded")
    await clock.advance(300.0)
    await seconds_of(tracker, clock, 20)
    assert tracker.snapshot().seconds_left == 60.0
    tracker.waiting(None)
    assert tracker.snapshot().seconds_left == 60.0


async def test_saturation_is_asked_for_a_snapshot_only(clock: FakeClock) -> None:
    asked: list[float] = []

    def saturation() -> Mapping[str, float]:
        asked.append(clock.now())
        return {"openai/0": 0.5}

    tracker = ProgressTracker(clock=clock)
    tracker.saturation = saturation
    tracker.begin(2)
    tracker.answered(USAGE, 0.0, cached=False)
    assert asked == []
    assert tracker.snapshot().saturation == {"openai/0": 0.5}


async def test_a_saturation_that_cannot_be_told_is_left_out(clock: FakeClock) -> None:
    def saturation() -> Mapping[str, float]:
        raise RuntimeError("dictionary changed size during iteration")

    tracker = ProgressTracker(clock=clock)
    tracker.saturation = saturation
    assert tracker.snapshot().saturation == {}


async def test_ones_own_display_is_called_no_more_often_than_asked_and_at_the_end(clock: FakeClock) -> None:
    seen: list[tuple[float, int]] = []
    tracker = ProgressTracker(lambda told: seen.append((clock.now() - 1000.0, told.done)), every=2.0, clock=clock)
    tracker.begin(30)
    for _ in range(7):
        tracker.answered(USAGE, 0.0, cached=False)
        tracker.failed("LLMAPIError")
        tracker.waiting(None)
        await clock.advance(0.75)
    tracker.finish()
    assert seen == [(0.0, 1), (2.25, 7), (4.5, 13), (5.25, 14)]


async def test_ones_own_display_hears_of_failures_and_pauses_too(clock: FakeClock) -> None:
    seen: list[Progress] = []
    tracker = ProgressTracker(seen.append, clock=clock)
    tracker.begin(30)
    tracker.failed("LLMAPIError")
    await clock.advance(1.0)
    tracker.waiting("no key is free")
    assert [(told.failed, told.waiting) for told in seen] == [(1, None), (1, "no key is free")]


async def test_ones_own_display_that_fails_harms_no_row_and_is_told_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Progress) -> None:
        raise ZeroDivisionError

    tracker = ProgressTracker(broken, every=0.0, clock=clock)
    tracker.begin(3)
    with caplog.at_level(logging.ERROR, "llm.progress"):
        for _ in range(3):
            tracker.answered(USAGE, 0.0, cached=False)
    assert tracker.snapshot().answered == 3
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def test_rows_counted_in_several_threads_are_all_there() -> None:
    tracker = ProgressTracker()
    tracker.begin(4000)

    def count() -> None:
        for _ in range(500):
            tracker.answered(USAGE, 0.001, cached=True)
            tracker.failed("LLMAPIError")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    torn: list[Progress] = []
    while any(thread.is_alive() for thread in threads):
        told = tracker.snapshot()
        torn += [told] if told.usage.input_tokens != 100 * told.answered else []
    told = tracker.snapshot()
    assert (told.answered, told.failed, torn) == (2000, 2000, [])
