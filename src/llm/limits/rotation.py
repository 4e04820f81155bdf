"""The slots of a provider and what is counted for them: which can pay a charge now, else which will first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from llm.core.call import Charge
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.keys import no_key_left
from llm.core.models import makes_vectors
from llm.utils.frozen import packer

from . import refusals
from .amounts import amounts_of
from .base import FREE, MOMENT, NEVER, Binding, binding, can_pay, never_fits
from .circuits import log
from .flow import Size
from .ladder import Ladder
from .memory import CHANGES, Account
from .ring import Ring

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from llm.core.call import Ticket
    from llm.core.exceptions import LLMException
    from llm.core.keys import Slot
    from llm.utils.clock import Clock

    from .base import Limit, Payer
    from .breaker import Permit
    from .circuits import Circuits
    from .memory import AccountBook

_ANY = "*"
_FEW = 32  # slots, of which each is asked as soon as it is found in a ladder


@dataclass(frozen=True, slots=True)
class Levels:
    """Whose limits a call pays beside its key's.

    Attributes:
        shared: Limits of everything together, and of the provider.
        user: Returns a user's account; None where users have no limits.
    """

    shared: tuple[Account, ...] = ()
    user: Callable[[str], Account | None] | None = None


class Choice(NamedTuple):
    """The slot to take, or to wait for.

    Attributes:
        slot: None where no key is left.
        bound: What keeps it waiting; no seconds where it can pay.
        look: Seconds after which time alone may let a slot pay; infinite where only the end of a call can.
    """

    slot: Slot | None
    bound: Binding
    look: float


_choice = packer(Choice)


class Rotation:
    """Slots that take turns: the next one in turn that can pay is taken, one that cannot is skipped."""

    _all_told: ClassVar[bool] = True  # of what is given back to its accounts

    def __init__(  # noqa: PLR0913 - what a rotation is made of, once
        self,
        provider: str,
        slots: Sequence[tuple[Slot, Account]],
        *,
        clock: Clock,
        book: AccountBook,
        levels: Levels,
        circuits: Circuits | None = None,
    ) -> None:
        """Make the rotation; `slots` stand in the order of the configuration."""
        self.provider: str = provider
        self.slots: tuple[Slot, ...] = tuple(slot for slot, _ in slots)
        self._accounts: dict[Slot, Account] = dict(slots)
        self._counted: tuple[Account, ...] = tuple(dict.fromkeys((*levels.shared, *self._accounts.values())))
        self._clock = clock
        self._lock = book.lock
        self._levels = levels
        self._circuits = circuits
        self._models = tuple(dict.fromkeys(slot.model for slot in self.slots if slot.model != _ANY))
        self._for_vectors = tuple(filter(makes_vectors, self._models)) or self._models
        self._for_words = tuple(model for model in self._models if not makes_vectors(model)) or self._models
        self._version_of = -1, 0
        self._book = book
        self._rings: dict[str, Ring] = {
            model: self._new_ring(model, tuple(entry for entry in slots if entry[0].model in (model, _ANY)))
            for model in (*self._models, _ANY)
        }
        self._model_turn = 0

    def models(self) -> tuple[str, ...]:
        """Return the models that the slots name, in their order."""
        return self._models

    def models_for(self, *, vectors: bool) -> tuple[str, ...]:
        """Return the models that a call that names none may be given: those for embeddings, or the others."""
        return self._for_vectors if vectors else self._for_words

    def choose_model(self, *, vectors: bool = False) -> str:
        """Return a model for a call that names none: by turns over those that can pay now, else over all.

        With `vectors` one for embeddings, else another, where there are such; one whose breaker refuses only where all
        of them do.

        Raises:
            LLMInvalidRequestError: The slots take any model, so the call must name one.
        """
        models = self._for_vectors if vectors else self._for_words
        if len(models) == 1:
            return models[0]
        if not models:
            raise LLMInvalidRequestError(
                f"provider {self.provider!r} takes any model, so a call must name one; pass model=…",
                provider=self.provider,
            )
        return self._next_model(models, self._clock.now())

    def _next_model(self, models: tuple[str, ...], now: float) -> str:
        turn = self._model_turn % len(models)
        ordered = models[turn:] + models[:turn]
        if self._circuits is not None:
            ordered = tuple(model for model in ordered if not self._broken_for(model, now)) or ordered
        free = (model for model in ordered if self._first(model, Charge(), now).bound is FREE)
        with self._lock:
            chosen = next(free, ordered[0])
        self._model_turn = models.index(chosen) + 1
        return chosen

    def check(self, ticket: Ticket) -> None:
        """Refuse what can never be paid, whatever the wait.

        Raises:
            LLMInvalidRequestError: No slot has the model; names those there are.
            LLMRateLimitError: The request is larger than a limit, or a limit per day or in dollars is used up.
        """
        ring, user = self._ring(ticket.model), self._user(ticket.user)
        entries = ring.entries
        if not entries:
            raise refusals.no_such_model(self.provider, ticket.model, self.models())
        charge = ticket.charge
        fits = ring.covers(charge, self._shared, self._version()) and (user is None or user.covers(charge))
        if fits and not (ring.budgets or (user is not None and user.budgets)):
            return
        now = self._clock.now()
        if not fits:
            over = never_fits(self._shared(user), charge)
            if over is not None:
                raise self._too_large(ticket, over)
            if self._step(ring, charge, ticket.model) is None:
                self._check_keys(ring, ticket, now)
        with self._lock:
            used_up = self._used_up(ring, ticket, user, now)
        if used_up is not FREE:
            raise refusals.used_up(self.provider, ticket, used_up)

    def cool(self, slot: Slot, seconds: float | None) -> float:
        """Rest the slot's account, and return for how many seconds; None: the provider named no time."""
        with self._lock:
            return self._accounts[slot].cool(self._clock.now(), seconds)

    def succeeded(self, slot: Slot, permit: Permit | None = None) -> None:
        """Know that the slot's account is served again, and that the attempt of `permit` is answered."""
        with self._lock:
            now = self._clock.now()
            account = self._accounts[slot]
            account.succeeded(now)
            if self._book.watchers:
                self._book.given_back(account.limits)
            turned = None if permit is None else permit.answer(now)
        if permit is not None and turned is not None:
            log(self.provider, permit.breaker, now)

    def usable(self, model: str) -> bool:
        """Return whether a key is left for `model`."""
        return any(slot.serves(model) for slot, _ in self._ring(model).in_turn())

    def rest(self, model: str) -> float:
        """Return seconds until one of the model's keys is not cooling; infinite where no key is left."""
        rests = [self.cooling(slot) for slot, _ in self._ring(model).entries if slot.serves(model)]
        return min(rests, default=math.inf)

    def saturation(self, slot: Slot) -> dict[str, float]:
        """Return how full each limit of the slot's account is, 0 to 1, by its field's name."""
        now = self._clock.now()
        with self._lock:
            return {limit.name: round(limit.saturation(now), 4) for limit in self._accounts[slot].limits}

    def capacities(self, slot: Slot) -> dict[str, float]:
        """Return how much each limit of the slot's account lets through, learned or stated, by its field's name."""
        with self._lock:
            return {limit.name: limit.capacity for limit in self._accounts[slot].limits}

    def cooling(self, slot: Slot) -> float:
        """Return seconds that the slot's account still rests."""
        return max(0.0, self._accounts[slot].cooling_until - self._clock.now())

    def _broken_for(self, model: str, now: float) -> float:
        """Return seconds for which the model's breaker refuses; 0 where it does not, or there is none."""
        with self._lock:
            return 0.0 if self._circuits is None else self._circuits.wait(model, now)

    def _version(self) -> int:
        """Return a number that changes with the limits of any account but the users'."""
        asked, version = self._version_of
        if asked != CHANGES.count:
            asked, version = CHANGES.count, 0
            for account in self._counted:
                version += account.version
            self._version_of = asked, version
        return version

    def _new_ring(self, model: str, entries: tuple[tuple[Slot, Account], ...]) -> Ring:
        if len(entries) <= _FEW or not self._all_told:
            return Ring(entries)
        ladder = Ladder(model, entries, self._bound)
        self._book.watch(ladder)
        return Ring(entries, ladder)

    def _step(self, ring: Ring, charge: Charge, model: str) -> tuple[Ladder, int] | None:
        """Return the ladder that finds a charge's slot, and its step there; None: all slots are to be asked."""
        ladder = ring.ladder
        if ladder is None:
            return None
        ladder.fit(self._version())
        step = ladder.step(charge, model)
        return None if step is None else (ladder, step)

    def _ring(self, model: str) -> Ring:
        return self._rings.get(model) or self._rings[_ANY]

    def _user(self, user: str | None) -> Account | None:
        return self._levels.user(user) if user is not None and self._levels.user is not None else None

    def _shared(self, user: Account | None = None) -> list[Limit]:
        return [limit for account in self._above(user) for limit in account.limits]

    def _payers(self, user: Account | None) -> list[Payer]:
        payers = [payer for account in self._levels.shared for payer in account.payers]
        if user is not None:
            payers += user.payers
        return payers

    def _above(self, user: Account | None) -> tuple[Account, ...]:
        """Return the accounts that pay beside a key's."""
        return self._levels.shared if user is None else (*self._levels.shared, user)

    def _size(self, ticket: Ticket) -> Size:
        """Return which slots can ever pay the ticket, and how large it is for the largest of them."""
        charge, ring, fits = ticket.charge, self._ring(ticket.model), list[int]()
        stepped = self._step(ring, charge, ticket.model)
        if stepped is not None:
            ladder, step = stepped
            return ladder.size(charge, step)
        tokens = share = math.inf
        for slot, account in ring.entries:
            if not slot.serves(ticket.model) or never_fits(account.limits, charge) is not None:
                continue
            fits.append(slot.index)
            parts = [(limit.unit, getattr(charge, limit.unit) / limit.capacity) for limit in account.limits]
            share = min(share, max([part for _, part in parts], default=0.0))
            tokens = min(tokens, max([part for unit, part in parts if unit != "requests"], default=0.0))
        return Size(frozenset(fits), tokens, share) if fits else Size(frozenset(), 0.0, 0.0)

    def _choose(  # noqa: PLR0913 - what a choice depends on
        self,
        model: str,
        charge: Charge,
        shared: Sequence[Limit],
        now: float,
        *,
        fits: frozenset[int] | None = None,
        kept: Collection[Account] = (),
    ) -> Choice:
        """Return the next slot in turn that can pay now, else the one that will first, and what binds it."""
        choice = self._first(model, charge, now, fits, kept)
        if not shared:
            return choice
        outer = binding(shared, charge, now)
        if outer.seconds <= choice.bound.seconds:
            return choice
        return Choice(choice.slot, outer, outer.seconds if outer.timed else math.inf)

    def _first(
        self, model: str, charge: Charge, now: float, fits: frozenset[int] | None = None, kept: Collection[Account] = ()
    ) -> Choice:
        """Return the next slot in turn that can pay now, else the one that will first.

        Only slots that are in `fits` are asked, and none of the accounts that are `kept` for somebody else.
        """
        ring = self._ring(model)
        if ring.ladder is not None:
            stepped = self._step(ring, charge, model)
            if stepped is not None:
                ladder, step = stepped
                return Choice(*ladder.find(charge, step, now, model=model, kept=kept))
        entries, turn, look = ring.entries, ring.turn, math.inf
        nearest: Slot | None = None
        soonest = NEVER
        for place in range(turn, turn + len(entries)):
            slot, account = entries[place % len(entries)]
            if (fits is not None and slot.index not in fits) or account in kept or not slot.serves(model):
                continue
            bound = self._bound(account, charge, now)
            if bound.seconds <= 0.0:
                return _choice((slot, bound, 0.0))
            if bound.timed:
                look = min(look, bound.seconds)
            if nearest is None or bound.seconds < soonest.seconds:
                nearest, soonest = slot, bound
        return Choice(nearest, soonest, look)

    def _bound(self, account: Account, charge: Charge, now: float) -> Binding:
        """Return what keeps an account from paying a charge."""
        free = can_pay(account.payers, amounts_of(charge), now)  # which asks few
        bound = FREE if free else binding(account.limits, charge, now)
        rest = account.cooling_until - now
        return Binding(rest) if rest > MOMENT and rest > bound.seconds else bound

    def _used_up(self, ring: Ring, ticket: Ticket, user: Account | None, now: float) -> Binding:
        """Return the budget that is used up: of a level, or of every key; `FREE` where none is."""
        bound = binding([limit for account in self._above(user) for limit in account.budgets], ticket.charge, now)
        if bound is not FREE or not ring.budgets:
            return bound
        serving = (account for slot, account in ring.in_turn() if slot.serves(ticket.model))
        return _least(binding(account.budgets, ticket.charge, now) for account in serving)

    def _check_keys(self, ring: Ring, ticket: Ticket, now: float) -> None:
        accounts = [account for slot, account in ring.entries if slot.serves(ticket.model)]
        over = _over_all([account.limits for account in accounts], ticket.charge)
        if over is not None and not self._doubt(accounts, ticket.charge, now):
            raise self._too_large(ticket, over)

    def _doubt(self, accounts: Sequence[Account], charge: Charge, now: float) -> bool:
        """Return whether some key takes a charge after all, since what it was told lately is not sure."""
        with self._lock:
            doubted = [account.doubt(now, charge) for account in accounts]  # all of them
        return any(doubted) and _over_all([account.limits for account in accounts], charge) is None

    def _too_large(self, ticket: Ticket, limit: Limit) -> LLMException:
        """Return why a charge fits no key: since a key left that it fits, or since it exceeds `limit`."""
        entries = self._ring(ticket.model).entries if limit.level == "key" else ()
        left = [
            slot
            for slot, account in entries
            if not slot.serves(ticket.model) and never_fits(account.limits, ticket.charge) is None
        ]
        if left:
            return no_key_left(self.provider, ticket.model, left, needed=" that is large enough")
        return refusals.too_large(self.provider, ticket, limit)

    def _never(self, ticket: Ticket, bound: Binding) -> LLMException | None:
        """Return why waiting for `bound` is no use, or None."""
        limit = bound.limit
        entries = self._ring(ticket.model).entries
        if not entries:
            return refusals.no_such_model(self.provider, ticket.model, self.models())
        if not self.usable(ticket.model):
            return no_key_left(self.provider, ticket.model, [slot for slot, _ in entries])
        if limit is not None and bound.seconds == math.inf:
            return self._too_large(ticket, limit)
        if limit is not None and limit.refuses:
            return refusals.used_up(self.provider, ticket, bound)
        return None


def _over_all(of_keys: Iterable[tuple[Limit, ...]], charge: Charge) -> Limit | None:
    """Return the limit of the key that comes nearest, where the charge fits no key."""
    overs = [never_fits(limits, charge) for limits in of_keys]
    known = [limit for limit in overs if limit is not None]
    return max(known, key=lambda limit: limit.capacity) if known and len(known) == len(overs) else None


def _least(bounds: Iterable[Binding]) -> Binding:
    """Return the shortest of several waits; the first that is none."""
    least = NEVER
    for bound in bounds:
        if bound is FREE:
            return FREE
        if bound.seconds < least.seconds:
            least = bound
    return FREE if least.limit is None else least
