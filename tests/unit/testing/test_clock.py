from __future__ import annotations

import asyncio

import pytest

from llm.testing.clock import FakeClock

HOUR = 3600.0


async def _sleeper(clock: FakeClock, seconds: float, name: str, events: list[str]) -> None:
    await clock.sleep(seconds)
    events.append(f"{name}@{clock.now():g}")


async def test_an_hour_takes_no_time_and_timers_fire_in_order_of_time() -> None:
    clock, events = FakeClock(), list[str]()
    async with asyncio.TaskGroup() as group:
        for seconds, name in ((HOUR, "c"), (1, "a"), (60, "b")):
            group.create_task(_sleeper(clock, seconds, name, events))
        await clock.advance(HOUR)
    assert events == ["a@1", "b@60", "c@3600"]
    assert clock.now() == HOUR
    assert clock.timers == 0


async def test_equal_times_are_first_come_first_served() -> None:
    clock, events = FakeClock(), list[str]()
    async with asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(_sleeper(clock, 5, name, events))
        await clock.advance(5)
    assert events == ["a@5", "b@5", "c@5", "d@5", "e@5"]


async def test_advance_returns_when_all_that_can_run_has_run() -> None:
    clock, events = FakeClock(), list[str]()

    async def chain() -> None:
        for step in range(3):
            await clock.sleep(10)
            for _ in range(20):
                await clock.sleep(0)
            async with asyncio.TaskGroup() as inner:
                inner.create_task(_sleeper(clock, 1, f"inner{step}", events))
            events.append(f"step{step}@{clock.now():g}")

    task = asyncio.create_task(chain())
    await clock.advance(11)
    assert events == ["inner0@11", "step0@11"]
    await clock.advance(100)
    assert events[-1] == "step2@33"
    assert task.done()
    assert clock.now() == 111


async def test_time_moves_only_as_far_as_it_is_told() -> None:
    clock, events = FakeClock(start=100.0), list[str]()
    task = asyncio.create_task(_sleeper(clock, 10, "a", events))
    await clock.advance(9.5)
    assert (events, clock.now()) == ([], 109.5)
    await clock.advance(0.5)
    assert events == ["a@110"]
    await task


async def test_wall_time_goes_with_the_clock() -> None:
    clock = FakeClock(start=50.0, wall=1000.0)
    assert clock.wall() == 1000.0
    await clock.advance(7)
    assert clock.wall() == 1007.0


async def test_a_cancelled_sleep_leaves_no_timer() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.advance(1)
    assert clock.timers == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0


async def test_a_cancelled_callback_is_not_called_even_in_its_own_moment() -> None:
    clock, events = FakeClock(), list[str]()
    second = None

    def first() -> None:
        events.append("first")
        assert second is not None
        second.cancel()

    clock.call_later(5, first)
    second = clock.call_later(5, lambda: events.append("second"))
    await clock.advance(10)
    assert events == ["first"]


async def test_a_callback_due_at_once_needs_no_move() -> None:
    clock, events = FakeClock(), list[str]()
    clock.call_later(0, lambda: events.append("now"))
    await clock.advance(0)
    assert events == ["now"]


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        await FakeClock().advance(-1)


async def test_two_tasks_that_advance_at_once_are_told() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.advance(5))
    await clock.sleep(0)
    with pytest.raises(RuntimeError, match="from one place"):
        await clock.advance(1)
    await task


async def test_timeout_ends_a_body_that_takes_longer() -> None:
    clock = FakeClock()

    async def late() -> str:
        try:
            async with clock.timeout(5):
                await clock.sleep(10)
        except TimeoutError:
            return f"late@{clock.now():g}"
        return "in time"

    task = asyncio.create_task(late())
    await clock.advance(20)
    assert await task == "late@5"
    assert task.cancelling() == 0


async def test_timeout_lets_a_quick_body_go_and_leaves_no_timer() -> None:
    clock = FakeClock()
    async with clock.timeout(5) as limit:
        await clock.sleep(0)
    async with clock.timeout(None) as never:
        await clock.sleep(0)
    assert (limit.expired(), never.expired(), clock.timers) == (False, False, 0)


async def test_timeout_can_be_moved() -> None:
    clock = FakeClock(start=100.0)

    async def body() -> float:
        try:
            async with clock.timeout(None) as limit:
                limit.reschedule(clock.now() + 50)
                limit.reschedule(clock.now() + 3)
                assert limit.when() == 103.0
                await clock.sleep(10)
        except TimeoutError:
            return clock.now()
        return -1.0

    task = asyncio.create_task(body())
    await clock.advance(20)
    assert await task == 103.0


@pytest.mark.parametrize("first", ["timeout", "outer"])
async def test_a_cancellation_in_the_moment_of_the_timeout_is_not_swallowed(first: str) -> None:
    clock = FakeClock()

    limit = clock.timeout(5)

    async def body() -> None:
        async with limit:
            await clock.sleep(10)

    task = asyncio.create_task(body())
    await clock.advance(1)
    limit.reschedule(clock.now())  # it expires in the loop's next round
    if first == "outer":
        task.cancel()
    else:
        asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_an_error_of_the_body_goes_through_an_expired_timeout() -> None:
    clock = FakeClock()

    async def body() -> None:
        async with clock.timeout(5):
            try:
                await clock.sleep(10)
            except asyncio.CancelledError:
                raise KeyError from None

    task = asyncio.create_task(body())
    await clock.advance(6)
    with pytest.raises(KeyError):
        await task
    assert task.cancelling() == 0


async def test_inner_and_outer_timeouts_each_end_their_own_block() -> None:
    clock, events = FakeClock(auto=True), list[str]()
    try:
        async with clock.timeout(10):
            try:
                async with clock.timeout(3):
                    await clock.sleep(100)
            except TimeoutError:
                events.append(f"inner@{clock.now():g}")
            await clock.sleep(100)
    except TimeoutError:
        events.append(f"outer@{clock.now():g}")
    assert events == ["inner@3", "outer@10"]


async def test_auto_moves_when_nothing_else_is_left_to_do() -> None:
    clock, events = FakeClock(auto=True), list[str]()

    async def busy() -> None:
        for _ in range(50):
            await clock.sleep(0)
        events.append(f"busy@{clock.now():g}")

    async with asyncio.TaskGroup() as group:
        group.create_task(_sleeper(clock, HOUR, "late", events))
        group.create_task(_sleeper(clock, 1, "soon", events))
        group.create_task(busy())
    assert events == ["busy@0", "soon@1", "late@3600"]
    await clock.sleep(1)
    assert clock.now() == HOUR + 1


async def test_auto_and_advance_go_together() -> None:
    clock, events = FakeClock(auto=True), list[str]()
    task = asyncio.create_task(_sleeper(clock, 5, "a", events))
    await clock.advance(2)
    assert (events, clock.now()) == ([], 2.0)
    await task
    assert events == ["a@5"]


def test_an_auto_clock_works_in_one_loop_after_another() -> None:
    clock = FakeClock(auto=True)

    async def interrupted() -> None:
        clock.call_later(100, lambda: None)

    asyncio.run(interrupted())
    started = clock.now()
    asyncio.run(clock.sleep(5))
    assert clock.now() == started + 5


async def test_a_loop_that_never_rests_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.testing.clock._ROUNDS", 1_000)  # a hundredth of them, in a hundredth of the time
    clock = FakeClock()

    async def poll() -> None:
        while True:
            await clock.sleep(0)

    task = asyncio.create_task(poll())
    with pytest.raises(RuntimeError, match="come to rest"):
        await clock.advance(1)
    task.cancel()
