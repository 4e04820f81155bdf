"""When a provider cannot serve anybody: whose failure it is, how long to pause, and when to give up."""

from __future__ import annotations

from typing import Final

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMException,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMProviderError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.limits.backoff import full_jitter

PATIENCE: Final = 600.0
"""Seconds without one answer after which a provider in trouble is not asked any more."""

_LEAST: Final = 1.0
_MOST: Final = 60.0
_SPREAD: Final = 1.0
"""Seconds over which those come back who were told the same time."""

_SERVERS_OWN: Final = 500

_LASTING: Final = (LLMAuthenticationError, LLMQuotaExceededError, LLMConfigurationError)
_PASSING: Final = (LLMCircuitOpenError, LLMConnectionError, LLMOverloadedError, LLMPoolExhaustedError)


def is_trouble(error: LLMException) -> bool:
    """Return whether a call failed since nobody could be served then; any other failure is the request's own.

    A request that a limit can never fit, a model that its keys may not use, an answer that broke off and time that ran
    out are its own; but not the time that a call spent waiting for a key or a connection.
    """
    match error:
        case LLMStreamInterruptedError():
            return False
        case LLMAuthenticationError(model_only=True):
            return error.retryable  # another key may use it
        case LLMRateLimitError():
            return error.retryable or error.retry_after is not None
        case LLMTimeoutError():
            return error.phase in {"pool", "connect"}
        case _:
            return isinstance(error, (*_PASSING, *_LASTING))


def shows_service(error: LLMException) -> bool:
    """Return whether a failure that is the request's own is a provider's answer, which therefore serves."""
    sent = isinstance(error, LLMProviderError) and error.attempts > 0
    return sent and error.status is not None and error.status < _SERVERS_OWN


class Trouble:
    """What is known of a provider that fails, by all who ask it; every method takes `now`, in monotonic seconds.

    Attributes:
        since: When it began; None while there is none.
    """

    __slots__ = ("_patience", "since")

    def __init__(self, patience: float) -> None:
        """Give up after `patience` seconds without one answer."""
        self._patience = patience
        self.since: float | None = None

    def pause(self, now: float, error: LLMException, attempt: int, dice: float) -> float | None:
        """Return seconds until the request is worth another try; None: give up.

        Args:
            now: The time.
            error: What it failed with, for which `is_trouble` holds.
            attempt: How often this request has failed so, from 1.
            dice: A number from 0 to 1, for the jitter.
        """
        if self.since is None:
            self.since = now
        left = self.since + self._patience - now
        told = error.retry_after
        lasting = isinstance(error, _LASTING) and not error.retryable  # else another key is left
        if lasting or left <= 0.0 or (told is not None and told > self._patience):
            return None
        if told is not None:
            return min(left, max(_LEAST, told) + dice * _SPREAD)
        return min(left, _LEAST + full_jitter(attempt, dice, initial=_LEAST, maximum=_MOST - _LEAST))
