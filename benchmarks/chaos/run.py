"""Calls in waves through all that can go wrong; after each wave everything is held against the promises."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Final

from llm import LLMConfigurationError, LLMManager
from llm.utils.clock import SystemClock

from . import leaks
from .ask import Caller, Outcome
from .plan import planned
from .servers import vendors
from .settings import configuration, courses
from .witness import LEDGER, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .plan import Asked
    from .servers import Vendors

_CLOCK: Final = SystemClock()
_WAVE: Final = 1_000
_AT_ONCE: Final = 64
_PATIENCE: Final = 120.0  # seconds for a wave
_RELOAD_EVERY: Final = 0.2  # seconds
_SHOWN: Final = 5
_BLOCKS_A_CALL: Final = 1.0
"""Blocks of memory that a call may leave for good: what stays is counts, and what the cache is allowed to hold."""


@dataclass
class Report:
    """What happened.

    Attributes:
        calls: How many were made.
        outcomes: For their callers: by `answered`, `left`, `cancelled`, and the names of errors.
        requests: That the vendors saw.
        faults: Faults that were played, by kind.
        sent: Attempts that were sent by the decision logs.
        lost_on_the_way: Of these, those that never came to a vendor.
        reloads: Reloads that were done.
        refused_reloads: Bad configurations that were refused.
        cut: Calls with more decisions than a log holds.
        seconds: That it took.
        blocks: Blocks of memory in use after each wave.
        broken: Promises that were not kept, with what was seen.
    """

    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    sent: int = 0
    lost_on_the_way: int = 0
    reloads: int = 0
    refused_reloads: int = 0
    cut: int = 0
    seconds: float = 0.0
    blocks: list[int] = field(default_factory=list[int])
    broken: list[str] = field(default_factory=list[str])

    def breach(self, promise: str, seen: list[str]) -> None:
        """Note a broken promise where something was seen."""
        if seen:
            more = f" … and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
            self.broken.append(f"{promise}: {'; '.join(seen[:_SHOWN])}{more}")


async def run(
    calls: int, *, seed: int = 1, share: float = 0.2, advance: Callable[[int], object] = lambda _: None
) -> Report:
    """Make so many calls, with faults at this share of the requests; `advance` is told of calls as they end."""
    report = Report()
    started = _CLOCK.now()
    async with vendors(share, seed) as servers:
        before, known = leaks.sockets(), leaks.alive()
        LEDGER.set(ledger := Ledger())
        manager = await LLMManager.open(configuration(servers.servers))
        try:
            chaos = _Chaos(manager, servers, ledger, report, seed, known)
            await chaos.all_waves(calls, advance)
        finally:
            await manager.close(drain=5.0)
        del manager, chaos
        report.breach("sockets are closed", await leaks.settles(partial(_more_sockets, before)))
        left = await leaks.settles(partial(leaks.objects, known, compositions=0))
        report.breach("a closed manager leaves nothing", left)
        report.breach("a closed manager leaves no task", await leaks.settles(leaks.tasks))
    report.requests, report.faults = servers.requests, servers.faults
    report.cut = ledger.cut
    report.seconds = _CLOCK.now() - started
    return report


def _more_sockets(before: int) -> list[str]:
    more = leaks.sockets() - before
    return [f"{more} sockets more than before"] if more > 0 else []


class _Chaos:
    def __init__(  # noqa: PLR0913, PLR0917 - what a run is made of, once
        self,
        manager: LLMManager,
        servers: Vendors,
        ledger: Ledger,
        report: Report,
        seed: int,
        known: Counter[type[object]],
    ) -> None:
        self._manager = manager
        self._servers = servers
        self._ledger = ledger
        self._report = report
        self._known = known  # objects that were there before
        self._random = Random(seed)  # noqa: S311 - dice of a benchmark
        self._outcomes: Counter[str] = Counter()
        self._courses = cycle(courses(servers.servers))

    async def all_waves(self, calls: int, advance: Callable[[int], object]) -> None:
        for number in range(-(-calls // _WAVE)):
            size = min(_WAVE, calls - number * _WAVE)
            await self._wave(planned(size, self._random, name=f"w{number}"), advance)
        self._check_memory()

    async def _wave(self, asked: list[Asked], advance: Callable[[int], object]) -> None:
        report = self._report
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(call: Asked) -> Outcome:
            async with gate:
                outcome = await Caller(self._manager, call).run()
            advance(1)
            return outcome

        over = asyncio.Event()
        disturbing = asyncio.create_task(self._disturb(over))
        tasks = [asyncio.create_task(one(call)) for call in asked]
        _, hanging = await asyncio.wait(tasks, timeout=_PATIENCE)
        over.set()
        await disturbing
        if hanging:
            report.breach("every call ends", [f"{len(hanging)} do not", *leaks.places()])
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging)
        outcomes = [Outcome("lost") if task in hanging else task.result() for task in tasks]
        del tasks
        await self._check(asked, outcomes)

    async def _disturb(self, over: asyncio.Event) -> None:
        """Reload to another configuration now and then, and ask the keys that were refused."""
        while not over.is_set():
            await _CLOCK.sleep(_RELOAD_EVERY)
            await self._manager.health_check()
            await self._reload(next(self._courses))

    async def _reload(self, course: dict[str, Any]) -> None:
        before = self._manager.config
        try:
            await self._manager.reload(course)
        except LLMConfigurationError:
            self._report.refused_reloads += 1
            if self._manager.config is not before:
                self._report.breach("a bad reload changes nothing", ["the configuration is another one"])
        else:
            self._report.reloads += 1

    async def _check(self, asked: list[Asked], outcomes: list[Outcome]) -> None:
        report = self._report
        report.calls += len(asked)
        report.outcomes.update(outcome.kind for outcome in outcomes)
        wrong = [f"{call.text}: {out.wrong}" for call, out in zip(asked, outcomes, strict=True) if out.wrong]
        report.breach("every call ends in its own answer or its own error", wrong)
        await self._manager.reload(configuration(self._servers.servers))  # with all providers
        report.breach("capacity, slots and places come back", await leaks.settles(partial(leaks.held, self._manager)))
        report.breach("the vendors' work ends", await leaks.settles(self._active))
        report.breach("no task is left", await leaks.settles(leaks.tasks))
        self._servers.count()
        self._check_calls(asked, outcomes)
        self._check_attempts()
        self._check_metrics()
        self._ledger.calls.clear()
        self._servers.arrived.clear()
        asked.clear()
        outcomes.clear()
        left = await leaks.settles(partial(leaks.objects, self._known, compositions=1))
        report.breach("no call's objects are left", left)
        gc.collect()
        report.blocks.append(sys.getallocatedblocks())

    def _active(self) -> list[str]:
        return [f"{self._servers.active} requests"] if self._servers.active else []

    def _check_calls(self, asked: list[Asked], outcomes: list[Outcome]) -> None:
        """Each call that began was heard of once, and its outcome is the one that its caller got."""
        begun = Counter(call.text for call, outcome in zip(asked, outcomes, strict=True) if _counts(outcome))
        heard = {text: told.ended for text, told in self._ledger.calls.items()}
        texts = [text for text in begun.keys() | heard.keys() if begun[text] != heard.get(text, 0)]
        self._report.breach(
            "every call is heard of once", [f"{text}: made {begun[text]}, heard {heard.get(text, 0)}" for text in texts]
        )
        self._outcomes.update("cancelled" if out.kind == "left" else out.kind for out in outcomes if _counts(out))
        got, told = dict(self._outcomes), dict(self._ledger.outcomes)
        if got != told:
            self._report.breach("callers and layers see the same outcomes", [f"callers {got}", f"layers {told}"])

    def _check_attempts(self) -> None:
        """The logs account for every request, and every payment for itself."""
        ledger, arrived = self._ledger, self._servers.arrived
        self._report.breach("every paid attempt is settled or refunded once", ledger.broken)
        ledger.broken.clear()
        if ledger.paid != ledger.released:
            self._report.breach("payments and releases", [f"{ledger.paid} paid, {ledger.released} released"])
        wrong: list[str] = []
        for text in arrived.keys() | ledger.calls.keys():
            told = ledger.calls.get(text)
            sent, excused = (0, 0) if told is None else (told.sent, told.excused)
            self._report.sent += sent
            self._report.lost_on_the_way += max(0, sent - arrived[text])
            if not sent - excused <= arrived[text] <= sent:
                wrong.append(f"{text}: {sent} sent, {excused} of them cut off, {arrived[text]} arrived")
        self._report.breach("the logs account for every request", wrong)

    def _check_metrics(self) -> None:
        metrics = self._manager.get_status()["metrics"]
        outcomes = self._outcomes
        told = {name: metrics[name] for name in ("total_requests", "successful_requests", "cancelled_requests")}
        made = {
            "total_requests": outcomes.total(),
            "successful_requests": outcomes["answered"],
            "cancelled_requests": outcomes["cancelled"],
        }
        told |= {"failed_requests": metrics["failed_requests"], "retries": metrics["retries"]}
        made |= {
            "failed_requests": outcomes.total() - outcomes["answered"] - outcomes["cancelled"],
            "retries": self._ledger.retries,
        }
        seen = [f"{name}: {told[name]} told, {made[name]} made" for name in made if told[name] != made[name]]
        self._report.breach("metrics add up", seen)

    def _check_memory(self) -> None:
        blocks = self._report.blocks
        if len(blocks) < 2 * _SHOWN:  # too short a run to tell growth from warming up
            return
        half = len(blocks) // 2
        grown = (blocks[-1] - blocks[half]) / (_WAVE * (len(blocks) - 1 - half))
        if grown > _BLOCKS_A_CALL:
            self._report.breach("memory is flat", [f"{grown:.2f} blocks more with each call"])


def _counts(outcome: Outcome) -> bool:
    # A call to a provider that a reload has taken away is refused by the client, as a name that never was.
    return outcome.begun and outcome.kind != "LLMConfigurationError"
