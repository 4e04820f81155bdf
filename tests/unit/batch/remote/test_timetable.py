from __future__ import annotations

from llm.batch.remote.timetable import Timetable
from llm.batch.remote.values import Pace

PACE = Pace(first=1.0, most=10.0, queue=30.0, queue_most=100.0)


def test_looks_come_soon_and_then_more_and_more_seldom() -> None:
    times, now, pauses = Timetable(PACE), 0.0, list[float]()
    assert times.due(1) < 0
    times.sent(1, now)
    for _ in range(6):
        pauses.append(times.due(1) - now)
        now = times.due(1)
        times.looked(1, now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_part_that_is_known_from_before_is_looked_at_at_once() -> None:
    times = Timetable(PACE)
    times.looked(1, 5.0)
    assert times.due(1) == 6.0


def test_a_search_is_put_off_no_longer_than_it_takes_to_settle() -> None:
    times = Timetable(PACE)
    times.later(1, 0.0, 0.25)
    assert times.due(1) == 0.25
    times.later(1, 0.25, None)
    assert times.due(1) == 2.25


def test_a_full_queue_is_tried_more_and_more_seldom_and_when_a_part_is_over() -> None:
    times, now, pauses = Timetable(PACE), 0.0, list[float]()
    for _ in range(4):
        times.full(1, now, None)
        pauses.append(times.due(1) - now)
        now = times.due(1)
    assert pauses == [30.0, 60.0, 100.0, 100.0]
    times.full(1, now, 7.0)
    assert times.due(1) == now + 7.0
    times.forget(2)
    assert times.due(1) < 0
