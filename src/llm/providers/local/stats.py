"""How an engine does, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MEMORY = 5.0  # seconds of work after which a rate counts a third


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """The figures of an engine, over all its models, at one moment.

    Attributes:
        running: Requests that read their prompt or answer.
        waiting: Requests that wait for a place in the batch.
        max_batch: Requests to one model that may run at once.
        max_waiting: Requests beyond one full batch that the engine takes.
        batch_size: Requests in the latest pass of the network.
        blocks_used: Blocks of 32 tokens that requests hold.
        blocks_total: Blocks that there are for them.
        prefix_blocks: Blocks that are kept for prompts that begin alike.
        cached_tokens: Tokens of prompts that did not have to be read, since the engine was made.
        generated_tokens: Tokens made since the engine was made.
        tokens_per_second: Tokens made per second of work, lately; 0 before the first.
        queue_wait: Seconds that a request waited for its place, on average.
        admitted: Requests that got their place since the engine was made.
        waited_seconds: Seconds that they waited for it, all together.
        put_back: How often one that answered had to give its memory to others, and wait, since the engine was made.
        forward_passes: Times that the networks ran since the engine was made.
    """

    running: int = 0
    waiting: int = 0
    max_batch: int = 0
    max_waiting: int = 0
    batch_size: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    prefix_blocks: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    tokens_per_second: float = 0.0
    queue_wait: float = 0.0
    admitted: int = 0
    waited_seconds: float = 0.0
    put_back: int = 0
    forward_passes: int = 0


class Pace:
    """Tokens per second of work; what was long ago counts less."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._lately = (0.0, 0.0)

    def note(self, tokens: int, seconds: float) -> None:
        """Take what one step made, and how long it took."""
        fades = math.exp(-seconds / _MEMORY)
        made, took = self._lately
        self._lately = (made * fades + tokens, took * fades + seconds)

    @property
    def rate(self) -> float:
        """Tokens per second; 0 before the first."""
        made, took = self._lately
        return made / took if took else 0.0
