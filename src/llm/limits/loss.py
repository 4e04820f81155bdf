"""What holds while the store of the limits is lost: `limits.on_store_loss`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator

    from llm.utils.clock import Clock, Timeout

_logger = logging.getLogger("llm.limits")

OnLoss: TypeAlias = Literal["fail_closed", "fail_open", "share"]

PATIENCE: Final = 30.0
"""Seconds that a call waits for a store that is lost, where `pool.acquire_timeout` is not shorter."""

_MEANING: Final[dict[OnLoss, str]] = {
    "fail_closed": "no call is sent until it is back",
    "fail_open": "calls go on by what this process knows",
    "share": "calls go on within this process's part of the limits",
}


class Loss:
    """Whether the store is lost, how often it was, and who waits for it.

    Attributes:
        policy: What holds meanwhile.
        lost: Whether it is lost now.
        count: How often it was lost.
        without: Calls that were let go without it.
    """

    def __init__(self, policy: OnLoss, clock: Clock) -> None:
        """Start with a store that is there."""
        self.policy: OnLoss = policy
        self.lost: bool = False
        self.count: int = 0
        self.without: int = 0
        self._clock = clock
        self._back: asyncio.Future[None] | None = None
        self._patient: dict[Timeout, float | None] = {}

    @property
    def closed(self) -> bool:
        """Whether nobody may take now."""
        return self.lost and self.policy == "fail_closed"

    @property
    def alone(self) -> bool:
        """Whether calls are decided without the store."""
        return self.lost and self.policy != "fail_closed"

    def begin(self) -> None:
        """Know that the store is lost."""
        self.lost = True
        self.count += 1
        _logger.warning(
            "limits.store: the store is lost: %s (limits.on_store_loss: %s)", _MEANING[self.policy], self.policy
        )
        if self.closed:
            for scope, due in self._patient.items():
                _move(scope, self._bounded(due))

    def end(self) -> None:
        """Know that it is back."""
        self.lost = False
        for scope, due in self._patient.items():
            _move(scope, due)
        _logger.info("limits.store: the store is back, and decides again")
        back, self._back = self._back, None
        if back is not None:
            back.set_result(None)

    async def over(self, pause: float) -> None:
        """Wait until it is back; where it is not known to be lost, for `pause` seconds."""
        if self.lost:
            back = self._back = self._back or asyncio.get_running_loop().create_future()
            await asyncio.shield(back)
        else:
            await self._clock.sleep(pause)

    @contextmanager
    def patience(self, scope: Timeout, due: float | None) -> Generator[None]:
        """Have a scope that ends at `due` end sooner while the store is lost, where calls wait for it."""
        self._patient[scope] = due
        if self.closed:
            scope.reschedule(self._bounded(due))
        try:
            yield
        finally:
            del self._patient[scope]

    def _bounded(self, due: float | None) -> float:
        latest = self._clock.now() + PATIENCE
        return latest if due is None else min(due, latest)


def _move(scope: Timeout, due: float | None) -> None:
    with suppress(RuntimeError):  # it ends in this very moment
        scope.reschedule(due)
