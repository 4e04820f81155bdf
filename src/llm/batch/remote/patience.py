"""Asking a vendor until it answers: again after what may pass, with longer and longer pauses, and not for ever."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from llm.batch.trouble import FIRST_PATIENCE
from llm.core.exceptions import LLMConnectionError, LLMException, LLMTimeoutError
from llm.limits.backoff import full_jitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.batch.engine import Hearing
    from llm.utils.clock import Clock

    from .values import Pace

_T = TypeVar("_T")


class Patience:
    """What is known of one vendor that fails, by all who ask it in a run."""

    def __init__(
        self, pace: Pace, clock: Clock, tracker: Hearing, *, dice: Callable[[], float] = random.random
    ) -> None:
        """Give up after `pace.patience` seconds without one answer; earlier, where there never was one."""
        self._pace = pace
        self._clock = clock
        self._tracker = tracker
        self._dice = dice
        self._since: float | None = None
        self._served = False

    async def ask(self, asked: Callable[[], Awaitable[_T]]) -> _T:
        """Return what comes of asking; what is asked must do no harm if it is done twice.

        Raises:
            LLMException: It cannot pass, or the vendor was given up.
        """
        attempt = 0
        while True:
            try:
                answer = await asked()
            except LLMException as error:
                attempt += 1
                await self.pause(error, attempt)
            else:
                self._served, self._since = True, None
                return answer

    async def pause(self, error: LLMException, attempt: int) -> None:
        """Wait until it is worth asking again, after the failure number `attempt`.

        Raises:
            LLMException: The failure itself: it cannot pass, or the vendor is given up.
        """
        if not passes(error):
            raise error
        now = self._clock.now()
        self._since = now if self._since is None else self._since
        left = self._since + self._patience(error) - now
        told = error.retry_after or 0.0
        if left <= 0.0 or told > self._pace.patience:
            raise error
        self._tracker.waiting(error.message)
        pause = full_jitter(attempt, self._dice(), initial=self._pace.first, maximum=self._pace.most)
        await self._clock.sleep(min(left, max(told, self._pace.first) + pause))

    def _patience(self, error: LLMException) -> float:
        unreached = not self._served and isinstance(error, LLMConnectionError | LLMTimeoutError)
        return min(self._pace.patience, FIRST_PATIENCE) if unreached else self._pace.patience


def passes(error: LLMException) -> bool:
    """Return whether a failure of the vendor or the network may be gone the next time."""
    return error.retryable or isinstance(error, LLMTimeoutError)
