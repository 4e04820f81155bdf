"""A hundred thousand who wait cost each what a thousand do: CPU seconds, measured side by side in one run."""

# ruff: noqa: ANN401 - fixtures of this room's conftest.py
from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from llm.core.call import Call, Charge, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

MANY = 100_000
FEW = 1_000
ALLOWED = 1.5
Bench = Any


class Cost(NamedTuple):
    """CPU seconds for each who waits: to come, and to leave."""

    enter: float
    leave: float


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


async def cost(works: Callable[[int], Coroutine[Any, Any, object]], count: int) -> Cost:
    """Start so many tasks, which wait, and cancel them all, the latter with the cyclic collector at rest."""
    loop = asyncio.get_running_loop()
    gc.collect()
    begun = time.process_time()
    tasks = [loop.create_task(works(number)) for number in range(count)]
    await one_round()
    entered = time.process_time()
    gc.disable()  # what it does with a hundred thousand tracebacks is not the queue's
    try:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        left = time.process_time()
    finally:
        gc.enable()
    return Cost((entered - begun) / count, (left - entered) / count)


async def one_round() -> None:
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


async def bare(_: int) -> None:
    await asyncio.get_running_loop().create_future()


async def growth(works: Callable[[int], Coroutine[Any, Any, object]]) -> Cost:
    """How many times what each of a few costs each of many does; the few before and after, to see the same machine."""
    few = [await cost(works, FEW) for _ in range(3)]
    many = await cost(works, MANY)
    few += [await cost(works, FEW) for _ in range(3)]
    enter, leave = (sorted(values)[len(values) // 2] for values in zip(*few, strict=True))
    return Cost(many.enter / enter, many.leave / leave)


async def full_queue(bench: Bench) -> Any:
    """A queue whose only key has just been used up."""
    queue = bench.queue(bench.account(requests_per_minute=1, algorithm="sliding_window"), max_waiting=10 * MANY)
    await wait_in(queue, bench.clock)
    return queue


OF_NOBODY = pytest.param(0, marks=pytest.mark.soak, id="of nobody")


@pytest.mark.parametrize("users", [pytest.param(MANY // 10, id="of 10000 users"), OF_NOBODY])
async def test_each_of_100000_waiters_costs_what_each_of_1000_does_to_come_and_to_leave(
    bench: Bench, users: int
) -> None:
    queue = await full_queue(bench)

    def works(number: int) -> Coroutine[Any, Any, object]:
        return wait_in(queue, bench.clock, user=f"user-{number % users}" if users else None)

    ours, tasks_alone = await growth(works), await growth(bare)
    # The cyclic collector makes tasks that only wait dearer too, the more there are.
    assert ours.enter <= ALLOWED * max(1.0, tasks_alone.enter), (ours, tasks_alone)
    assert ours.leave <= ALLOWED, (ours, tasks_alone)
    assert queue.waiting == 0
    assert bench.clock.timers == 0


async def test_a_higher_priority_overtakes_20000_waiters_at_once(bench: Bench) -> None:
    queue = await full_queue(bench)
    loop = asyncio.get_running_loop()
    plain = [loop.create_task(wait_in(queue, bench.clock, user=f"user-{n % 2000}")) for n in range(20_000)]
    await one_round()
    urgent = loop.create_task(wait_in(queue, bench.clock, user="user-0", priority=1))
    await one_round()
    assert queue.waiting == 20_001
    await bench.clock.advance(60.2)
    assert urgent.done()
    assert not any(task.done() for task in plain)
    await bench.clock.advance(60.2)
    assert [task.done() for task in plain[:2]] == [True, False]
    for task in plain:
        task.cancel()
    await asyncio.wait(plain)
    assert queue.waiting == 0
