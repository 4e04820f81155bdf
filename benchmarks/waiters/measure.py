"""CPU time of calls that come to a full queue and leave it, few and many in turns, so that all see the same machine."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llm.core.call import Call, Charge, Ticket
from llm.core.keys import Key, Slot
from llm.limits.admission import AdmissionQueue, Levels
from llm.limits.memory import Account, AccountBook
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from llm.utils.clock import Clock

MANY: Final = 100_000
FEW: Final = 1_000
_TIMES: Final = 3

Work: TypeAlias = Callable[[int], Coroutine[Any, Any, object]]


class Cost(NamedTuple):
    """CPU of each who waits, to come and to leave: in seconds, or in multiples."""

    enter: float
    leave: float


async def full_queue() -> tuple[AdmissionQueue, Clock]:
    """Return a queue whose only key has just been used up, and its clock, which stands still."""
    clock = FakeClock()
    account = Account()
    account.state(clock.now(), {"requests_per_minute": 1.0}, level="key", bucket=False)
    slot = Slot(0, "m", Key("key", FakeProvider, clock=clock, idle_timeout=300, max_lifetime=3600))
    queue = AdmissionQueue(
        "fake", [(slot, account)], clock=clock, book=AccountBook(), levels=Levels(), max_waiting=10 * MANY
    )
    await _wait_in(queue, clock, user=None)
    return queue, clock


def waiting(queue: AdmissionQueue, clock: Clock, users: int) -> Work:
    """Return what makes a call that waits: of so many users in turn, or of nobody."""
    return lambda number: _wait_in(queue, clock, user=f"user-{number % users}" if users else None)


async def bare(_: int) -> None:
    """Wait for nothing, as any task does."""
    await asyncio.get_running_loop().create_future()


async def growth(works: Work) -> Cost:
    """Return how many times what each of a few costs each of many does; the few are asked before and after."""
    few = [await _cost(works, FEW) for _ in range(_TIMES)]
    many = await _cost(works, MANY)
    few += [await _cost(works, FEW) for _ in range(_TIMES)]
    enter, leave = (sorted(values)[len(values) // 2] for values in zip(*few, strict=True))
    return Cost(many.enter / enter, many.leave / leave)


async def _wait_in(queue: AdmissionQueue, clock: Clock, *, user: str | None) -> None:
    now = clock.now()
    call = Call(now, user=user)
    call.ticketed(now, Ticket(Charge(5, 0, 5), "m", user))
    try:
        await queue.pay(call)
    finally:
        call.ended(clock.now())


async def _cost(works: Work, count: int) -> Cost:
    """Start so many tasks, which wait, and cancel them all, the latter with the cyclic collector at rest."""
    loop = asyncio.get_running_loop()
    gc.collect()
    begun = time.process_time()
    tasks = [loop.create_task(works(number)) for number in range(count)]
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn
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
