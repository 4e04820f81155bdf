"""CPU time of the same calls made in several ways, in turns, so that all see the same machine."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from .ways import Call, Way

AT_ONCE: Final = 32
_ROOT: Final = Path(__file__).resolve().parents[2]


async def measure(ways: Sequence[Way], base_url: str, *, rounds: int, calls: int) -> dict[str, list[float]]:
    """Return for each way, and each round, the CPU microseconds of one call; the first round is thrown away.

    Args:
        ways: What to compare.
        base_url: Where the server is.
        rounds: How often each has its turn.
        calls: How many calls make a turn.
    """
    async with AsyncExitStack() as stack:
        ready = {way.name: await stack.enter_async_context(way.open(base_url)) for way in ways}
        turns = [
            {name: await _turn(ready[name], calls) for name in _order(list(ready), turn)} for turn in range(rounds + 1)
        ]
    return {way.name: [turn[way.name] for turn in turns[1:]] for way in ways}


def relative(figures: Mapping[str, list[float]], to: str) -> dict[str, float]:
    """Return the median over the rounds of each way's cost, as a multiple of the cost of `to` in the same round."""
    return {
        name: median(one / base for one, base in zip(costs, figures[to], strict=True))
        for name, costs in figures.items()
    }


def added(figures: Mapping[str, list[float]], *, by: str, over: str, unit: str) -> float:
    """Return the median over the rounds of what `by` costs more than `over`, as a part of what `unit` costs."""
    triples = zip(figures[by], figures[over], figures[unit], strict=True)
    return median((with_it - without) / one for with_it, without, one in triples)


@contextmanager
def server() -> Generator[str]:
    """Run the server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "benchmarks.overhead.server"]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None:
            raise RuntimeError("the process was started without a pipe from it")
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


def _order(names: list[str], turn: int) -> list[str]:
    # Whoever is first finds other caches and another heap than the last, so each is first now and then.
    first = turn % len(names)
    return names[first:] + names[:first]


async def _turn(call: Call, calls: int) -> float:
    gc.collect()
    start = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(_repeat(call, calls // AT_ONCE))
    return (time.process_time() - start) / (calls // AT_ONCE * AT_ONCE) * 1e6


async def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        await call()
