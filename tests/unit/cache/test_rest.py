from __future__ import annotations

from llm.cache.rest import Rest


def test_without_a_failure_all_are_admitted() -> None:
    rest = Rest()
    assert all(rest.admits(now) for now in (0.0, 0.0, 5.0))
    rest.worked()
    assert rest.admits(5.0)


def test_after_a_failure_nobody_is_admitted_for_a_second_and_then_one() -> None:
    rest = Rest()
    rest.failed(10.0)
    assert [rest.admits(now) for now in (10.0, 10.9, 11.0, 11.0, 11.5)] == [False, False, True, False, False]
    rest.worked()
    assert rest.admits(11.5)
    assert rest.admits(11.5)


def test_a_try_of_which_nothing_is_heard_blocks_nobody_for_long() -> None:
    rest = Rest()
    rest.failed(0.0)
    assert [rest.admits(now) for now in (1.0, 2.9, 3.0, 3.0)] == [True, False, True, False]


def test_the_pause_doubles_up_to_thirty_seconds_and_begins_anew_after_a_success() -> None:
    rest, now, pauses = Rest(), 0.0, list[float]()
    for _ in range(7):
        rest.failed(now)
        begun = now
        while not rest.admits(now):
            now += 0.5
        pauses.append(now - begun)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    rest.worked()
    rest.failed(now)
    assert rest.admits(now + 1)


def test_failures_of_those_that_were_on_their_way_count_as_one() -> None:
    rest = Rest()
    for late in (0.0, 0.1, 0.4):
        rest.failed(late)
    assert rest.admits(1.0)
