"""The queue in front of a provider's keys: who may send now, with which key, and who waits for what.

The shell around the pure limits: it asks all limits of a call in one step and takes all or none, and owns the only
futures and the only timer. Waiters stand in lanes, one per model and limited user, so that a call that waits for its
user's limit holds up nobody else; in a lane a higher priority goes first, then who came first.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

from llm.core.call import CallState
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import Admission

from . import refusals
from .grant import Grant
from .lanes import Lane, Waiter
from .rotation import Choice, Levels, Rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.call import Call, Charge, LimitReport, Ticket
    from llm.core.exceptions import LLMException
    from llm.core.keys import Slot
    from llm.utils.clock import Clock, Timer

    from .base import Holds
    from .memory import Account, AccountBook

__all__ = ["AdmissionQueue", "Levels"]


class AdmissionQueue(Rotation):
    """All calls to one provider, and the slots that can take them."""

    def __init__(  # noqa: PLR0913 - what a queue is made of, once
        self,
        provider: str,
        slots: Sequence[tuple[Slot, Account]],
        *,
        clock: Clock,
        book: AccountBook,
        levels: Levels,
        max_waiting: int,
    ) -> None:
        """Make the queue; `slots` stand in the order of the configuration."""
        super().__init__(provider, slots, clock=clock, book=book, levels=levels)
        self.waiting: int = 0
        self._book = book
        self._max_waiting = max_waiting
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._timer: Timer | None = None
        self._due = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    async def pay(self, call: Call, *, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - the limit is ours
        """Wait until a slot can pay the call's ticket and pay it, which moves the call to `paid`.

        Args:
            call: A call that holds a ticket.
            timeout: Seconds after which waiting ends.

        Raises:
            LLMPoolExhaustedError: Too many wait already, or `timeout` passed.
            LLMRateLimitError: It could not be paid before its deadline, even if it stood first.
            LLMException: No key is left; the reason why the last one left.
        """
        ticket = call.ticket
        if ticket is None:
            raise LLMInvalidRequestError("a call without a ticket cannot be paid")
        now = self._clock.now()
        user = self._user(ticket.user)
        lane = self._lanes.get((ticket.model, id(user)))
        head = lane.head() if lane is not None else None
        first = head is None or (-call.priority, call.number) < head.key[:2]
        found = self._grant(call, ticket, user, now) if first else self._look(ticket, user, now)
        if isinstance(found, Grant):
            return found
        self._refuse_to_wait(ticket, found, now)
        waiter = self._enqueue(call, ticket, user, refusals.told(found.bound), now)
        if first:
            self._wake_by(now, now + found.look)
        try:
            async with self._clock.timeout(timeout):
                return await waiter.future
        except TimeoutError:
            raise refusals.waited_too_long(self.provider, ticket, found.bound, timeout or 0.0) from None
        finally:
            if call.state is CallState.QUEUED:
                call.withdrawn(self._clock.now())

    def settle(self, holds: Holds, used: Charge) -> None:
        """Correct what was taken, and look who can go now: here, and in all queues on the same accounts."""
        now = self._clock.now()
        with self._lock:
            for limit, hold in holds:
                limit.settle(now, hold, getattr(used, limit.unit))
        self._pump(now)
        self._book.wake_others(self._look_again_soon)

    def learn(self, slot: Slot, holds: Holds, reports: Sequence[LimitReport]) -> None:
        """Level the slot's account with what the provider said as it admitted or refused what holds `holds`."""
        with self._lock:
            self._accounts[slot].learn(self._clock.now(), holds, reports)

    def keys_changed(self) -> None:
        """Look again: a key left the rotation or came back."""
        self._pump(self._clock.now())

    def explain(self, ticket: Ticket) -> Admission:
        """Return what would happen to the ticket now; takes nothing."""
        now = self._clock.now()
        user = self._user(ticket.user)
        with self._lock:
            slot, bound, _ = self._look(ticket, user, now)
            limit = bound.limit
            saturation = limit.saturation(now) if limit is not None else 0.0
        return Admission(
            admitted=bound.seconds <= 0.0 and not self.waiting,
            wait_seconds=bound.seconds,
            level=limit.level if limit is not None else None,
            limit=limit.name if limit is not None else None,
            key=slot.key.fingerprint if slot is not None else None,
            saturation=saturation,
            as_of=now,
        )

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out that gave up, or was told why there is no grant."""
        self._count(-1)
        waiter.future.cancel()
        if waiter.future.cancelled():  # else it was taken out, and told
            waiter.lane.forget()
            self._drop_if_empty(waiter.lane)

    def close(self, error: LLMException) -> None:
        """End all waiting with `error`."""
        for lane in list(self._lanes.values()):
            while lane.head() is not None:
                lane.pop().future.set_exception(copy(error))
            self._drop_if_empty(lane)
        self._wake_at(self._clock.now(), math.inf)

    # --- who can pay ------------------------------------------------------------------------------------------------

    def _look(self, ticket: Ticket, user: Account | None, now: float) -> Choice:
        with self._lock:
            return self._choose(ticket.model, self._shared(user), ticket.charge, now)

    def _grant(self, call: Call, ticket: Ticket, user: Account | None, now: float) -> Grant | Choice:
        """Pay at all levels in one step, or tell what binds."""
        shared = self._shared(user)
        with self._lock:
            choice = self._choose(ticket.model, shared, ticket.charge, now)
            slot = choice.slot
            if slot is None or choice.bound.seconds > 0.0:
                return choice
            limits = (*shared, *self._accounts[slot].limits)
            holds = [(limit, limit.take(now, getattr(ticket.charge, limit.unit))) for limit in limits]
        self._took(slot, ticket.model)
        grant = Grant(slot, ticket.charge, holds, self)
        call.paid(now, grant)
        return grant

    def _refuse_to_wait(self, ticket: Ticket, found: Choice, now: float) -> None:
        bound = found.bound
        never = self._never(ticket, bound)
        if never is not None:
            raise never
        if self.waiting >= self._max_waiting:
            raise refusals.too_many_waiting(self.provider, ticket, self.waiting)
        if bound.timed and ticket.deadline is not None and now + bound.seconds > ticket.deadline:
            raise refusals.too_late(self.provider, ticket, bound)

    # --- who waits ---------------------------------------------------------------------------------------------------

    def _enqueue(self, call: Call, ticket: Ticket, user: Account | None, reason: str, now: float) -> Waiter:
        lane = self._lanes.setdefault((ticket.model, id(user)), Lane(ticket.model, user))
        self._loop = asyncio.get_running_loop()
        waiter = Waiter(call, ticket, lane, self._loop.create_future(), self.leave)
        call.queued(now, waiter, reason)
        lane.push(waiter)
        self._count(1)
        return waiter

    def _count(self, more: int) -> None:
        self.waiting += more
        if not self.waiting:
            self._wake_at(self._clock.now(), math.inf)
            self._book.sleepers.discard(self._look_again_soon)
        elif self.waiting == more:
            self._book.sleepers.add(self._look_again_soon)

    def _pump(self, now: float) -> None:
        """Let all go who can, and set the timer for the next who will."""
        if not self.waiting:
            return
        heads = [(head.key, lane) for lane in self._lanes.values() if (head := lane.head()) is not None]
        heads.sort(key=lambda entry: entry[0][:2])
        self._wake_at(now, min([self._pump_lane(lane, now) for _, lane in heads], default=math.inf))

    def _pump_lane(self, lane: Lane, now: float) -> float:
        """Let go who can; return when the first who cannot may be looked at again."""
        while (waiter := lane.head()) is not None:
            found = self._grant(waiter.call, waiter.ticket, lane.user, now)
            if isinstance(found, Grant):
                lane.pop().future.set_result(found)
                self._count(-1)
                continue
            never = self._never(waiter.ticket, found.bound)
            if never is None:
                return now + found.look
            lane.pop().future.set_exception(never)
        self._drop_if_empty(lane)
        return math.inf

    def _drop_if_empty(self, lane: Lane) -> None:
        place = (lane.model, id(lane.user))
        if not lane.heap and self._lanes.get(place) is lane:
            del self._lanes[place]

    # --- when to look again ------------------------------------------------------------------------------------------

    def _wake_by(self, now: float, due: float) -> None:
        if due < self._due:
            self._wake_at(now, due)

    def _wake_at(self, now: float, due: float) -> None:
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due < math.inf:
            self._timer = self._clock.call_later(max(0.0, due - now), self._look_again)

    def _look_again(self) -> None:
        self._timer, self._due = None, math.inf
        self._pump(self._clock.now())

    def _look_again_soon(self) -> None:
        """Look again on the queue's own loop; called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(self.keys_changed)
