"""Asking a vendor until it answers: again after what may pass, with longer and longer pauses, and not for ever."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from llm.batch.trouble import Trouble
from llm.core.exceptions import LLMException, LLMTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.batch.engine import Hearing
    from llm.utils.clock import Clock

_T = TypeVar("_T")


class Patience:
    """What is known of one vendor that fails, by all who ask it in a run."""

    def __init__(
        self, seconds: float, clock: Clock, tracker: Hearing, *, dice: Callable[[], float] = random.random
    ) -> None:
        """Give up after `seconds` without one answer."""
        self._trouble = Trouble(seconds)
        self._clock = clock
        self._tracker = tracker
        self._dice = dice

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
                if self._trouble.over():
                    self._tracker.waiting(None)
                return answer

    async def pause(self, error: LLMException, attempt: int) -> None:
        """Wait until it is worth asking again, after the failure number `attempt`.

        Raises:
            LLMException: The failure itself: it cannot pass, or the vendor is given up.
        """
        seconds = self._trouble.pause(self._clock.now(), error, attempt, self._dice()) if passes(error) else None
        if seconds is None:
            raise error
        self._tracker.waiting(error.message)
        await self._clock.sleep(seconds)


def passes(error: LLMException) -> bool:
    """Return whether a failure of the vendor or the network may be gone the next time."""
    return error.retryable or isinstance(error, LLMTimeoutError)
