from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm.progress.rate import Outlook, Window


def recent(began: float = 0.0) -> Window:
    return Window(began, slots=30, width=1.0)


def worked(*moments: float) -> Outlook:
    outlook = Outlook(0.0)
    for moment in moments:
        outlook.add(moment, 0, 0)
    return outlook


def steady(start: float, until: float, *, a_second: int) -> list[float]:
    return [start + number / a_second for number in range(int((until - start) * a_second))]


def test_a_rate_is_that_of_the_last_seconds_and_not_of_those_before() -> None:
    window = recent(began=100.0)
    for moment in steady(100.0, 200.0, a_second=1):
        window.add(moment, 1, 2)
    for moment in steady(200.0, 240.0, a_second=10):
        window.add(moment, 10, 20)
    rows, read, written = window.rates(240.0, 30.0)
    assert abs(rows - 10) < 0.5
    assert abs(read - 100) < 5
    assert abs(written - 200) < 10


def test_a_pause_longer_than_the_window_is_a_rate_of_zero() -> None:
    window = recent()
    for moment in steady(0.0, 20.0, a_second=5):
        window.add(moment, 1, 1)
    assert window.rates(80.0, 30.0) == (0.0, 0.0, 0.0)
    window.add(80.5, 1, 1)  # in a slot that was used before
    assert 0 < window.rates(81.0, 30.0)[0] < 0.05


def test_the_first_rows_of_all_are_no_enormous_rate() -> None:
    window = recent()
    for _ in range(10):
        window.add(0.001, 0, 0)
    assert window.rates(0.002, 30.0)[0] == 10.0


@given(st.lists(st.floats(0.0, 500.0), max_size=60), st.floats(0.0, 100.0))
def test_no_row_is_counted_twice_and_none_is_lost_while_it_is_recent(moments: list[float], later: float) -> None:
    window = recent()
    for moment in sorted(moments):
        window.add(moment, 1, 1)
    now = max(moments, default=0.0) + later
    first = max(0, int(now) - 29)
    assert round(window.rates(now, 30.0)[0] * max(now - first, 1.0)) == sum(moment >= first for moment in moments)


def test_nobody_knows_the_end_before_anything_ended_or_in_the_first_seconds() -> None:
    assert worked().seconds_left(60.0, done=0, in_flight=8, left=100) is None
    assert worked(0.1, 0.2).seconds_left(1.0, done=2, in_flight=0, left=100) is None


def test_nobody_knows_the_end_while_the_first_round_of_rows_still_runs() -> None:
    outlook = worked(20.0)
    assert outlook.seconds_left(20.0, done=1, in_flight=64, left=1000) is None
    assert outlook.seconds_left(20.0, done=64, in_flight=64, left=1000) is not None


def test_nothing_left_is_the_end() -> None:
    assert worked().seconds_left(0.0, done=0, in_flight=0, left=0) == 0.0


def test_the_end_follows_from_the_recent_rate() -> None:
    outlook = worked(*steady(0.0, 60.0, a_second=10))
    left = outlook.seconds_left(60.0, done=600, in_flight=8, left=1200)
    assert left is not None
    assert 115 < left < 130


def test_a_burst_of_cached_answers_is_soon_forgotten() -> None:
    outlook = worked(*steady(0.0, 1.0, a_second=5000), *steady(1.0, 100.0, a_second=10))
    left = outlook.seconds_left(100.0, done=5990, in_flight=8, left=300)
    assert left is not None
    assert 25 < left < 40


def test_bursts_once_a_minute_give_a_steady_end() -> None:
    """As limits let them go on that are counted by the minute."""
    bursts = [minute * 60 + number / 50 for minute in range(20) for number in range(500)]
    outlook = Outlook(0.0)
    said: list[float] = []
    for moment, after in zip(bursts, [*bursts[1:], 1200.0], strict=True):
        outlook.add(moment, 0, 0)
        for now in range(max(600, int(moment) + 1), int(after)):
            left = outlook.seconds_left(float(now), done=5000, in_flight=8, left=50_000)
            assert left is not None
            said.append(left)
    assert len(said) > 400
    assert 0.7 * 6000 < min(said) <= max(said) < 1.4 * 6000


def test_after_five_minutes_without_a_row_nobody_knows() -> None:
    outlook = worked(*steady(0.0, 60.0, a_second=1))
    assert outlook.seconds_left(400.0, done=60, in_flight=8, left=10) is None
    assert outlook.seconds_left(120.0, done=60, in_flight=8, left=10) is not None


def test_the_burst_that_full_limits_let_through_at_the_start_is_not_expected_again() -> None:
    outlook = worked(*[0.5] * 2000, *(1.0 + number / 33 for number in range(660)))
    left = outlook.seconds_left(21.0, done=2660, in_flight=64, left=900)
    assert left is not None
    assert 24 < left < 31
