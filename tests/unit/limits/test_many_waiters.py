"""Many who wait cost each what few do, in Python's instructions; `benchmarks.waiters` measures a hundred thousand."""

# ruff: noqa: ANN401 - fixtures of this room's conftest.py
from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm.core.call import Call, Charge, Ticket

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

FEW = 100
MANY = 2_000
Bench = Any
Instructions = Any


async def wait_in(queue: Any, clock: Any, *, user: str | None = None, priority: int = 0) -> str:
    now = clock.now()
    call = Call(now, user=user, priority=priority)
    call.ticketed(now, Ticket(Charge(5, 0, 5), "m", user, priority))
    try:
        grant = await queue.pay(call)
        call.sent(clock.now())
        return str(grant.key)
    finally:
        call.ended(clock.now())


async def full_queue(bench: Bench) -> Any:
    """A queue whose only key has just been used up."""
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"), max_waiting=100_000)
    await wait_in(queue, bench.clock)
    return queue


async def one_round() -> None:
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


async def instructions(bench: Bench, counting: Instructions, count: int, users: int) -> tuple[float, float]:
    """What each of so many takes, to come and to leave."""
    queue, loop = await full_queue(bench), asyncio.get_running_loop()
    with counting() as coming:
        tasks = [
            loop.create_task(wait_in(queue, bench.clock, user=f"user-{n % users}" if users else None))
            for n in range(count)
        ]
        await one_round()
    assert queue.waiting == count
    with counting() as leaving:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert queue.waiting == 0
    return coming.count / count, leaving.count / count


@pytest.mark.parametrize("users", [0, 50], ids=["of nobody", "of 50 users"])
async def test_each_of_many_waiters_costs_what_each_of_few_does_to_come_and_to_leave(
    bench: Bench, counting: Instructions, users: int
) -> None:
    few, many = [await instructions(bench, counting, count, users) for count in (FEW, MANY)]
    assert many[0] <= 1.1 * few[0]
    assert many[1] <= 1.1 * few[1]
    assert bench.clock.timers == 0


async def test_a_higher_priority_overtakes_many_waiters_at_once(bench: Bench) -> None:
    queue = await full_queue(bench)
    loop = asyncio.get_running_loop()
    plain = [loop.create_task(wait_in(queue, bench.clock, user=f"user-{n % 200}")) for n in range(MANY)]
    await one_round()
    urgent = loop.create_task(wait_in(queue, bench.clock, user="user-0", priority=1))
    await one_round()
    assert queue.waiting == MANY + 1
    await bench.clock.advance(60.2)
    assert urgent.done()
    assert not any(task.done() for task in plain)
    await bench.clock.advance(60.2)
    assert [task.done() for task in plain[:2]] == [True, False]
    for task in plain:
        task.cancel()
    await asyncio.wait(plain)
    assert queue.waiting == 0
