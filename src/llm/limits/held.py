"""Calls that a limit of their user's own may hold for some seconds only, and what becomes of them: a refusal.

A user's calls that stand in the queue already count as if they went first, whatever they wait for. So what a user may
send in a time is the same whether the keys are busy or not, and a refusal says truly when there is room again.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from llm.core.call import Charge

from . import refusals
from .backlog import behind
from .base import FREE, MOMENT, Binding

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from llm.core.exceptions import LLMRateLimitError
    from llm.utils.clock import Clock

    from .flow import Waiter
    from .lanes import Lanes
    from .memory import Account

    Bound = Callable[[Account, Charge, float], Binding]


class Held:
    """Refuses the calls of one queue that their user's own limits hold for longer than `Call.user_wait`."""

    __slots__ = ("_bound", "_clock", "_lanes", "_lock", "_provider")

    def __init__(self, provider: str, lanes: Lanes, bound: Bound, clock: Clock, lock: threading.RLock) -> None:
        """Look after those in the lanes; `bound` returns what keeps an account from paying, asked under the `lock`."""
        self._provider = provider
        self._lanes = lanes
        self._bound = bound
        self._clock = clock
        self._lock = lock

    def check(self, waiter: Waiter, now: float) -> None:
        """Refuse one that comes and would be held for too long.

        Raises:
            LLMRateLimitError: With the seconds until there is room for it, those before it served.
        """
        wait = waiter.call.user_wait
        if wait is None or waiter.user is None:
            return
        ticket = waiter.ticket
        own = self._own(waiter.user, [*self._lanes.charges_of(ticket), ticket.charge], now)
        if _least(own) > wait:
            raise refusals.held_too_long(self._provider, ticket, own, wait)
        if own.seconds > 0.0:
            self._begin(waiter, wait, now)

    def refusal(self, waiter: Waiter, own: Binding, now: float) -> LLMRateLimitError | None:
        """Return why one that waits is to be held no longer by a limit of its user's own; None: it is to wait on."""
        wait = waiter.call.user_wait
        if wait is None:
            return None
        until = self._begin(waiter, wait, now) if waiter.held_until is None else waiter.held_until
        if now + _least(own) <= until:
            return None
        return refusals.held_too_long(self._provider, waiter.ticket, own, wait)

    def bound(self, waiter: Waiter, now: float) -> Binding:
        """Return what keeps one that waits from paying at its user's own limits."""
        if waiter.user is None:
            return FREE
        with self._lock:
            return self._bound(waiter.user, waiter.ticket.charge, now)

    def _begin(self, waiter: Waiter, wait: float, now: float) -> float:
        timer = self._clock.call_later(wait, partial(self._end, waiter, wait))
        waiter.future.add_done_callback(lambda _: timer.cancel())
        waiter.held_until = now + wait
        return waiter.held_until

    def _end(self, waiter: Waiter, wait: float) -> None:
        """Refuse one that was held for so long, and still is."""
        own = self.bound(waiter, self._clock.now())
        if own.seconds > 0.0 and not waiter.future.done():
            waiter.future.set_exception(refusals.held_too_long(self._provider, waiter.ticket, own, wait))

    def _own(self, user: Account, charges: Sequence[Charge], now: float) -> Binding:
        """Return what keeps the last of a user's charges waiting at the user's own limits, all of them paid in turn."""
        with self._lock:
            bound = self._bound(user, _sum(charges), now)
            if bound.limit is not None and bound.limit.refuses:  # a budget; what is reserved of it may yet come back
                return FREE
            return behind(user.limits, charges, now) if bound.timed and bound.seconds == math.inf else bound


def _least(own: Binding) -> float:
    """Return seconds that it takes at least."""
    return own.seconds if own.timed else min(own.seconds, MOMENT)


def _sum(charges: Sequence[Charge]) -> Charge:
    return charges[0] if len(charges) == 1 else Charge(*map(sum, zip(*charges, strict=True)))
