"""How long a user's own limit may hold a call: on a clock that the test moves."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.core.exceptions import LLMPoolExhaustedError, LLMRateLimitError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    Start = Callable[[Coroutine[Any, Any, str]], asyncio.Task[str]]
else:
    Start = Any
Bench = Any  # of this room's conftest.py


def of_user(bench: Bench, **limits: Any) -> Any:
    return bench.account(level="user", **limits)


async def refused(task: asyncio.Task[str]) -> LLMRateLimitError:
    with pytest.raises(LLMRateLimitError) as raised:
        await task
    assert raised.value.scope == "user"
    assert not raised.value.retryable  # nobody but the client asks again
    return raised.value


async def test_a_call_over_its_users_limit_is_refused_at_once_with_the_seconds_until_there_is_room(
    bench: Bench, start: Start
) -> None:
    alice = of_user(bench, requests_per_minute=1, algorithm="sliding_window")
    queue = bench.queue(bench.account(), users={"alice": alice})
    await bench.pay(queue, "first", user="alice", user_wait=0.0)
    await bench.clock.advance(20.0)
    error = await refused(start(bench.pay(queue, "second", user="alice", user_wait=0.0)))
    assert error.limit == "requests_per_minute"
    assert error.retry_after == pytest.approx(40.0, abs=0.2)
    assert "requests_per_minute of the user has room for this call again in 41 seconds" in str(error)
    assert queue.waiting == bench.clock.timers == 0
    assert error.retry_after is not None
    await bench.clock.advance(error.retry_after)
    assert await bench.pay(queue, "third", user="alice", user_wait=0.0) == "key-0"


async def test_one_user_at_its_limit_is_no_other_users_business(bench: Bench, start: Start) -> None:
    alice, bob = (of_user(bench, requests_per_minute=1) for _ in range(2))
    queue = bench.queue(bench.account(), users={"alice": alice, "bob": bob})
    await bench.pay(queue, "a", user="alice", user_wait=0.0)
    await refused(start(bench.pay(queue, "b", user="alice", user_wait=0.0)))
    assert await bench.pay(queue, "c", user="bob", user_wait=0.0) == "key-0"
    assert await bench.pay(queue, "d", user_wait=0.0) == "key-0"


async def test_what_the_limit_frees_in_time_is_waited_for_and_what_not_is_refused(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(), users={"alice": of_user(bench, requests_per_minute=60)})
    for i in range(60):
        await bench.pay(queue, f"taken-{i}", user="alice", user_wait=3.0)
    tasks = [start(bench.pay(queue, f"more-{i}", user="alice", user_wait=3.0)) for i in range(6)]
    await bench.settle()
    assert [task.done() for task in tasks] == [False, False, True, True, True, True]
    assert (await refused(tasks[2])).retry_after == pytest.approx(3.1, abs=0.1)
    assert (await refused(tasks[5])).retry_after == pytest.approx(3.1, abs=0.1)
    await bench.clock.advance(3.0)
    assert [await task for task in tasks[:2]] == ["key-0", "key-0"]
    assert bench.clock.timers == 0


async def test_calls_that_wait_for_a_key_count_as_if_their_user_had_sent_them(bench: Bench, start: Start) -> None:
    users = {"alice": of_user(bench, requests_per_minute=3), "bob": of_user(bench, requests_per_minute=3)}
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"), users=users)
    await bench.pay(queue, "takes the key")
    tasks = [start(bench.pay(queue, f"a-{i}", user="alice", user_wait=0.0)) for i in range(5)]
    await bench.settle()
    assert [task.done() for task in tasks] == [False, False, False, True, True]
    assert (await refused(tasks[3])).retry_after == pytest.approx(20.1, abs=0.2)
    assert (await refused(tasks[4])).retry_after == pytest.approx(20.1, abs=0.2)
    other = start(bench.pay(queue, "b", user="bob", user_wait=0.0))
    await bench.clock.advance(300.0)
    assert [(await task) for task in (*tasks[:3], other)] == ["key-0"] * 4


async def test_one_that_came_to_its_users_limit_while_it_waited_for_a_key_is_refused_then(
    bench: Bench, start: Start
) -> None:
    alice = of_user(bench, requests_per_minute=1, algorithm="sliding_window")
    busy = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"), users={"alice": alice})
    free = bench.queue(bench.account(), users={"alice": alice})
    await bench.pay(busy, "takes the key")
    waits = start(bench.pay(busy, "waits for the key", user="alice", user_wait=0.0))
    await bench.settle()
    await bench.pay(free, "elsewhere", user="alice", user_wait=0.0)
    await bench.clock.advance(61.0)
    assert waits.done()
    assert (await waits) == "key-0" if waits.exception() is None else await refused(waits)


async def test_one_that_others_of_its_user_overtake_elsewhere_is_held_no_longer_than_it_may(
    bench: Bench, start: Start
) -> None:
    alice = of_user(bench, requests_per_minute=60)
    queue, other = (bench.queue(bench.account(), users={"alice": alice}) for _ in range(2))
    for i in range(60):
        await bench.pay(queue, f"taken-{i}", user="alice")
    patient = start(bench.pay(queue, "patient", user="alice", user_wait=2.0))
    await bench.settle()
    for i in range(3):  # each takes what would have been its room, until the rest of its two seconds is too short
        await bench.clock.advance(0.5)
        alice.limits[0].take(bench.clock.now(), 0.5)
        assert patient.done() == (i == 2)
    assert (await refused(patient)).retry_after == pytest.approx(1.0, abs=0.2)
    assert queue.waiting == other.waiting == bench.clock.timers == 0


async def test_a_place_of_the_users_own_is_waited_for_so_long(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(), users={"alice": of_user(bench, concurrent_requests=1)})
    await bench.pay(queue, "runs", user="alice", user_wait=0.0)
    at_once = await refused(start(bench.pay(queue, "at once", user="alice", user_wait=0.0)))
    assert (at_once.limit, at_once.retry_after) == ("concurrent_requests", 1.0)
    tasks = [start(bench.pay(queue, f"held-{i}", user="alice", user_wait=5.0)) for i in range(3)]
    await bench.clock.advance(4.0)
    bench.end("runs")
    await bench.settle()
    assert [task.done() for task in tasks] == [True, False, False]
    await bench.clock.advance(4.0)
    assert [task.done() for task in tasks[1:]] == [True, True]
    for task in tasks[1:]:
        await refused(task)
    assert queue.waiting == bench.clock.timers == 0


async def test_one_that_no_longer_waits_for_its_user_but_for_a_key_waits_on(bench: Bench, start: Start) -> None:
    key = bench.account(requests_per_minute=1, algorithm="sliding_window")
    alice = of_user(bench, requests_per_minute=60)
    queue = bench.queue(key, users={"alice": alice})
    alice.limits[0].take(bench.clock.now(), 60.0)
    await bench.pay(queue, "takes the key")
    held = start(bench.pay(queue, "held", user="alice", user_wait=2.0))
    await bench.clock.advance(10.0)
    assert not held.done()
    await bench.clock.advance(60.0)
    assert await held == "key-0"
    assert bench.clock.timers == 0


async def test_a_user_that_may_wait_as_long_as_it_takes_waits(bench: Bench, start: Start) -> None:
    queue = bench.queue(bench.account(), users={"alice": of_user(bench, requests_per_minute=1)})
    await bench.pay(queue, "first", user="alice")
    second = start(bench.pay(queue, "second", user="alice"))
    await bench.clock.advance(59.0)
    assert not second.done()
    await bench.clock.advance(2.0)
    assert await second == "key-0"


async def test_a_key_is_waited_for_as_ever_and_a_lost_wait_says_so(bench: Bench, start: Start) -> None:
    key = bench.account(requests_per_minute=1)
    queue = bench.queue(key, users={"alice": of_user(bench, requests_per_minute=10)})
    await bench.pay(queue, "first", user="alice", user_wait=0.0)
    waits = start(bench.pay(queue, "second", user="alice", user_wait=0.0, timeout=5.0))
    await bench.clock.advance(6.0)
    with pytest.raises(LLMPoolExhaustedError):
        await waits
    assert bench.clock.timers == 0


async def test_more_than_a_whole_allowance_before_it_is_told_as_the_rate_allows(bench: Bench, start: Start) -> None:
    key = bench.account(requests_per_minute=1)
    queue = bench.queue(key, users={"alice": of_user(bench, requests_per_minute=6)})
    await bench.pay(queue, "takes the key")
    before = [start(bench.pay(queue, f"{i}", user="alice", user_wait=100.0)) for i in range(6)]
    await bench.settle()
    assert not any(task.done() for task in before)
    error = await refused(start(bench.pay(queue, "seventh", user="alice", user_wait=0.0)))
    assert error.retry_after == pytest.approx(10.1, abs=0.2)


async def test_a_budget_that_those_before_it_may_use_up_refuses_nobody_before_it_is(bench: Bench, start: Start) -> None:
    key = bench.account(requests_per_minute=1)
    queue = bench.queue(key, users={"alice": of_user(bench, requests_per_day=2)})
    await bench.pay(queue, "takes the key")
    tasks = [start(bench.pay(queue, f"{i}", user="alice", user_wait=0.0)) for i in range(3)]
    await bench.settle()
    assert not any(task.done() for task in tasks)
    await bench.clock.advance(240.0)
    assert [task.exception() is None for task in tasks] == [True, True, False]
    assert "is used up" in str(await refused(tasks[2]))
