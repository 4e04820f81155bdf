"""What one decision costs on a queue whose accounts are all full, for few and for many accounts, side by side.

A decision is who goes next as an answer gives its tokens back, or as the next who waits takes a key; time passes as it
does where so many answers run.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from dataclasses import dataclass
from itertools import cycle
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from llm.testing import FakeClock

from .simulate import accounts_of, arrived, queue_of
from .work import make

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm.core.call import Call
    from llm.limits.grant import Grant

    from .work import Job

_JOBS: Final = 1_000  # again and again
_BLOCK: Final = 200
_ROUNDS: Final = 12
_SHORTEST: Final = 1e-3  # seconds
_TAKEN: Final = 0.9


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of a decision.

    Attributes:
        accounts: Among how many.
        cpu_s: CPU seconds; the median of several blocks of decisions, that of the call's record and the loop included.
    """

    accounts: int
    cpu_s: float


class Saturated:
    """A queue where as many calls wait as there are accounts, and each place that becomes free is taken at once."""

    def __init__(self, accounts: int, seed: int) -> None:
        """Make the queue; nothing has begun."""
        work = make(accounts, seed, jobs=_JOBS)
        self._clock = FakeClock()
        self._accounts = accounts_of(work, self._clock.now())
        self._dice = Random(f"{seed} levels")  # noqa: S311 - a benchmark's dice
        self._queue = queue_of(self._accounts, self._clock)
        self._jobs: Iterator[Job] = cycle(work.jobs)
        self._running: list[tuple[float, int, Call, Job]] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self.decisions: int = 0

    async def fill(self) -> None:
        """Leave each account a little, and have calls come until as many wait as there are accounts."""
        now = self._clock.now()
        for limit in [limit for account in self._accounts for limit in account.limits]:
            limit.take(now, self._dice.uniform(_TAKEN, 1.0) * limit.free(now))
        while self._queue.waiting < len(self._accounts):
            self._come()
            await self._clock.advance(0.0)

    async def decide(self, times: int) -> None:
        """Let time pass until so many calls have gone or ended; for each who goes another comes to wait."""
        until = self.decisions + times
        while self.decisions < until:
            for _ in range(self._queue.waiting, len(self._accounts)):
                self._come()
            if self._running:
                ends, _, call, job = heapq.heappop(self._running)
                await self._clock.advance(max(0.0, ends - self._clock.now()))
                call.attempted(self._clock.now(), job.used)
                call.ended(self._clock.now())
                self.decisions += 1
            else:
                await self._clock.advance(_SHORTEST)

    async def leave(self) -> None:
        """Have all leave who wait."""
        for task in self._waiting:
            task.cancel()
        await self._clock.advance(0.0)

    def _come(self) -> None:
        task = asyncio.get_running_loop().create_task(self._pay(next(self._jobs)))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _pay(self, job: Job) -> None:
        call = arrived(job, self._clock.now())
        grant: Grant = await self._queue.pay(call)
        self.decisions += 1
        call.sent(self._clock.now())
        grant.succeeded()
        heapq.heappush(self._running, (self._clock.now() + job.service_s, call.number, call, job))


async def measure(sizes: Sequence[int], seed: int, *, rounds: int = _ROUNDS) -> list[Cost]:
    """Return what a decision costs among so many accounts: block by block in turns, so that all see one machine."""
    queues = [Saturated(accounts, seed) for accounts in sizes]
    for queue in queues:
        await queue.fill()
        await queue.decide(_BLOCK)
    blocks: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for queue, found in zip(queues, blocks, strict=True):
            begun, before = time.process_time(), queue.decisions
            await queue.decide(_BLOCK)
            found.append((time.process_time() - begun) / (queue.decisions - before))
    for queue in queues:
        await queue.leave()
    return [Cost(accounts, median(found)) for accounts, found in zip(sizes, blocks, strict=True)]
