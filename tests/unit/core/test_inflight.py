"""Calls that run: waited for, refused once closing, ended when time is up."""

from __future__ import annotations

import asyncio

import pytest

from llm.core.call import Call
from llm.core.exceptions import LLMPoolExhaustedError
from llm.core.inflight import InFlight, Outbox
from llm.testing import FakeClock


def nothing() -> None:
    pass


async def test_waits_for_the_calls_that_run_now_and_for_no_later_ones() -> None:
    clock = FakeClock()
    calls = InFlight(clock)
    first, second, later = Call(0.0), Call(0.0), Call(0.0)
    calls.enter(first, nothing)
    calls.enter(second, nothing)
    task = asyncio.get_running_loop().create_task(calls.wait())
    await clock.advance(0.0)
    calls.enter(later, nothing)
    calls.leave(first)
    await clock.advance(0.0)
    assert not task.done()
    calls.leave(second)
    calls.leave(second)
    await clock.advance(0.0)
    assert await task
    assert len(calls) == 1


async def test_says_when_the_time_was_not_enough() -> None:
    clock = FakeClock()
    calls = InFlight(clock)
    assert await calls.wait(0.0)
    call = Call(0.0)
    calls.enter(call, nothing)
    task = asyncio.get_running_loop().create_task(calls.wait(5.0))
    await clock.advance(5.0)
    assert not await task
    calls.leave(call)
    assert clock.timers == 0


async def test_once_closing_new_calls_are_refused_and_running_ones_go_on() -> None:
    calls = InFlight(FakeClock())
    running = Call(0.0)
    calls.enter(running, nothing)
    calls.closing = True
    calls.enter(running, nothing)
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        calls.enter(Call(0.0), nothing)
    assert len(calls) == 1


async def test_ends_each_call_in_the_way_it_last_told() -> None:
    calls = InFlight(FakeClock())
    ended: list[str] = []
    one, other = Call(0.0), Call(0.0)
    calls.enter(one, lambda: ended.append("as a call"))

    def end_stream() -> None:
        ended.append("as a stream")
        calls.leave(one)

    calls.enter(one, end_stream)
    calls.enter(other, lambda: ended.append("other"))
    calls.end_all()
    assert ended == ["as a stream", "other"]
    assert len(calls) == 1


async def test_drains_what_was_spawned_and_what_that_spawns() -> None:
    outbox, done = Outbox(), list[str]()

    async def inner() -> None:
        done.append("inner")

    async def outer() -> None:
        await FakeClock().sleep(0)
        done.append("outer")
        outbox.spawn(inner())

    outbox.spawn(outer())
    await outbox.drain()
    assert done == ["outer", "inner"]


async def test_a_failure_of_what_was_spawned_stops_nobody_and_is_told_to_the_loop() -> None:
    outbox, told = Outbox(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    async def fail() -> None:
        raise OSError("the socket was closed already")

    outbox.spawn(fail())
    await outbox.drain()
    await FakeClock().sleep(0)
    import gc  # noqa: PLC0415

    gc.collect()
    assert [str(error) for error in told] == ["the socket was closed already"]
