"""What many requests came to together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .types import TokenUsage

_NOTHING: Final = TokenUsage()


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What a number of requests came to.

    Attributes:
        requests: Requests.
        usage: Their tokens.
        cost: US dollars; None where a price is unknown.
        seconds: Seconds from the first to the last.
        cache_hits: Requests that the cache answered.
        saturation: Share of the binding limit that they used, 0 to 1.
    """

    requests: int = 0
    usage: TokenUsage = _NOTHING
    cost: float | None = 0.0
    seconds: float = 0.0
    cache_hits: int = 0
    saturation: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Input and output tokens per second; 0 before time has passed."""
        return self.usage.total_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def cache_hit_ratio(self) -> float:
        """Share of requests that the cache answered, 0 to 1."""
        return self.cache_hits / self.requests if self.requests else 0.0
