"""An answer whose time is over, and what it is still good for.

Source: https://www.rfc-editor.org/rfc/rfc5861 (stale-while-revalidate, stale-if-error)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .exceptions import (
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from .stream import LLMResult
from .types import LLMRequest

_OF_THE_PROVIDER: Final = (
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)


@dataclass(slots=True)
class Stale:
    """What the cache leaves with a call about an answer that was over its time.

    Attributes:
        over: Seconds since its time.
        give: Gives the answer, and counts that; None where it may not stand in for one that was asked for in vain.
        renewal: The request that asks for it again, as a call of its own beside this one, since the answer was given
            already; None where it was not.
        begun: Whether somebody took it upon himself to ask.
    """

    over: float
    give: Callable[[], LLMResult] | None = None
    renewal: LLMRequest | None = None
    begun: bool = False

    def instead_of(self, error: BaseException) -> LLMResult | None:
        """Return the answer in place of a failure; None where that is not the provider's, or it must not stand in."""
        return self.give() if self.give is not None and isinstance(error, _OF_THE_PROVIDER) else None
