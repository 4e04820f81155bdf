"""Requests that come when they are due, each answered by a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from benchmarks.local.shape import Answer, Ask, Request
from llm.utils.clock import SystemClock

One: TypeAlias = Callable[[Request, Callable[[], None]], Awaitable[int]]
"""Has one request answered: tells of each piece of text as it comes, and returns how many tokens there were."""

_CLOCK: Final = SystemClock()


def together(one: One) -> Ask:
    """Return what has many answered at the same time."""

    async def ask(requests: Sequence[Request]) -> list[Answer]:
        start = _CLOCK.now()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_timed(one, request, start)) for request in requests]
        return [task.result() for task in running]

    return ask


async def _timed(one: One, request: Request, start: float) -> Answer:
    if request.after:
        await _CLOCK.sleep(request.after)
    begun = _CLOCK.now() - start
    pieces: list[float] = []
    tokens = await one(request, lambda: pieces.append(_CLOCK.now() - start))
    return Answer(begun, pieces, tokens)
