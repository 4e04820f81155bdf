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

FIRST_PATIENCE: Final = 15.0
"""The same where nobody has ever answered: an address is wrong more often than a provider is down from the start."""

_LEAST: Final = 1.0
_MOST: Final = 60.0
_SPREAD: Final = 1.0
"""Seconds over which those come back who were told the same time."""

_ALONE: Final = 3
"""How often one request may fail while others are answered."""

_SERVERS_OWN: Final = 500

_LASTING: Final = (LLMAuthenticationError, LLMQuotaExceededError, LLMConfigurationError)
_PASSING: Final = (LLMCircuitOpenError, LLMConnectionError, LLMOverloadedError, LLMPoolExhaustedError)
_UNREACHED: Final = (LLMCircuitOpenError, LLMConnectionError, LLMTimeoutError)
_MAY_BE_ITS_OWN: Final = (LLMConnectionError, LLMOverloadedError)


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
        served: How often somebody was answered.
    """

    __slots__ = ("_patience", "served", "since")

    def __init__(self, patience: float) -> None:
        """Give up after `patience` seconds without one answer."""
        self._patience = patience
        self.since: float | None = None
        self.served: int = 0

    def over(self) -> bool:
        """Know that somebody was answered; return whether that ended a trouble."""
        self.served += 1
        ended, self.since = self.since is not None, None
        return ended

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
        patience = self._patience
        if not self.served and isinstance(error, _UNREACHED):
            patience = min(patience, FIRST_PATIENCE)
        left = self.since + patience - now
        told = error.retry_after
        lasting = isinstance(error, _LASTING) and not error.retryable  # else another key is left
        if lasting or left <= 0.0 or (told is not None and told > self._patience):
            return None
        if told is not None:
            return min(left, max(_LEAST, told) + dice * _SPREAD)
        return min(left, _LEAST + full_jitter(attempt, dice, initial=_LEAST, maximum=_MOST - _LEAST))


class Alone:
    """Whether one request fails while others are answered, so that it is the request that kills the connection."""

    __slots__ = ("_failures", "_served", "_trouble")

    def __init__(self, trouble: Trouble) -> None:
        """Begin with a request's first try."""
        self._trouble = trouble
        self._served = trouble.served
        self._failures = 0

    def failed(self, error: LLMException) -> bool:
        """Know of a failure; return whether it is the request's own after all."""
        if not isinstance(error, _MAY_BE_ITS_OWN):
            return False
        self._failures = self._failures + 1 if self._trouble.served > self._served else 0
        self._served = self._trouble.served
        return self._failures >= _ALONE
