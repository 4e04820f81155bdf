"""What a call is, and the ways to make one; needs Python alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Dialect: TypeAlias = Literal["openai", "anthropic"]

DIALECTS: Final[tuple[Dialect, ...]] = ("openai", "anthropic")
MODELS: Final[dict[Dialect, str]] = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5-20251001"}
PROMPT: Final = "What is Python, in a sentence?"
KEY: Final = "sk-benchmark-0001"
MAX_TOKENS: Final = 1024
ANSWER: Final = "It is a language."
PIECES: Final = tuple(f" it is piece {number:03}" for number in range(200))
"""The text of each chunk of a stream: about four words."""
MANY: Final = 1000
"""From so many at once on, a stream has few chunks: together they are many enough."""
FEW_PIECES: Final = 20

BARE: Final = "bare aiohttp and orjson"
ALONE: Final = "our provider alone"
NO_CHAIN: Final = "no middleware"
NO_METRICS: Final = "default chain without metrics, no limits"
NO_LIMITS: Final = "default chain, no limits"
KEY_LIMITS: Final = "default chain, limits of the key"
ALL_LIMITS: Final = "default chain, limits of key, user and global"
HIT: Final = "a hit in the memory cache"
DISK_HIT: Final = "a hit in the disk cache"
REDIS_HIT: Final = "a hit in the Redis cache"
SDK: Final = "default chain, transport: sdk"
VENDOR: Final = "the vendor's own client"
ON_OURS: Final = "the vendor's own client on http_transport()"
LITELLM: Final = "litellm.acompletion"

Group: TypeAlias = Literal["manifold", "vendors", "litellm_peer"]
GROUPS: Final[dict[Group, tuple[str, ...]]] = {
    "manifold": (BARE, ALONE, NO_CHAIN, NO_METRICS, NO_LIMITS, KEY_LIMITS, ALL_LIMITS, HIT, DISK_HIT, REDIS_HIT),
    "vendors": (BARE, SDK, VENDOR, ON_OURS),
    "litellm_peer": (BARE, LITELLM),
}
"""The ways that one process compares, by the module that knows them; each process has bare calls of its own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is called.

    Attributes:
        dialect: Whose.
        streamed: Whether the answer comes as a stream.
        at_once: How many calls are made at the same time.
    """

    dialect: Dialect
    streamed: bool
    at_once: int

    @property
    def pieces(self) -> tuple[str, ...]:
        """What a stream consists of."""
        return PIECES[:FEW_PIECES] if self.at_once >= MANY else PIECES

    @property
    def units(self) -> int:
        """What one call's cost is divided by: its chunks, or one."""
        return len(self.pieces) if self.streamed else 1

    @property
    def characters(self) -> int:
        """How much text a whole answer has."""
        return sum(map(len, self.pieces)) if self.streamed else len(ANSWER)

    @property
    def path(self) -> str:
        """Where the server answers so, below its address."""
        return "/few" if self.streamed and self.at_once >= MANY else ""

    def __str__(self) -> str:
        """Say it as a heading does."""
        return f"{self.dialect}, {'streams' if self.streamed else 'calls'}, {self.at_once:,} at once"


Call: TypeAlias = Callable[[], Awaitable[int]]
"""Makes a call and returns how many characters of text came."""
Way: TypeAlias = Callable[[str, Shape], AbstractAsyncContextManager[Call]]
"""Makes what calls of a shape need, for a server's address without `/v1`."""

FOLDER: Final = "BENCHMARK_FOLDER"
"""The variable of the environment that names the folder where a cache may write."""
REDIS: Final = "BENCHMARK_REDIS"
"""The variable of the environment that has the address of a Redis server."""
