"""The one owner of repetition: what failed and can succeed is sent again, within bounds.

The exception decides (`retryable`, `retry_after`, `.sent`), never its text. The first attempt runs outside tenacity,
so that a call that succeeds pays nothing for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMException,
    LLMInvalidRequestError,
    LLMQuotaExceededError,
    LLMRateLimitError,
)
from llm.limits.backoff import full_jitter

from .errors import may_have_arrived

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from llm.core.call import Call
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest
    from llm.limits.retry_budget import RetryBudget
    from llm.utils.clock import Clock

_REFUSALS_IN_A_ROW = 10
_AT_ONCE = (LLMRateLimitError, LLMAuthenticationError, LLMQuotaExceededError, LLMInvalidRequestError)
_REWORDINGS = 3  # native schema, forced tool, JSON mode, words


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to repeat, and after how long.

    Attributes:
        max_attempts: Attempts of a call, the first included; refusals for a limit, and of a way to put the
            request, do not count.
        initial_delay: Upper bound of the first wait, in seconds.
        max_delay: Upper bound of every wait, in seconds.
        retry_after_max: Longest wait that a provider may ask for, in seconds.
        after_send: Whether to repeat what may have reached the provider but gave the caller nothing.
    """

    max_attempts: int = 4
    initial_delay: float = 0.5
    max_delay: float = 30.0
    retry_after_max: float = 120.0
    after_send: bool = True


class Rest(Protocol):
    """Returns seconds until one of a model's keys is not cooling."""

    def __call__(self, model: str) -> float:
        """Return the seconds; infinite where no key is left."""
        ...


class RetryMiddleware:
    """Repeats what failed before the caller got anything."""

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        clock: Clock,
        rest: Rest,
        budget: RetryBudget | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Make the layer.

        Args:
            policy: When and how often; None for the defaults.
            clock: Its time.
            rest: How long a model's keys are cooling; the queue's.
            budget: Retries that the provider's calls have together; None for no bound.
            dice: Returns a number from 0 to 1 for the jitter.
        """
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._rest = rest
        self._budget = budget
        self._dice = dice

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass the request on, and again while that can help.

        Raises:
            LLMException: The last attempt's.
        """
        if self._budget is not None:
            self._budget.deposit(self._clock.now() if request.call is None else request.call.started)
        try:
            return await call_next(request)
        except LLMException as error:
            attempts = _Attempts(self._policy, self._rest, self._budget, request, self._clock.now)
            if not attempts.again(error):
                raise
            await self._clock.sleep(attempts.delay(error, self._dice()))
        return await self._repeat(attempts, request, call_next)

    async def _repeat(self, attempts: _Attempts, request: LLMRequest, call_next: CallNext) -> LLMResult:
        from tenacity import AsyncRetrying, retry_if_exception, stop_never  # noqa: PLC0415 - paid for when needed

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return attempts.delay(error, self._dice()) if isinstance(error, LLMException) else 0.0

        retrying = AsyncRetrying(
            sleep=self._clock.sleep,
            stop=stop_never,  # `again` counts, since not every failure counts
            wait=wait,
            retry=retry_if_exception(attempts.again),
            reraise=True,
        )

        async def attempt() -> LLMResult:  # tenacity awaits only what is a coroutine function itself
            return await call_next(request)

        return await retrying(attempt)


class _Attempts:
    """What went wrong with one call so far."""

    def __init__(
        self,
        policy: RetryPolicy,
        rest: Rest,
        budget: RetryBudget | None,
        request: LLMRequest,
        now: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._rest = rest
        self._budget = budget
        self._model = request.model or ""
        self._call: Call | None = request.call
        self._now = now
        self._failures = 0
        self._refusals = 0
        self._reworded = 0

    def again(self, error: BaseException) -> bool:
        """Return whether to repeat; counts the failure."""
        if not isinstance(error, LLMException) or not error.retryable:
            return False
        if self._call is not None and not self._call.retryable:
            return False
        if isinstance(error, LLMRateLimitError):
            self._refusals += 1
            return self._refusals < _REFUSALS_IN_A_ROW and self._rest(self._model) <= self._policy.retry_after_max
        self._refusals = 0
        if isinstance(error, (LLMAuthenticationError, LLMQuotaExceededError)):
            return True  # another key is left, and this one is out: it ends by itself
        if isinstance(error, LLMInvalidRequestError) and self._reworded < _REWORDINGS:
            self._reworded += 1
            return True  # the provider puts the same in other words; it failed at nothing
        self._failures += 1
        return (
            self._failures < self._policy.max_attempts
            and (self._policy.after_send or not may_have_arrived(error))
            and (error.retry_after or 0.0) <= self._policy.retry_after_max
            and self._in_time(error.retry_after or 0.0)
            and self._afford(error)
        )

    def delay(self, error: LLMException, dice: float) -> float:
        """Return seconds to wait before the next attempt.

        None after a refusal, since the queue knows when the next key can pay, none when a key left the rotation, and
        none where the provider puts the same in other words.
        """
        if isinstance(error, _AT_ONCE):
            return 0.0
        if error.retry_after is not None:
            return error.retry_after
        policy = self._policy
        return full_jitter(self._failures, dice, initial=policy.initial_delay, maximum=policy.max_delay)

    def _afford(self, error: LLMException) -> bool:
        """Take the retry from the budget; where that is spent, say so in the error and in the decision log."""
        budget, now = self._budget, self._now()
        if budget is None or budget.withdraw(now):
            return True
        error.message = f"{error.message}; it was not sent again, since {budget.told()}"
        if self._call is not None:
            self._call.note(now, "budget_spent", budget.told())
        return False

    def _in_time(self, seconds: float) -> bool:
        deadline = self._call.deadline if self._call is not None else None
        return deadline is None or self._now() + seconds < deadline
