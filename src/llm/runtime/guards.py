"""What keeps a provider that fails from being asked too often: its breakers, and its budget of retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.limits.breaker import BreakerPolicy
from llm.limits.circuits import Circuits
from llm.limits.retry_budget import RetryBudget

if TYPE_CHECKING:
    from threading import RLock

    from llm.core.config import LLMConfig
    from llm.utils.clock import Clock


class Guards:
    """The guards of one configuration; those whose section is as it was go on with what they saw."""

    def __init__(self, config: LLMConfig, *, clock: Clock, lock: RLock, before: Guards | None = None) -> None:
        """Make a guard for each provider, of each kind that is switched on.

        Args:
            config: Which there are.
            clock: Their time.
            lock: Held while a breaker is asked or told.
            before: Those of the configuration before this one.
        """
        self._config = config
        self._clock = clock
        self._lock = lock
        self._circuits: dict[str, Circuits] = {}
        self._budgets: dict[str, RetryBudget] = {}
        for name in config.providers:
            old = before if before is not None and _same_place(before._config, config, name) else None
            self._guard(name, old)

    def circuits(self, provider: str) -> Circuits | None:
        """Return a provider's breakers; None without `circuit_breaker:`."""
        return self._circuits.get(provider)

    def budget(self, provider: str) -> RetryBudget | None:
        """Return a provider's budget of retries; None where they have no bound."""
        return self._budgets.get(provider)

    def status(self, provider: str) -> dict[str, Any]:
        """Return by model the state of a provider's breakers, and of its budget of retries: JSON values."""
        now = self._clock.now()
        circuits, budget = self._circuits.get(provider), self._budgets.get(provider)
        models = [model for model in self._config.providers[provider].models if model != "*"]
        with self._lock:
            breakers = {} if circuits is None else circuits.snapshot(models, now)
        return {"breakers": breakers, "retry_budget": None if budget is None else budget.snapshot(now)}

    def _guard(self, name: str, old: Guards | None) -> None:
        breaker, share = self._config.circuit_breaker, self._config.retry.budget
        if breaker is not None:
            kept = None if old is None or old._config.circuit_breaker != breaker else old.circuits(name)
            self._circuits[name] = kept or Circuits(name, BreakerPolicy(**breaker.model_dump()))
        if share is not None:
            left = None if old is None or old._config.retry.budget != share else old.budget(name)
            self._budgets[name] = left or RetryBudget(share)


def _same_place(old: LLMConfig, new: LLMConfig, provider: str) -> bool:
    was, now = old.providers.get(provider), new.providers[provider]
    return was is not None and (was.type, was.address) == (now.type, now.address)
