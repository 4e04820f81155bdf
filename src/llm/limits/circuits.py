"""The breakers of one provider, and what is said of them: in errors, in the log, in the status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from . import refusals
from .breaker import Breaker, BreakerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import Call
    from llm.core.exceptions import LLMCircuitOpenError

    from .breaker import BreakerPolicy

_logger = logging.getLogger("llm.breaker")

_MANY: Final = 1000
"""Models, above which the breakers of those that nobody calls any more are forgotten."""


class Circuits:
    """A breaker for each model of a provider, made as the model is first called. Who asks holds the lock."""

    def __init__(self, provider: str, policy: BreakerPolicy) -> None:
        """Start with none."""
        self._provider = provider
        self._policy = policy
        self._breakers: dict[str, Breaker] = {}
        self._many = _MANY

    def passed(self, call: Call, model: str, now: float) -> Breaker:
        """Return the model's breaker, where it lets an attempt through.

        Raises:
            LLMCircuitOpenError: It does not; it is noted in the call's decision log.
        """
        breaker = self._breakers.get(model) or self._of(model, now)
        if breaker.closed or breaker.wait(now) <= 0.0:
            return breaker
        raise self.refusal(call, model, now)

    def refusal(self, call: Call, model: str, now: float) -> LLMCircuitOpenError:
        """Return the error of a call that is not sent, and note it in the call's decision log."""
        breaker = self._of(model, now)
        call.note(now, "circuit_open", (breaker.failures, breaker.attempts, breaker.wait(now)))
        return refusals.circuit_open(self._provider, breaker, now)

    def wait(self, model: str, now: float) -> float:
        """Return seconds until a model's attempts are let through; 0 where they are."""
        breaker = self._breakers.get(model)
        return 0.0 if breaker is None else breaker.wait(now)

    def snapshot(self, models: Iterable[str], now: float) -> dict[str, dict[str, Any]]:
        """Return by model the state of these models' breakers, and of all others that are called: JSON values."""
        for model in models:
            self._of(model, now)
        return {model: breaker.snapshot(now) for model, breaker in self._breakers.items()}

    def _of(self, model: str, now: float) -> Breaker:
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= self._many:
                self._breakers = {name: each for name, each in self._breakers.items() if not each.idle(now)}
                self._many = max(_MANY, 2 * len(self._breakers))
            breaker = self._breakers[model] = Breaker(self._policy, model)
        return breaker


def log(provider: str, breaker: Breaker, now: float) -> None:
    """Log what a breaker has just changed to."""
    state, named = breaker.state(now), (provider, breaker.model)
    if state is BreakerState.CLOSED:
        _logger.info("%s/%s serves again: the circuit is closed", *named)
        return
    again = ", and so did an attempt since" if breaker.again else ""
    _logger.warning(
        "%s/%s: %d of %d attempts failed%s: the circuit is open, and no more are made for %g seconds",
        *(*named, breaker.failures, breaker.attempts, again, breaker.policy.open_for),
    )
