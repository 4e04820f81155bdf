"""What calls and attempts came to, as values for whoever shows them elsewhere: by provider and model, and by key."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from .types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

Outcome: TypeAlias = Literal["answered", "cached", "failed", "cancelled"]
"""How a call ended; `cached` is an answer that no provider was asked for."""


class Spread(NamedTuple):
    """How long things took.

    Attributes:
        middles: Seconds in the middle of each bucket that something fell in, ascending; they are 2 % wide.
        counts: How many fell in each.
        seconds: All of them together.
    """

    middles: Sequence[float] = ()
    counts: Sequence[int] = ()
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def at_most(self, bounds: Sequence[float]) -> list[int]:
        """Return how many took at most each of the bounds, in seconds; a bound may be 1 % off."""
        so_far = [0, *accumulate(self.counts)]
        return [so_far[bisect_right(self.middles, bound)] for bound in bounds]


@dataclass(frozen=True, slots=True)
class ModelMeasures:
    """What the calls of one model at one provider came to.

    Attributes:
        provider: Section of the configuration; of an answer that of who gave it.
        model: Model that was asked for; empty for calls that were refused before they could wait for a key, since
            what those name may be anything.
        calls: How many ended in each way.
        errors: How many failed with each exception, by its name.
        retries: Sends after a call's first.
        usage: Tokens, those of answers from the cache left out.
        cost: US dollars; what has no known price counts as nothing.
        durations: Seconds of the calls that were answered, from their start to their end, `answered` and `cached`.
        first_token: Seconds from the sending of a stream to its first chunk.
        queue_wait: Seconds that calls waited for a key; 0 for those that had one at once.
        streamed_tokens: Tokens of the answers that came as streams.
        streaming_seconds: What those took from the first chunk to the end.
        tokens_saved: Tokens that answers from the cache would have taken.
        cost_saved: US dollars that they would have.
    """

    provider: str
    model: str
    calls: dict[Outcome, int]
    errors: dict[str, int]
    retries: int
    usage: TokenUsage
    cost: float
    durations: dict[Outcome, Spread]
    first_token: Spread
    queue_wait: Spread
    streamed_tokens: int
    streaming_seconds: float
    tokens_saved: int = 0
    cost_saved: float = 0.0


@dataclass(frozen=True, slots=True)
class KeyMeasures:
    """What the attempts on one key came to.

    Attributes:
        provider: Section of the configuration.
        key: Fingerprint.
        attempts: How many there were.
        errors: How many failed with each exception, by its name.
    """

    provider: str
    key: str
    attempts: int
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was counted since the manager opened, reloads included.

    Attributes:
        models: By provider and model.
        keys: By provider and key.
    """

    models: list[ModelMeasures] = field(default_factory=list[ModelMeasures])
    keys: list[KeyMeasures] = field(default_factory=list[KeyMeasures])
