"""Callers of all kinds for so long; then everything is held against the promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from . import sockets
from .books import Books
from .callers import CLOCK, Callers
from .gateway import serving
from .settings import KEYS, configuration, vendors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm.testing import MockUpstream

    from .gateway import Served

MOST_GROWTH: Final = 16 * 1024 * 1024
"""Bytes by which the gateway may have grown at the end beside what it took when it was warm."""

WARM: Final = 120
"""Looks at its memory, a second each, from which on growth can be told from warming up."""

_RELOAD_EVERY: Final = 2.0  # seconds
_TELL_EVERY: Final = 30.0
_PATIENCE: Final = 90.0  # seconds, for the last calls
_TERMINATED: Final = 143
_WRONG: Final = b'{"retry": {"max_attempts": "many"}}'
_WEIGHTS: Final = {
    "whole": 30, "stream": 30, "shaky": 10, "leave": 8, "vectors": 3, "look": 5, "count": 2, "graphql": 4,
    "limited": 5, "forged": 3, "wrong": 4, "huge": 1, "streams": 6, "subscription": 4, "refused": 1, "left": 2,
    "no_http": 1,
}  # fmt: skip


@dataclass
class Report:
    """What happened.

    Attributes:
        seconds: How long the calls took.
        calls: Calls by what they were.
        outcomes: The same by the status that their callers got.
        requests: That the vendors saw.
        faults: Faults that were played, by kind.
        reloads: That took place.
        memory: Bytes that the gateway took, once a second.
        broken: Promises that were not kept, with what was seen.
    """

    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    reloads: int = 0
    memory: list[int] = field(default_factory=list[int])
    broken: list[str] = field(default_factory=list[str])


async def run(
    seconds: float,
    *,
    seed: int = 1,
    callers: int = 24,
    stalls: bool = True,
    tell: Callable[[Report], object] = lambda _: None,
) -> Report:
    """Load a gateway for so long.

    Args:
        seconds: How long.
        seed: Of all dice.
        callers: How many call at once.
        stalls: Whether the provider that fails also stalls, for which its callers wait ten seconds.
        tell: Hears twice a minute how it goes.
    """
    books = Books()
    report = Report(calls=books.calls, outcomes=books.outcomes, broken=books.broken)
    with TemporaryDirectory() as folder:
        async with vendors(seed, stalls=stalls) as servers:
            config = configuration(servers, with_dave=True)
            async with serving(config, Path(folder), books.hear) as served:
                soak = _Soak(served, servers, books, report, Random(seed))  # noqa: S311 - dice of a benchmark
                await soak.load(seconds, callers, tell)
                await soak.close()
    report.reloads = books.reloads
    return report


class _Soak:
    def __init__(
        self, served: Served, servers: Mapping[str, MockUpstream], books: Books, report: Report, random: Random
    ) -> None:
        self._served = served
        self._servers = servers
        self._books = books
        self._report = report
        self._random = random
        self._over = False

    async def load(self, seconds: float, callers: int, tell: Callable[[Report], object]) -> None:
        began = CLOCK.now()
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(each) for each in (self._look(began, tell), self._reload())]
            calling = [group.create_task(self._call(began + seconds)) for _ in range(callers)]
            _, late = await asyncio.wait(calling, timeout=seconds + _PATIENCE)
            if late:
                self._books.breach("each call ends", f"{len(late)} do not")
            self._over = True
            for task in (*late, *beside):
                task.cancel()
        self._report.seconds = CLOCK.now() - began

    async def _call(self, until: float) -> None:
        """Call in one way after the other, each of these with a connection of its own, or one that is kept."""
        async with _session() as session:
            callers = Callers(self._served.url, session, self._books, self._random)
            ways = _ways(callers)
            while CLOCK.now() < until:
                [name] = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
                self._books.calls[name] += 1
                try:
                    await ways[name]()
                except Exception as error:  # noqa: BLE001 - whatever a client may meet is a finding
                    self._books.breach("no client meets what it does not know", f"{name}: {error!r}")

    async def _look(self, began: float, tell: Callable[[Report], object]) -> None:
        told = began
        while True:
            await CLOCK.sleep(1.0)
            self._report.memory.append(self._served.memory)
            self._report.seconds = CLOCK.now() - began
            self._count()
            if CLOCK.now() - told >= _TELL_EVERY:
                told = CLOCK.now()
                tell(self._report)

    async def _reload(self) -> None:
        turn = 0
        while True:
            await CLOCK.sleep(_RELOAD_EVERY / 2)
            turn += 1
            config = configuration(self._servers, with_dave=bool(turn % 2))
            self._served.reload(_WRONG if turn % 8 == 0 else config)

    def _count(self) -> None:
        """Count what came to the vendors, and let go of it."""
        for server in self._servers.values():
            self._report.requests += len(server.requests)
            self._report.faults.update(each.fault for each in server.requests if each.fault is not None)
            server.requests.clear()
            server.probes.clear()

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Hold everything against the promises, when all calls have ended."""
        self._count()
        if not await _settles(lambda: not sum(server.active for server in self._servers.values())):
            self._books.breach("who leaves ends its call upstream", "the vendors still answer")
        async with _session() as session:
            await self._check_held(session)
            page = await self._metrics(session)
        served, books = self._served, self._books
        files = served.files
        self._check_memory()
        await served.end()
        await CLOCK.sleep(0.05)  # the last of its log
        if served.status != _TERMINATED:
            books.breach("SIGTERM ends it", f"its status is {served.status}")
        books.lines[200] -= 1  # of the page itself, which does not count itself
        books.close(page)
        if files > 200:
            books.breach("connections are closed", f"{files} files are open")

    async def _check_held(self, session: aiohttp.ClientSession) -> None:
        callers = Callers(self._served.url, session, self._books, self._random)
        held: dict[str, Any] = {}
        for _ in range(50):
            answer = await callers.fetch("POST", "/graphql", {"query": "{ status }"})
            status = orjson.loads(answer.body)["data"]["status"]
            held = {name: status["pool"][name] for name in ("calls", "waiting") if status["pool"][name]}
            if not held:
                return
            await CLOCK.sleep(0.1)
        self._books.breach("what calls took comes back", repr(held))

    async def _metrics(self, session: aiohttp.ClientSession) -> str:
        headers = {"x-api-key": KEYS["alice"], "x-request-id": (name := self._books.next_id())}
        async with session.get(f"{self._served.url}/v1/metrics", headers=headers) as answer:
            page = await answer.text()
        self._books.answered(name, answer.status)
        return page

    def _check_memory(self) -> None:
        memory = self._report.memory
        if len(memory) < WARM:
            return
        warm = median(memory[len(memory) // 4 : len(memory) // 2])
        grown = median(memory[-len(memory) // 10 :]) - warm
        if grown > MOST_GROWTH:
            self._books.breach("memory is flat", f"it grew by {grown / 2**20:.1f} MiB from {warm / 2**20:.1f} MiB")


def _ways(callers: Callers) -> dict[str, Callable[[], Awaitable[None]]]:
    over_sockets = (sockets.streams, sockets.subscription, sockets.refused, sockets.left, sockets.no_http)
    named = {each.__name__: partial(each, callers) for each in over_sockets}
    return {name: named.get(name) or getattr(callers, name) for name in _WEIGHTS}


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


async def _settles(true: Callable[[], object], *, within: float = 5.0) -> bool:
    until = CLOCK.now() + within
    while not (found := true()) and CLOCK.now() < until:
        await CLOCK.sleep(0.02)
    return bool(found)
