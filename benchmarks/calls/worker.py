"""Makes calls and says what they cost: a line of JSON on stdin is a turn, one on stdout its answer."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from .server import allow_many_files
from .shape import Shape

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from .shape import Call, Way

_LOOK: Final = 0.5  # seconds
_AT_REST: Final = 0.02  # of a core
_LOOKS: Final = 2
_PAGE: Final = 4096  # bytes
_WARM_STREAMS: Final = 8
_LONGEST: Final = 120.0
"""Seconds that a turn may take."""


def main(group: str) -> None:
    """Take turns until stdin ends."""
    allow_many_files()
    ways: Mapping[str, Way] = import_module(f"{__package__}.ways.{group}").WAYS
    for line in sys.stdin:
        print(json.dumps(turn(ways, json.loads(line))), flush=True)  # noqa: T201 - the way to tell it


def turn(ways: Mapping[str, Way], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what each call of a turn cost, or why it failed."""
    try:
        return {"each": asyncio.run(_bounded(_turn(ways, asked)))}
    except Exception as error:  # noqa: BLE001 - whatever a client raises is its result
        return {"failed": _why(error)}


def _why(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _why(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return " ".join(f"{type(error).__name__}: {error}".split())


async def _bounded(turn: Coroutine[Any, Any, float]) -> float:
    """Return what a turn returns, and end it where it takes too long."""
    task = asyncio.create_task(turn)
    done, _ = await asyncio.wait([task], timeout=_LONGEST)
    if not done:
        task.cancel()
        await asyncio.wait([task], timeout=_LONGEST)
        raise TimeoutError(f"a turn took more than {_LONGEST:.0f} s")
    return task.result()


async def _turn(ways: Mapping[str, Way], asked: dict[str, Any]) -> float:
    shape = Shape(**asked["shape"])
    async with ways[asked["way"]](asked["root"], shape) as call:
        calls: int = asked["calls"]
        return await (_microseconds_each(call, shape, calls) if calls else _bytes_each(call, shape))


async def _microseconds_each(call: Call, shape: Shape, calls: int) -> float:
    """Return the CPU time of a call, or of a chunk, once connections are open and caches are warm."""
    times = max(1, calls // shape.at_once)
    await _all(call, shape, min(shape.at_once, _WARM_STREAMS) if shape.streamed else shape.at_once, 1)
    gc.collect()
    start = time.process_time()
    await _all(call, shape, shape.at_once, times)
    return (time.process_time() - start) / (times * shape.at_once * shape.units) * 1e6


async def _all(call: Call, shape: Shape, at_once: int, times: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(_repeat(call, times, shape.characters))


async def _repeat(call: Call, times: int, characters: int) -> None:
    for _ in range(times):
        if await call() != characters:
            raise RuntimeError("an answer is not whole")


async def _bytes_each(call: Call, shape: Shape) -> float:
    """Return what each of so many streams takes that stand in their middle, beside what the first one loads."""
    await _held(call, shape, 1)
    before = _resident()
    return (await _held(call, shape, shape.at_once) - before) / shape.at_once


async def _held(call: Call, shape: Shape, count: int) -> int:
    tasks = [asyncio.create_task(_repeat(call, 1, shape.characters)) for _ in range(count)]
    busy, spent = _LOOKS, time.process_time()
    while busy:  # nothing comes any more where several looks in a row find nothing done
        ended, _ = await asyncio.wait(tasks, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
        if ended:
            raise RuntimeError(f"a stream ended that was to be held: {ended.pop().exception()!r}")
        now = time.process_time()
        busy = _LOOKS if now - spent > _AT_REST * _LOOK else busy - 1
        spent = now
    gc.collect()
    taken = _resident()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return taken


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    main(sys.argv[1])
