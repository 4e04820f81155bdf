"""The queue in front of a provider's keys: who may send now, with which key, and who waits for what.

The shell around the pure limits: it asks all limits of a call in one step and takes all or none, and owns the only
futures and the only timer. Waiters stand in lanes, one per model and limited user, so that a call that waits for its
user's limit holds up nobody else; in a lane a higher priority goes first, then who came first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm.core.call import Call, CallState, Charge, Ticket
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import Admission

from . import refusals
from .base import FREE, Binding, binding, never_fits
from .grant import Grant
from .lanes import Lane, Waiter
from .memory import Account

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm.core.exceptions import LLMException
    from llm.core.keys import Slot
    from llm.utils.clock import Clock, Timer

    from .base import Limit
    from .grant import Holds
    from .memory import AccountBook

_NEVER = Binding(math.inf)


@dataclass(frozen=True, slots=True)
class Levels:
    """Whose limits a call pays beside its key's.

    Attributes:
        shared: Limits of everything together, and of the provider.
        user: Returns a user's account; None where users have no limits.
    """

    shared: tuple[Account, ...] = ()
    user: Callable[[str], Account | None] | None = None


class AdmissionQueue:
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
        self.provider: str = provider
        self.slots: tuple[Slot, ...] = tuple(slot for slot, _ in slots)
        self.waiting: int = 0
        self._accounts: dict[Slot, Account] = dict(slots)
        self._clock = clock
        self._lock = book.lock
        self._levels = levels
        self._max_waiting = max_waiting
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._serving: dict[str, tuple[Slot, ...]] = {}
        self._turns: dict[str, int] = {}
        self._timer: Timer | None = None
        self._due = math.inf

    def models(self) -> tuple[str, ...]:
        """Return the models that the slots name, in their order."""
        return tuple(dict.fromkeys(slot.model for slot in self.slots if slot.model != "*"))

    def choose_model(self) -> str:
        """Return a model for a call that names none: by turns over those that can pay now, else over all.

        Raises:
            LLMInvalidRequestError: The slots take any model, so the call must name one.
        """
        now = self._clock.now()
        models = self.models()
        if not models:
            raise LLMInvalidRequestError(
                f"provider {self.provider!r} takes any model, so a call must name one; pass model=…",
                provider=self.provider,
            )
        turn = self._turns.get("", 0)
        ordered = [models[(turn + offset) % len(models)] for offset in range(len(models))]
        free = (m for m in ordered if len(ordered) > 1 and self._best(m, (), Charge(), now)[1] is FREE)
        chosen = next(free, ordered[0])
        self._turns[""] = models.index(chosen) + 1
        return chosen

    def check(self, ticket: Ticket) -> None:
        """Refuse what can never be paid, whatever the wait.

        Raises:
            LLMInvalidRequestError: No slot has the model; names those there are.
            LLMRateLimitError: The request is larger than a limit, or a limit per day or in dollars is used up.
        """
        slots = self._slots(ticket.model)
        shared = self._shared(ticket.user)
        over = never_fits(shared, ticket.charge)
        if over is None:
            overs = [never_fits(self._accounts[slot].limits, ticket.charge) for slot in slots]
            over = overs[0] if None not in overs else None
        if over is not None:
            raise refusals.too_large(self.provider, ticket, over)
        self._check_refusing(ticket, slots, shared)

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
        if head is None or (-call.priority, call.number) < head.key:
            granted = self._grant(call, ticket, user, now)
            if isinstance(granted, Grant):
                return granted
        else:
            granted = self._best(ticket.model, self._shared(ticket.user), ticket.charge, now)[1]
        self._refuse_to_wait(ticket, granted, now)
        waiter = self._enqueue(call, ticket, user, granted, now)
        try:
            async with self._clock.timeout(timeout):
                return await waiter.future
        except TimeoutError:
            if timeout is None or call.state is not CallState.QUEUED:
                raise
            raise refusals.waited_too_long(self.provider, ticket, granted, timeout) from None
        finally:
            if call.state is CallState.QUEUED:
                call.withdrawn(self._clock.now())

    def settle(self, holds: Holds, used: Charge) -> None:
        """Correct what was taken, and look who can go now."""
        now = self._clock.now()
        with self._lock:
            for limit, hold in holds:
                limit.settle(now, hold, getattr(used, limit.unit))
        if self.waiting:
            self._pump(now)

    def cool(self, slot: Slot, seconds: float | None) -> float:
        """Rest the slot's account, and return for how many seconds; None: the provider named no time."""
        return self._accounts[slot].cool(self._clock.now(), seconds)

    def succeeded(self, slot: Slot) -> None:
        """Know that the slot's account is served again."""
        self._accounts[slot].strikes = 0

    def keys_changed(self) -> None:
        """Look again: a key left the rotation or came back."""
        self._pump(self._clock.now())

    def usable(self, model: str) -> bool:
        """Return whether a key is left for `model`."""
        return any(slot.serves(model) for slot in self._serving_slots(model))

    def rest(self, model: str) -> float:
        """Return seconds until one of the model's keys is not cooling; infinite where no key is left."""
        rests = [self.cooling(slot) for slot in self._serving_slots(model) if slot.serves(model)]
        return min(rests, default=math.inf)

    def explain(self, ticket: Ticket) -> Admission:
        """Return what would happen to the ticket now; takes nothing."""
        now = self._clock.now()
        slot, bound = self._best(ticket.model, self._shared(ticket.user), ticket.charge, now)
        limit = bound.limit
        return Admission(
            admitted=bound.seconds <= 0.0 and not self.waiting,
            wait_seconds=bound.seconds,
            level=limit.level if limit is not None else None,
            limit=limit.name if limit is not None else None,
            key=slot.key.fingerprint if slot is not None else None,
            saturation=limit.saturation(now) if limit is not None else 0.0,
            as_of=now,
        )

    def saturation(self, slot: Slot) -> dict[str, float]:
        """Return how full each limit of the slot's account is, 0 to 1, by its field's name."""
        now = self._clock.now()
        return {limit.name: round(limit.saturation(now), 4) for limit in self._accounts[slot].limits}

    def cooling(self, slot: Slot) -> float:
        """Return seconds that the slot's account still rests."""
        return max(0.0, self._accounts[slot].cooling_until - self._clock.now())

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out."""
        if not waiter.future.done():
            waiter.future.cancel()
        self.waiting -= 1
        ticket = waiter.call.ticket
        if ticket is not None:
            lane = self._lanes.get((ticket.model, id(self._user(ticket.user))))
            if lane is not None:
                lane.forget()
                self._drop_if_empty(lane)

    def close(self, error: LLMException) -> None:
        """End all waiting with `error`."""
        for lane in list(self._lanes.values()):
            self._fail(lane, error)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- who can pay ------------------------------------------------------------------------------------------------

    def _serving_slots(self, model: str) -> tuple[Slot, ...]:
        slots = self._serving.get(model)
        if slots is None:
            slots = tuple(slot for slot in self.slots if slot.model in (model, "*"))
            if slots:  # only what exists is kept, so that wrong names cost no memory
                self._serving[model] = slots
        return slots

    def _slots(self, model: str) -> tuple[Slot, ...]:
        slots = self._serving_slots(model)
        if not slots:
            raise refusals.no_such_model(self.provider, model, self.models())
        return slots

    def _user(self, user: str | None) -> Account | None:
        return self._levels.user(user) if user is not None and self._levels.user is not None else None

    def _shared(self, user: str | None) -> tuple[Limit, ...]:
        account = self._user(user)
        accounts = (*self._levels.shared, account) if account is not None else self._levels.shared
        return tuple(limit for one in accounts for limit in one.limits)

    def _in_turn(self, model: str) -> Iterator[tuple[int, Slot]]:
        slots = self._serving_slots(model)
        turn = self._turns.get(model, 0)
        for offset in range(len(slots)):
            index = (turn + offset) % len(slots)
            yield index, slots[index]

    def _best(self, model: str, shared: tuple[Limit, ...], charge: Charge, now: float) -> tuple[Slot | None, Binding]:
        """Return the next slot in turn that can pay now, else the one that can earliest, and what binds it."""
        outer = binding(shared, charge, now)
        best: tuple[Slot | None, Binding] = (None, _NEVER)
        for _, slot in self._in_turn(model):
            if slot.serves(model):
                bound = self._bound(slot, charge, now)
                if bound.seconds < best[1].seconds or best[0] is None:
                    best = (slot, bound)
                if bound.seconds <= 0.0:
                    break
        return (best[0], outer) if outer.seconds > best[1].seconds else best

    def _bound(self, slot: Slot, charge: Charge, now: float) -> Binding:
        account = self._accounts[slot]
        bound = binding(account.limits, charge, now)
        rest = account.cooling_until - now
        return Binding(rest, None) if rest > bound.seconds else bound

    def _grant(self, call: Call, ticket: Ticket, user: Account | None, now: float) -> Grant | Binding:
        shared = tuple(limit for one in self._levels.shared for limit in one.limits)
        if user is not None:
            shared += user.limits
        with self._lock:
            slot, bound = self._best(ticket.model, shared, ticket.charge, now)
            if slot is None or bound.seconds > 0.0:
                return bound
            limits = (*shared, *self._accounts[slot].limits)
            holds = [(limit, limit.take(now, getattr(ticket.charge, limit.unit))) for limit in limits]
        self._turns[ticket.model] = self._serving_slots(ticket.model).index(slot) + 1
        grant = Grant(slot, ticket.charge, holds, self.settle)
        call.paid(now, grant)
        return grant

    # --- who waits ---------------------------------------------------------------------------------------------------

    def _enqueue(self, call: Call, ticket: Ticket, user: Account | None, bound: Binding, now: float) -> Waiter:
        lane = self._lanes.setdefault((ticket.model, id(user)), Lane(ticket.model, user))
        waiter = Waiter(call, asyncio.get_running_loop().create_future(), self.leave)
        call.queued(now, waiter, refusals.told(bound))
        lane.push(waiter)
        self.waiting += 1
        if bound.limit is None or bound.limit.timed:
            self._wake_at(now, now + bound.seconds)
        return waiter

    def _pump(self, now: float) -> None:
        """Let all go who can, and set the timer for the next who will."""
        due = math.inf
        for lane in sorted(self._lanes.values(), key=Lane.first_key):
            due = min(due, self._pump_lane(lane, now))
        self._wake_at(now, due)

    def _pump_lane(self, lane: Lane, now: float) -> float:
        while (waiter := lane.head()) is not None:
            call, ticket = waiter.call, waiter.call.ticket
            if ticket is None or not self.usable(lane.model):
                self._fail(lane, refusals.no_key_left(self.provider, lane.model, self._serving_slots(lane.model)))
                break
            if waiter.key[0] != -call.priority:  # somebody of a higher priority waits for this call's answer
                lane.pop()
                lane.push(waiter)
                continue
            granted = self._grant(call, ticket, lane.user, now)
            if not isinstance(granted, Grant):
                timed = granted.limit is None or granted.limit.timed
                return now + granted.seconds if timed else math.inf
            lane.pop()
            self.waiting -= 1
            waiter.future.set_result(granted)
        self._drop_if_empty(lane)
        return math.inf

    def _fail(self, lane: Lane, error: LLMException) -> None:
        while (waiter := lane.head()) is not None:
            lane.pop()
            waiter.future.set_exception(copy(error))
        self._drop_if_empty(lane)

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.heap:
            self._lanes.pop((lane.model, id(lane.user)), None)

    def _wake_at(self, now: float, due: float) -> None:
        if due >= self._due and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due < math.inf:
            self._timer = self._clock.call_later(max(0.0, due - now), self._woken)

    def _woken(self) -> None:
        self._timer, self._due = None, math.inf
        self._pump(self._clock.now())

    # --- who is refused ----------------------------------------------------------------------------------------------

    def _refuse_to_wait(self, ticket: Ticket, bound: Binding, now: float) -> None:
        if not self.usable(ticket.model):
            raise refusals.no_key_left(self.provider, ticket.model, self._serving_slots(ticket.model))
        if self.waiting >= self._max_waiting:
            raise refusals.too_many_waiting(self.provider, ticket, self.waiting)
        limit = bound.limit
        if limit is not None and limit.refuses:
            raise refusals.used_up(self.provider, ticket, bound)
        foreseen = limit is None or limit.timed
        if foreseen and ticket.deadline is not None and now + bound.seconds > ticket.deadline:
            raise refusals.too_late(self.provider, ticket, bound)

    def _check_refusing(self, ticket: Ticket, slots: tuple[Slot, ...], shared: tuple[Limit, ...]) -> None:
        now = self._clock.now()
        used_up = binding([limit for limit in shared if limit.refuses], ticket.charge, now)
        if used_up.limit is None:
            of_keys = [
                binding([limit for limit in self._accounts[slot].limits if limit.refuses], ticket.charge, now)
                for slot in slots
                if slot.serves(ticket.model)
            ]
            used_up = min(of_keys, key=lambda bound: bound.seconds, default=FREE)
        if used_up.limit is not None:
            raise refusals.used_up(self.provider, ticket, used_up)
