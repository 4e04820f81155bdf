"""What a client is told, and what it tells when it is done. Needs Python alone."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Task:
    """One request.

    Attributes:
        tag: What the answer has to be.
        prompt: The user's text.
        max_tokens: The most output tokens.
    """

    tag: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Work:
    """All that a client knows.

    Attributes:
        base_url: The server's address, as the vendor's own client takes it.
        model: The model.
        keys: The keys.
        groups: Each key's limit group.
        limits: Each key's limits, under their names in `llm.yaml`.
        seconds: When to give up.
        tasks: The requests; all may be sent at once.
    """

    base_url: str
    model: str
    keys: list[str]
    groups: list[str]
    limits: list[dict[str, Any]]
    seconds: float
    tasks: list[Task]


@dataclass(slots=True)
class Result:
    """What came of it.

    Attributes:
        answered: Requests with their own answer.
        swapped: Requests with another one.
        failed: Requests that the client gave up, by the name of the error.
        finish_s: Seconds until the last answer, or until it was stopped.
        cpu_s: CPU seconds.
        stopped: Whether it was stopped before its end.
    """

    answered: int = 0
    swapped: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    finish_s: float = 0.0
    cpu_s: float = 0.0
    stopped: bool = False


Ask: TypeAlias = Callable[[Task], Awaitable[str]]
"""Sends a request and returns the answer's text."""
Connect: TypeAlias = Callable[[Work], AbstractAsyncContextManager[Ask]]
"""Makes a client."""


def main(connect: Connect) -> None:
    """Do the work that comes on stdin."""
    told: dict[str, Any] = json.load(sys.stdin)
    tasks = [Task(**task) for task in told.pop("tasks")]
    work = Work(**told, tasks=tasks)
    json.dump(asdict(asyncio.run(_run(connect, work))), sys.stdout)


async def _run(connect: Connect, work: Work) -> Result:
    result = Result()
    async with connect(work) as ask:
        start, cpu = time.perf_counter(), time.process_time()

        async def one(task: Task) -> None:
            try:
                text = await ask(task)
            except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
                name = type(error).__name__
                result.failed[name] = result.failed.get(name, 0) + 1
                return
            result.answered += text == task.tag
            result.swapped += text != task.tag
            result.finish_s = time.perf_counter() - start

        try:
            async with asyncio.timeout(work.seconds), asyncio.TaskGroup() as tasks:
                for task in work.tasks:
                    tasks.create_task(one(task))
        except TimeoutError:
            result.stopped, result.finish_s = True, time.perf_counter() - start
        result.cpu_s = time.process_time() - cpu
    return result
