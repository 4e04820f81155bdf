"""A manager of ours with more or less around a call."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.calls.shape import KEY, MAX_TOKENS, MODELS, PROMPT
from llm import LLMManager

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape
    from llm import LLMClient

_AMPLE: Final = 1_000_000_000
_LEVEL: Final = {
    "requests_per_minute": _AMPLE,
    "tokens_per_minute": _AMPLE,
    "input_tokens_per_minute": _AMPLE,
    "output_tokens_per_minute": _AMPLE,
}
OF_KEY: Final[dict[str, Any]] = {"rate_limits": [_LEVEL]}
"""Limits of a key that are never reached."""
ABOVE: Final[dict[str, Any]] = {"limits": {"global": _LEVEL, "users": {"default": _LEVEL}}}
"""The same of user and process."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A way of ours.

    Attributes:
        section: What the provider's section of the configuration has beside key, model and address.
        above: What the configuration has beside it.
        middleware: The chain; None for the default one.
        user: Who calls.
    """

    section: dict[str, Any] = field(default_factory=dict[str, Any])
    above: dict[str, Any] = field(default_factory=dict[str, Any])
    middleware: tuple[str, ...] | None = None
    user: str | None = None

    @asynccontextmanager
    async def manager(self, root: str, shape: Shape) -> AsyncGenerator[LLMManager]:
        """Make a manager of its own."""
        section = {"base_url": root, "api_keys": [KEY], "models": [MODELS[shape.dialect]], **self.section}
        config = {"providers": {shape.dialect: section}, "pool": {"max_size": 4096}, **self.above}
        async with LLMManager.open(config) as manager:
            yield manager

    @asynccontextmanager
    async def client(self, root: str, shape: Shape) -> AsyncGenerator[LLMClient]:
        """Make a client of a manager of its own."""
        async with self.manager(root, shape) as manager:
            yield manager.get_client(middleware=self.middleware, user=self.user)

    @asynccontextmanager
    async def __call__(self, root: str, shape: Shape) -> AsyncGenerator[Call]:
        """Ask the same again and again."""
        async with self.client(root, shape) as client:

            async def call() -> int:
                return len((await client.complete(PROMPT, max_tokens=MAX_TOKENS)).content)

            async def stream() -> int:
                characters = 0
                async with client.stream_complete(PROMPT, max_tokens=MAX_TOKENS) as chunks:
                    async for chunk in chunks:
                        characters += len(chunk.content)
                return characters

            yield stream if shape.streamed else call
