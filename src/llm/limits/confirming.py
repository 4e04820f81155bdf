"""The queue in front of keys whose limits several processes share: what this process could pay, the log must confirm.

A local yes leads to one question to the store, for all accounts that live there. Until its answer the call holds
nothing but its place: it goes on where the log says yes, and else stands where it stood, with the news.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm.core.call import CallState
from llm.core.exceptions import LLMException, LLMInvalidRequestError

from . import refusals
from .admission import AdmissionQueue
from .base import FREE, GUARD, MOMENT, Binding
from .confirmed import NOTHING, ConfirmedGrant, Paid
from .ledger import Resting, Waiting
from .rotation import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from llm.core.call import Call, Charge, LimitReport, Ticket
    from llm.core.keys import Slot
    from llm.utils.clock import Clock

    from .base import Holds
    from .breaker import Permit
    from .circuits import Circuits
    from .flow import Waiter
    from .grant import Grant
    from .memory import Account, AccountBook
    from .replica import Replica
    from .rotation import Levels
    from .sharing import Asked, Question, Sharing

_CLEARLY = 0.005  # of a limit: what a bucket of a minute regains in 0.3 seconds
_BRIEF = 0.005  # seconds: too short to stand in line for


class _NotNowError(Exception):
    """The log said no to a call that stands in no line yet."""


class _Try(NamedTuple):
    """A call that is being asked for.

    Attributes:
        call: The call.
        ticket: What it would pay.
        user: The account of its user's limits; None where there are none.
        slot: With which slot.
        future: Is given the grant, or why there is none.
        waiter: Its place in the queue; None where it stands in none.
    """

    call: Call
    ticket: Ticket
    user: Account | None
    slot: Slot
    future: asyncio.Future[Grant]
    waiter: Waiter | None = None


class ConfirmedQueue(AdmissionQueue):
    """All calls of this process to one provider, whose limits others count on, too."""

    _all_told = False  # what others give back is seen as each account is asked

    def __init__(  # noqa: PLR0913 - what a queue is made of, once
        self,
        provider: str,
        slots: Sequence[tuple[Slot, Account]],
        *,
        clock: Clock,
        book: AccountBook,
        levels: Levels,
        max_waiting: int,
        sharing: Sharing,
        spawn: Callable[..., None],
        circuits: Circuits | None = None,
    ) -> None:
        """Make the queue; `spawn` runs what no call must wait for."""
        super().__init__(
            provider, slots, clock=clock, book=book, levels=levels, max_waiting=max_waiting, circuits=circuits
        )
        self._sharing = sharing
        self._spawn = spawn
        self._priority = 0
        self._full: list[Account] = []
        self._held: dict[Account, Waiter] = {}
        self._aside: dict[Account, Waiter] = {}
        self._stands: set[Replica] = set()
        self._closed: Exception | None = None

    async def pay(self, call: Call, *, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - the limit is ours
        """Wait until a slot can pay the call's ticket and the log confirms it, which moves the call to `paid`.

        Raises:
            LLMConnectionError: The store was lost for too long (`limits.on_store_loss: fail_closed`).
            LLMException: As for a queue whose limits are this process's own.
        """
        ticket = call.ticket
        if ticket is None:
            raise LLMInvalidRequestError("a call without a ticket cannot be paid")
        user = self._user(ticket.user)
        scope = self._clock.timeout(timeout)
        due = None if timeout is None else self._clock.now() + timeout
        try:
            async with scope:
                with self._sharing.loss.patience(scope, due):
                    return await self._confirmed(call, ticket, user)
        except TimeoutError:
            if self._sharing.loss.closed:
                raise refusals.store_lost(self.provider, ticket) from None
            found = self._look(ticket, user, self._clock.now())
            raise refusals.waited_too_long(self.provider, ticket, found.bound, timeout or 0.0) from None
        finally:
            if call.state is CallState.QUEUED:
                call.withdrawn(self._clock.now())

    async def _confirmed(self, call: Call, ticket: Ticket, user: Account | None) -> Grant:
        accounts = self._accounts_of(ticket, user)
        if not self._sharing.knows(accounts):
            await self._sharing.meet(accounts)
        now = self._clock.now()
        if self._circuits is not None:
            with self._lock:
                self._circuits.passed(call, ticket.model, now)
        found = self._look(ticket, user, now)
        if not (self.waiting or self._sharing.loss.closed) and found.slot is not None and found.bound.seconds <= 0.0:
            with suppress(_NotNowError):
                return await self._asked_at_once(call, ticket, user, found.slot)
            now = self._clock.now()
            found = self._look(ticket, user, now)
        self._refuse_to_wait(ticket, found, now)
        return await self._enqueue(call, ticket, user, found, now).future

    async def _asked_at_once(self, call: Call, ticket: Ticket, user: Account | None, slot: Slot) -> Grant:
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._try(_Try(call, ticket, user, slot, future))
        return await future

    def _accounts_of(self, ticket: Ticket, user: Account | None) -> list[Account]:
        """Return all accounts that may have to pay a ticket."""
        of_keys = [account for _, account in self._ring(ticket.model).entries]
        return [*of_keys, *self._levels.shared, *(() if user is None else (user,))]

    # --- asking -------------------------------------------------------------------------------------------------------

    def _try(self, made: _Try) -> None:
        """Ask the log for a call; what is this process's own is taken at once."""
        now, charge, of_key = self._clock.now(), made.ticket.charge, self._accounts[made.slot]
        accounts = [of_key, *self._levels.shared, *(() if made.user is None else (made.user,))]
        replicas: list[Replica] = []
        own: Holds = []
        with self._lock:
            for account in accounts:
                replica = self._sharing.replica(account)
                if replica is None:
                    own += [(limit, limit.take(now, charge[limit.place])) for limit in account.limits]
                elif account.limits or account is of_key:
                    replicas.append(replica)
        self._ring(made.ticket.model).took(made.slot)
        if self._sharing.loss.alone:
            self._answered(made, own, replicas, self._sharing.take_alone(replicas, charge))
        else:
            question = self._sharing.question(replicas, charge, made.ticket.priority)
            self._spawn(self._ask(made, own, question))

    async def _ask(self, made: _Try, own: Holds, question: Question) -> None:
        asked = None
        try:
            asked = await self._sharing.ask(question)
        finally:
            self._answered(made, own, question.replicas, asked)
            if self.waiting:
                self._pump(self._clock.now())

    def _answered(self, made: _Try, own: Holds, replicas: Sequence[Replica], asked: Asked | None) -> None:
        """Let a call go, or have it stand where it stood; one that left meanwhile gives back what it was given."""
        now = self._clock.now()
        if asked is not None and not made.future.done():
            try:
                permit = self._permit(made.call, made.ticket.model, now)
            except LLMException as error:
                made.future.set_exception(error)
            else:
                self._go(made, own, replicas, asked, permit)
                return
        self._undo(own, replicas, asked, now)
        if not made.future.done():
            self._stay(made)

    def _permit(self, call: Call, model: str, now: float) -> Permit | None:
        if self._circuits is None:
            return None
        with self._lock:
            return self._circuits.passed(call, model, now).permit(now)

    def _go(self, made: _Try, own: Holds, replicas: Sequence[Replica], asked: Asked, permit: Permit | None) -> None:
        slot, model = made.slot, made.ticket.model
        paid = Paid(self._sharing, asked.call, replicas, self._sharing.replica(self._accounts[slot]))
        grant = ConfirmedGrant(slot, made.ticket.charge, [*own, *asked.holds], self, permit, paid)
        now = self._clock.now()
        made.call.paid(now, grant)
        if slot.key.trials:
            slot.key.tried_by(made.call, model)
        made.future.set_result(grant)
        if made.waiter is not None:
            self._count(-1)
            self._refuse_where_broken(model, now)

    def _stay(self, made: _Try) -> None:
        if made.waiter is None:
            made.future.set_exception(_NotNowError())
        elif self._closed is not None:
            made.future.set_exception(copy(self._closed))
        else:
            self._lanes.take_back(made.waiter)

    def _undo(self, own: Holds, replicas: Sequence[Replica], asked: Asked | None, now: float) -> None:
        """Give back what was taken."""
        with self._lock:
            for limit, hold in (*own, *(() if asked is None else asked.holds)):
                limit.settle(now, hold, 0.0)
        if asked is not None:
            for replica in replicas:
                self._sharing.ended(replica, asked.call, NOTHING)

    # --- who can pay --------------------------------------------------------------------------------------------------

    def _bound(self, account: Account, charge: Charge, now: float) -> Binding:
        replica = self._sharing.replica(account)
        if replica is None:
            return super()._bound(account, charge, now)
        bound = replica.bound(charge, now, self._priority)
        if bound.seconds > 0.0 and not bound.timed:
            self._full.append(account)
        rest = account.cooling_until - now
        return Binding(rest) if rest > max(bound.seconds, MOMENT) else bound

    def _look(self, ticket: Ticket, user: Account | None, now: float) -> Choice:
        with self._lock:
            return self._seek(ticket, user, now)[0]

    def _seek(
        self,
        ticket: Ticket,
        user: Account | None,
        now: float,
        fits: frozenset[int] | None = None,
        kept: Collection[Account] = (),
    ) -> tuple[Choice, Account | None]:
        """Return the next slot in turn that could pay now, else the one that will first, and the account that binds."""
        self._priority = ticket.priority
        self._full.clear()
        choice = self._first(ticket.model, ticket.charge, now, fits, kept)
        found, binds, full = FREE, None, len(self._full)
        for account in (*self._levels.shared, *(() if user is None else (user,))):
            bound = self._bound(account, ticket.charge, now)
            if bound.seconds > found.seconds:
                found, binds = bound, account
        del self._full[full if found.seconds <= choice.bound.seconds else 0 :]
        if found.seconds <= choice.bound.seconds:
            return choice, None if choice.slot is None else self._accounts[choice.slot]
        return Choice(choice.slot, found, found.seconds if found.timed else math.inf), binds

    def _let_go(self, waiter: Waiter, now: float, kept: Collection[Account]) -> Choice | None:
        with self._lock:
            choice, binds = self._seek(waiter.ticket, waiter.user, now, waiter.size.fits, kept)
        if choice.slot is None:
            return choice
        if choice.bound.seconds > 0.0:
            if binds is not None and (choice.bound.seconds > _BRIEF or not choice.bound.timed):
                self._held.setdefault(binds, waiter)
            for account in self._full:  # nobody knows at which key a place is given back first
                self._held.setdefault(account, waiter)
            return choice
        self._lanes.serve(waiter)
        self._try(_Try(waiter.call, waiter.ticket, waiter.user, choice.slot, waiter.future, waiter))
        return None

    def _steps_aside(self, waiter: Waiter, now: float) -> bool:
        self._priority = waiter.ticket.priority
        steps = super()._steps_aside(waiter, now)
        if steps and waiter.user is not None:
            self._aside[waiter.user] = waiter
        return steps

    def _let_one_go(self, now: float) -> float | None:
        self._held.clear()
        return math.inf if self._sharing.loss.closed else super()._let_one_go(now)

    def _pump(self, now: float) -> None:
        super()._pump(now)
        if not self._sharing.loss.alone and not self._sharing.loss.closed:
            self._stand_in_line()

    def _stand_in_line(self) -> None:
        """Stand in line, for the first who waits for it, at each account that holds somebody up; and no longer else."""
        if not self._lanes:
            self._held.clear()
        self._aside = {user: waiter for user, waiter in self._aside.items() if _is_aside(waiter)}
        stands: set[Replica] = set()
        for account, waiter in (self._held | self._aside).items():
            replica = self._sharing.replica(account)
            if replica is not None:
                stands.add(replica)
                self._sharing.stand(replica, Waiting(waiter.ticket.charge, waiter.call.priority))
        left, self._stands = self._stands - stands, stands
        for replica in left:
            self._leave_line(replica)

    def _count(self, more: int) -> None:
        super()._count(more)
        if not self.waiting and self._stands:  # while the store is lost, too: it is told once it is back
            stands, self._stands = self._stands, set()
            self._held.clear()
            self._aside.clear()
            for replica in stands:
                self._leave_line(replica)

    def _leave_line(self, replica: Replica) -> None:
        """Stand in line no more; another queue of this process, which does so by the same name, stands there anew."""
        self._sharing.stand(replica, None)
        self._book.wake_others(self._look_again_soon, ())

    # --- what becomes of it -------------------------------------------------------------------------------------------

    def learn(self, slot: Slot, holds: Holds, heard: Callable[[], Sequence[LimitReport]], *, closely: bool) -> None:
        """Level the slot's account with what the provider said, once it is known what others had sent by then."""
        account, now = self._accounts[slot], self._clock.now()
        replica = self._sharing.replica(account)
        if not (closely or self.waiting or account.listens(now)):
            return
        told = partial(self._learn, replica, holds, partial(super().learn, slot, holds, heard, closely=closely))
        sent = max([hold.at for _, hold in holds], default=now)
        if closely or replica is None or replica.alone or replica.read_at >= sent + GUARD:
            told()
        else:
            self._sharing.after_news(replica, told)

    def _learn(self, replica: Replica | None, holds: Holds, learn: Callable[[], None]) -> None:
        """Learn, and tell the others what they do not know: that the provider has clearly less than the log says.

        What a refusal tells all are told, once they know what it gave back; anything else who comes later is told.
        """
        if replica is None:
            learn()
            return
        now, limits = self._clock.now(), replica.account.limits
        before, held = [limit.saturation(now) for limit in limits], len(holds)
        learn()
        if len(holds) == held and any(
            limit.saturation(now) - share > _CLEARLY for limit, share in zip(limits, before, strict=True)
        ):
            self._sharing.tell(replica)

    def cool(self, slot: Slot, seconds: float | None) -> float:
        """Rest the slot's account, everywhere, and return for how many seconds."""
        rest = super().cool(slot, seconds)
        replica = self._sharing.replica(self._accounts[slot])
        if replica is not None:
            self._sharing.write(replica, Resting(rest))
        return rest

    def close(self, error: Exception) -> None:
        """End all waiting with `error`, in order."""
        self._closed = error
        super().close(error)
        self._held.clear()
        self._stand_in_line()


def _is_aside(waiter: Waiter) -> bool:
    """Return whether it waits for a limit of its user's."""
    return waiter.flow is not None and waiter.flow.rank is None and not waiter.future.done()
