"""Workers that draw jobs and send them through the real queue, on a virtual clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm.core.call import Call, Charge, Ticket
from llm.core.keys import Key, Slot
from llm.limits.admission import AdmissionQueue, Levels
from llm.limits.memory import Account, AccountBook
from llm.testing import FakeClock, FakeProvider

from .bound import bound_s
from .upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm.utils.clock import Clock

    from .work import Job, Work

MODEL: Final = "m"
_MOST_WAITING: Final = 100_000
TARGET: Final = 1.10
"""The most that finish time over the bound may be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation.

    Attributes:
        accounts: How many there were.
        workers: How many drew jobs.
        seed: What the work was made from.
        jobs: How many there were.
        answered: How many were answered, as the server counts.
        refused: Requests that the server refused.
        finish_s: Virtual seconds until the last answer.
        bound_s: The least that is possible.
        cpu_s: CPU seconds of queue, workers, clock and server together.
    """

    accounts: int
    workers: int
    seed: int
    jobs: int
    answered: int
    refused: int
    finish_s: float
    bound_s: float
    cpu_s: float

    @property
    def ratio(self) -> float:
        """Finish time over the bound."""
        return self.finish_s / self.bound_s

    @property
    def met(self) -> bool:
        """Whether all was done, soon enough, and refused no more often than five of 600."""
        return self.answered == self.jobs and self.ratio <= TARGET and self.refused * 600 <= 5 * self.jobs


async def simulate(work: Work) -> Outcome:
    """Have the workers do all of the work."""
    clock = FakeClock(auto=True)
    upstream = Upstream(work, clock)
    queue = queue_of(accounts_of(work, clock.now()), clock)
    jobs = iter(work.jobs)
    cpu = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(work.workers):
            tasks.create_task(_worker(jobs, queue, upstream, clock))
    return Outcome(
        len(work.limits),
        work.workers,
        work.seed,
        len(work.jobs),
        sum(upstream.admitted),
        upstream.refused,
        finish_s=clock.now(),
        bound_s=bound_s(work),
        cpu_s=time.process_time() - cpu,
    )


def accounts_of(work: Work, now: float) -> list[Account]:
    """Return the accounts, with limits as `runtime` makes them for a vendor that has buckets."""
    accounts = [Account() for _ in work.limits]
    for account, limits in zip(accounts, work.limits, strict=True):
        account.state(now, limits, level="key", bucket=True)
    return accounts


def queue_of(accounts: Iterable[Account], clock: Clock) -> AdmissionQueue:
    """Return a queue over one key for each account."""
    slots: list[tuple[Slot, Account]] = []
    for index, account in enumerate(accounts):
        key = Key(f"key-{index}", FakeProvider, clock=clock, idle_timeout=300.0, max_lifetime=3600.0)
        slots.append((Slot(index, MODEL, key), account))
    return AdmissionQueue("fake", slots, clock=clock, book=AccountBook(), levels=Levels(), max_waiting=_MOST_WAITING)


def arrived(job: Job, now: float) -> Call:
    """Return the call of a job, with its ticket."""
    call = Call(now)
    call.ticketed(now, Ticket(job.charge, MODEL))
    return call


async def _worker(jobs: Iterator[Job], queue: AdmissionQueue, upstream: Upstream, clock: Clock) -> None:
    for job in jobs:
        call = arrived(job, clock.now())
        if call.ticket is not None:
            queue.check(call.ticket)
        while not await _attempt(call, job, queue, upstream, clock):
            pass
        call.ended(clock.now())


async def _attempt(call: Call, job: Job, queue: AdmissionQueue, upstream: Upstream, clock: Clock) -> bool:
    """Send a call once, as the pool does; return whether it was answered."""
    grant = await queue.pay(call)
    call.sent(clock.now())
    answer = await upstream.send(grant.slot.index, job)
    if answer.used is None:
        grant.learn(lambda: answer.reports, closely=True)
        grant.refused(answer.retry_after)
        call.attempted(clock.now(), Charge())
        return False
    grant.succeeded()
    grant.learn(lambda: answer.reports)
    call.attempted(clock.now(), answer.used)
    return True
