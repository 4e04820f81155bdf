"""Keys that stay idle since too few calls go at once are told of, with a better number."""

from __future__ import annotations

import pytest

from llm.cli.idle import Idle
from llm.progress import ProgressTracker
from llm.testing import FakeClock


def watching(used: float, in_flight: int) -> tuple[ProgressTracker, FakeClock]:
    clock = FakeClock()
    tracker = ProgressTracker(clock=clock)
    tracker.saturation = lambda: {"key-1": used, "key-2": used}
    tracker.begin(1000)
    tracker.running(in_flight)
    return tracker, clock


@pytest.mark.parametrize(
    ("used", "in_flight", "seconds", "said"),
    [
        (
            0.1,
            8,
            20,
            "the keys were used to 10% of their limits, since no more than 8 calls went at once; --concurrency 72",
        ),
        (0.0, 8, 20, "--concurrency 720 may"),
        (0.6, 8, 20, None),  # used well
        (0.1, 7, 20, None),  # no more were asked for
        (0.1, 8, 5, None),  # too short to tell
    ],
)
async def test_it_is_said_where_as_many_run_as_may_and_the_keys_could_do_more(
    used: float, in_flight: int, seconds: int, said: str | None
) -> None:
    tracker, clock = watching(used, in_flight)
    idle = Idle(tracker, 8, clock=clock)
    async with idle:
        for _ in range(seconds):
            await clock.advance(1.0)
    told = idle.said()
    assert told is None if said is None else said in (told or "")


async def test_keys_without_limits_are_never_idle() -> None:
    tracker, clock = watching(0.0, 8)
    tracker.saturation = None
    idle = Idle(tracker, 8, clock=clock)
    for _ in range(20):
        idle.look()
    assert idle.said() is None
