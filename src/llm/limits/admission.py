"""The queue in front of a provider's keys: who may send now, with which key, and who waits for what.

The shell around the pure limits: it asks all limits of a call in one step and takes all or none, and owns the only
futures and the only timer. Waiters stand in lanes, one per model and set of keys that can ever pay them, so a call that
only the largest key can pay holds up nobody whom another key can serve; and a key that somebody waits for is kept from
all who come after.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

from llm.core.call import CallState
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.keys import no_key_left
from llm.core.standing import Admission

from . import circuits, refusals
from .amounts import amounts_of
from .backlog import behind, behind_keys
from .base import FREE, can_pay
from .flow import Waiter
from .grant import Grant
from .held import Held
from .lanes import Lanes
from .rotation import Choice, Levels, Rotation
from .together import limits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from llm.core.call import Call, Charge, LimitReport, Ticket
    from llm.core.keys import Slot
    from llm.utils.clock import Clock, Timer

    from .base import Binding, Holds, Limit
    from .breaker import Permit
    from .circuits import Circuits
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
        circuits: Circuits | None = None,
    ) -> None:
        """Make the queue; `slots` stand in the order of the configuration."""
        super().__init__(provider, slots, clock=clock, book=book, levels=levels, circuits=circuits)
        self.waiting: int = 0
        self._max_waiting = max_waiting
        self._lanes = Lanes()
        self._held_by_own = Held(provider, self._lanes, self._bound, clock, book.lock)
        self._fitted = self._version()
        self._timer: Timer | None = None
        self._due = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    async def pay(self, call: Call, *, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - the limit is ours
        """Wait until a slot can pay the call's ticket and pay it, which moves the call to `paid`.

        Args:
            call: A call that holds a ticket.
            timeout: Seconds after which waiting ends.

        Raises:
            LLMCircuitOpenError: Its model's breaker refuses; also to who waits, once it does.
            LLMPoolExhaustedError: Too many wait already, or `timeout` passed.
            LLMRateLimitError: It could not be paid before its deadline, even if it stood first.
            LLMException: No key is left; the reason why the last one left.
        """
        ticket = call.ticket
        if ticket is None:
            raise LLMInvalidRequestError("a call without a ticket cannot be paid")
        now = self._clock.now()
        user = self._user(ticket.user)
        found = self._grant(call, ticket, user, now, take=not self.waiting)
        if isinstance(found, Grant):
            return found
        self._refuse_to_wait(ticket, found, now)
        waiter = self._enqueue(call, ticket, user, found, now)
        try:
            async with self._clock.timeout(timeout):
                return await waiter.future
        except TimeoutError:
            raise refusals.waited_too_long(self.provider, ticket, found.bound, timeout or 0.0) from None
        finally:
            if call.state is CallState.QUEUED:
                call.withdrawn(self._clock.now())

    def settle(self, holds: Holds, used: Charge, permit: Permit | None = None) -> None:
        """Correct what was taken, and look who can go now: here, and in all queues on the same accounts."""
        now, amounts = self._clock.now(), amounts_of(used)
        with self._lock:
            for limit, hold in holds:
                amount = amounts[limit.place]  # pyright: ignore[reportUnknownVariableType] # a number, or all units'
                if amount != hold.amount or not limit.timed:  # a place is given back, whatever was used
                    limit.settle(now, hold, amount)
            if self._book.watchers:
                self._book.given_back(limits_of(holds))
            turned = None if permit is None else permit.end(now)
        if permit is not None and turned is not None:
            circuits.log(self.provider, permit.breaker, now)
            self._refuse_where_broken(permit.breaker.model, now)
        if self.waiting:
            self._lanes.recall(limits_of(holds))
            self._pump(now)
        if self._book.sleepers:
            self._book.wake_others(self._look_again_soon, limits_of(holds))

    def learn(self, slot: Slot, holds: Holds, heard: Callable[[], Sequence[LimitReport]], *, closely: bool) -> None:
        """Level the slot's account with what the provider said as it admitted or refused what holds `holds`.

        While nobody waits, what comes thick tells little more than its first, and is not even read.
        """
        account, now = self._accounts[slot], self._clock.now()
        if not (closely or self.waiting or account.listens(now)):
            return
        reports = heard()
        if not reports:
            return
        with self._lock:
            version = account.version
            account.learn(now, holds, reports)
            if self._book.watchers:
                self._book.given_back(account.limits)
        if account.version != version:
            self._limits_changed()
            self._book.wake_others(self._look_again_soon, ())

    def keys_changed(self) -> None:
        """Place all anew: a key left the rotation or came back, or limits changed."""
        for ring in self._rings.values():
            if ring.ladder is not None:
                ring.ladder.forget()
        self._limits_changed()

    def _limits_changed(self) -> None:
        """Place all who wait anew."""
        now = self._clock.now()
        self._fitted = self._version()
        for waiter in self._lanes.clear():
            if waiter.future.done():  # its caller left, and will say so
                continue
            waiter.size = self._size(waiter.ticket)
            if waiter.size.fits:
                self._lanes.place(waiter)
            else:
                found = self._look(waiter.ticket, waiter.user, now)
                waiter.future.set_exception(
                    self._never(waiter.ticket, found.bound)
                    or no_key_left(self.provider, waiter.ticket.model, self.slots)
                )
        self._pump(now)

    def explain(self, ticket: Ticket) -> Admission:
        """Return what would happen to the ticket now; takes nothing."""
        now = self._clock.now()
        broken = self._broken_for(ticket.model, now)
        if broken > 0.0:
            return refusals.seen_open(broken, now)
        user = self._user(ticket.user)
        with self._lock:
            slot, bound, _ = self._look(ticket, user, now)
            bound = max(bound, *self._behind(ticket, user, now), key=lambda bound: bound.seconds)
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
        if self._lanes.leave(waiter) and self.waiting:
            now = self._clock.now()
            self._wake_by(now, now)  # those behind it may be smaller; once for all who leave together

    def move(self, waiter: Waiter) -> None:
        """Place a waiter anew, whose priority changed."""
        if waiter.flow is not None:
            self._lanes.leave(waiter)
            self._lanes.place(waiter)
            self._pump(self._clock.now())

    def close(self, error: Exception) -> None:
        """End all waiting with `error`, in order."""
        for waiter in sorted(self._lanes.clear(), key=lambda waiter: (-waiter.call.priority, waiter.order)):
            if not waiter.future.done():
                waiter.future.set_exception(copy(error))
        self._wake_at(self._clock.now(), math.inf)

    # --- who can pay, and who waits ---------------------------------------------------------------------------------

    def _look(self, ticket: Ticket, user: Account | None, now: float) -> Choice:
        with self._lock:
            return self._choose(ticket.model, amounts_of(ticket.charge), self._shared(user), now)

    def _behind(self, ticket: Ticket, user: Account | None, now: float) -> list[Binding]:
        """Return what those before the ticket in the queue still have to take from each level, and it after them."""
        before = [waiter for waiter in self._lanes if waiter.call.priority >= ticket.priority]
        if not before:
            return [FREE]
        charges = [*(waiter.ticket.charge for waiter in before), ticket.charge]
        of_user = [*(w.ticket.charge for w in before if w.user is user), ticket.charge]
        of_keys = [account.limits for slot, account in self._ring(ticket.model).entries if slot.serves(ticket.model)]
        return [
            behind(self._shared(), charges, now),
            behind(() if user is None else user.limits, of_user, now),
            behind_keys(list(dict.fromkeys(of_keys)), charges, now),
        ]

    def _grant(  # noqa: PLR0913 - what a grant depends on
        self,
        call: Call,
        ticket: Ticket,
        user: Account | None,
        now: float,
        *,
        fits: frozenset[int] | None = None,
        kept: Collection[Account] = (),
        take: bool = True,
    ) -> Grant | Choice:
        """Pay at all levels in one step, or tell what binds; with `take` false only tell.

        Raises:
            LLMCircuitOpenError: The model's breaker refuses.
        """
        model, amounts = ticket.model, amounts_of(ticket.charge)
        with self._lock:
            breaker = None if self._circuits is None else self._circuits.passed(call, model, now)
            payers = self._payers(user)
            binding = () if can_pay(payers, amounts, now) else self._shared(user)
            slot, bound, _ = choice = self._choose(model, amounts, binding, now, fits=fits, kept=kept)
            if slot is None or bound.seconds > 0.0 or not take:
                return choice
            payers += self._accounts[slot].payers
            holds = [(payer, payer.take(now, amounts[payer.place])) for payer in payers]
            permit = None if breaker is None else breaker.permit(now)
        self._ring(model).took(slot)
        grant = Grant(slot, ticket.charge, holds, self, permit)
        call.paid(now, grant)
        if slot.key.trials:
            slot.key.tried_by(call, model)
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

    def _enqueue(self, call: Call, ticket: Ticket, user: Account | None, found: Choice, now: float) -> Waiter:
        self._loop = asyncio.get_running_loop()
        waiter = Waiter(call, ticket, user=user, size=self._size(ticket), future=self._loop.create_future(), queue=self)
        self._held_by_own.check(waiter, now)
        call.queued(now, waiter, refusals.told(found.bound, found.slot))
        self._count(1)
        if self._lanes.place(waiter):
            self._pump(now)
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
        if self._lanes:
            while (due := self._let_one_go(now)) is None:
                pass
            self._wake_at(now, min(due, self._lanes.due()))

    def _let_one_go(self, now: float) -> float | None:
        """Let the first go who can, or step aside, or be refused; else return when time may change that."""
        self._lanes.recall_due(now)
        kept: set[Account] = set()
        due = math.inf
        for waiter in self._lanes.heads():
            if waiter.future.done():  # its caller was cancelled in this very moment, and did not run since
                self._lanes.leave(waiter)
                return None
            if self._refuse_where_broken(waiter.ticket.model, now) or self._steps_aside(waiter, now):
                return None
            found = self._let_go(waiter, now, kept)
            if found is None:
                return None
            slot, bound, look = found
            if slot is None:  # those before it wait for all the keys that it could take
                continue
            never = self._never(waiter.ticket, bound)
            if never is not None:
                self._lanes.leave(waiter)
                waiter.future.set_exception(never)
                return None
            due = min(due, now + look)
            if bound.limit is not None and bound.limit.level != "key":
                break
            kept.add(self._accounts[slot])
        return due

    def _let_go(self, waiter: Waiter, now: float, kept: Collection[Account]) -> Choice | None:
        """Let a waiter go, which returns None, or return what it waits for."""
        found = self._grant(waiter.call, waiter.ticket, waiter.user, now, fits=waiter.size.fits, kept=kept)
        if not isinstance(found, Grant):
            return found
        self._lanes.serve(waiter)
        waiter.future.set_result(found)
        self._count(-1)
        self._refuse_where_broken(waiter.ticket.model, now)  # it may have been the last that is let try
        return None

    def _steps_aside(self, waiter: Waiter, now: float) -> bool:
        """Let others go before one whose user is at a limit of its own, whatever else it waits for, or refuse it."""
        own = self._held_by_own.bound(waiter, now)
        if own.limit is None or own.limit.refuses:
            return False
        refusal = self._held_by_own.refusal(waiter, own, now)
        if refusal is not None:
            self._lanes.leave(waiter)
            waiter.future.set_exception(refusal)
            return True
        self._lanes.step_aside(waiter, own.limit, now + own.seconds if own.timed else math.inf)
        return True

    # --- breakers ----------------------------------------------------------------------------------------------------

    def _refuse_where_broken(self, model: str, now: float) -> bool:
        """Refuse all who wait for a model whose breaker lets nobody through; return whether it does not."""
        if self._circuits is None or self._broken_for(model, now) <= 0.0:
            return False
        for waiter in [waiter for waiter in self._lanes if waiter.ticket.model == model]:
            self._lanes.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(self._circuits.refusal(waiter.call, model, now))
        return True

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
            self._timer = self._clock.call_later(max(0.0, due - now), self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, self._due = None, math.inf
        self._look_again(())

    def _look_again(self, given_back: Iterable[Limit]) -> None:
        if self._version() != self._fitted:
            self._limits_changed()
        else:
            self._lanes.recall(given_back)
            self._pump(self._clock.now())

    def _look_again_soon(self, given_back: Iterable[Limit]) -> None:
        """Look again on the queue's own loop; called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(self._look_again, given_back)
