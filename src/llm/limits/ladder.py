"""Many accounts by how much each can pay now, so that a charge finds its key without asking all of them. Pure.

What an account can pay only grows with time, until somebody draws on it. So each stands on the highest step of size
that it can pay, and it is known when it comes to the next. A charge looks among those on its own step and above: first
the one that had no turn for longest. Each account that is drawn on or given back to is placed anew, and each that time
lifts; nobody else is looked at. So a decision takes as long as a heap needs, the logarithm of their number.

A key is known to pay a charge once it can pay the largest of the charge's step; of those just below it a few are asked.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from .base import FREE, MOMENT, NEVER
from .flow import Size
from .steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from llm.core.call import Charge
    from llm.core.keys import Slot

    from .base import Binding, Limit
    from .memory import Account

    Bound: TypeAlias = Callable[[Account, Charge, float], Binding]

_ASKED: Final = 8  # of those that are not known to pay: those that are nearest
_ALIKE: Final = 4  # of one step
_BRIEF: Final = 0.1  # seconds in which those who are not asked are not looked at again
_SLACK: Final = 64
_MOVES: Final = 4096

_Entry: TypeAlias = "tuple[float, int, Seat]"


class Seat:
    """An account and its slots.

    Attributes:
        account: The account.
        slots: Its slots, the next in turn first.
        turn: When it was taken last; the smallest is the next.
        most: The highest step that it can ever pay.
        step: The highest that it can pay, as far as known; -1 for none.
        stamp: Number of its entries that count; those of other numbers are void.
        version: The account's, as its place was found.
    """

    __slots__ = ("account", "most", "slots", "stamp", "step", "turn", "version")

    def __init__(self, account: Account, turn: int) -> None:
        """Stand nowhere yet."""
        self.account: Account = account
        self.slots: list[Slot] = []
        self.turn: int = turn
        self.most: int = -1
        self.step: int = -1
        self.stamp: int = -1
        self.version: int = -1

    def slot(self, model: str) -> Slot | None:
        """Return the next of its slots that serves a model."""
        return next((slot for slot in self.slots if slot.serves(model)), None)

    def took(self, slot: Slot, turn: int) -> None:
        """Have its turn, and the slot's, come last."""
        self.turn = turn
        self.slots.remove(slot)
        self.slots.append(slot)


class _Miss(NamedTuple):
    """That nobody could pay a charge.

    Attributes:
        charge: The charge.
        kept: The accounts that were kept for somebody else.
        seat: The nearest of those that were asked.
        stamp: Its number; another by now means that it moved.
        until: Monotonic seconds until which time alone lets nobody pay.
        moves: How many had moved by then.
    """

    charge: Charge
    kept: set[Account]
    seat: Seat
    stamp: int
    until: float
    moves: int


class Ladder:
    """The accounts of a ring."""

    def __init__(self, model: str, entries: Iterable[tuple[Slot, Account]], bound: Bound) -> None:
        """Place nobody yet.

        Args:
            model: The ring's.
            entries: Its slots.
            bound: Returns what keeps an account from paying a charge.
        """
        self._model = model
        self._entries = tuple(entries)
        self._bound = bound
        self._steps = Steps(())
        self._turns = count()
        self._stamps = count()
        self._seats: dict[Account, Seat] = {}
        self._of_limit: dict[Limit, Seat] = {}
        self._touched: dict[Seat, None] = {}  # in order
        self._moves: list[Seat] = []
        self._misses: dict[tuple[str, int], _Miss] = {}
        self._version: int | None = None
        self._changes = 0

    def fit(self, version: int) -> None:
        """Know the limits of all accounts; `version` changes whenever one of them does."""
        if version == self._version:
            return
        changed = [seat for seat in self._seats.values() if seat.version != seat.account.version]
        self._changes += len(changed)
        if self._version is None or 4 * self._changes >= len(self._seats):
            self._build()
        else:
            self._seat_anew(changed)
        self._version = version

    def forget(self) -> None:
        """Find all places anew: keys left or came back."""
        self._version = None

    def given_back(self, limits: Iterable[Limit]) -> None:
        """Look anew at the account of these limits before anything is decided."""
        for limit in limits:
            seat = self._of_limit.get(limit)
            if seat is not None:
                self._touched[seat] = None
                return  # what a call holds of the limits of keys is one account's

    def took(self, slot: Slot, account: Account) -> None:
        """Pass the turn on from a slot that was taken."""
        seat = self._seats.get(account)
        if seat is not None and slot in seat.slots:
            seat.took(slot, next(self._turns))
            self._touched[seat] = None

    def step(self, charge: Charge, model: str) -> int | None:
        """Return the step of a charge; None where some account may pay it for the model but none is known to."""
        step = self._steps.of(charge)
        if step is None or not self._fitting[step]:
            return None
        if model != self._model and not any(seat.slot(model) for seat in self._fitting[step]):
            return None  # its keys are for any model, and all that are large enough refuse this one
        return step

    def largest(self, step: int) -> Charge:
        """Return the largest charge of a step."""
        return self._steps.charges[step]

    def size(self, charge: Charge, step: int) -> Size:
        """Return how large a charge of that step is."""
        tokens = self._steps.share(charge)
        return Size(self._fits[step], tokens, max(tokens, self._steps.of_requests))

    def find(
        self, charge: Charge, step: int, now: float, *, model: str, kept: Collection[Account]
    ) -> tuple[Slot | None, Binding, float]:
        """Return the next slot in turn that can pay now, else of the nearest the one that will first; and what binds.

        The last is seconds after which time alone may let a slot pay.
        """
        self._climb(now)
        aside: list[tuple[list[_Entry], _Entry]] = []
        unseen: list[Seat] = []
        found: Slot | None = None
        while found is None and (heap := self._first_ready(step)) is not None:
            entry = heapq.heappop(heap)
            seat = entry[2]
            slot = None if seat.account in kept else seat.slot(model)
            if slot is None:
                aside.append((heap, entry))
            elif self._bound(seat.account, charge, now).seconds <= 0.0:
                found = slot
                aside.append((heap, entry))
            else:  # it was drawn on unseen
                unseen.append(seat)
        for heap, entry in aside:
            heapq.heappush(heap, entry)
        for seat in unseen:
            self._place(seat, now)
        return (found, FREE, 0.0) if found is not None else self._nearest(charge, step, now, model, kept)

    # --- where all stand ----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        entries = [entry for entry in self._entries if entry[0].serves(self._model)]
        before, self._seats = self._seats, {}
        for slot, account in entries:
            seat = self._seats.get(account)
            if seat is None:
                turn = before[account].turn if account in before else next(self._turns)
                seat = self._seats[account] = Seat(account, turn)
            seat.slots.append(slot)
        seats = list(self._seats.values())
        self._steps = Steps([seat.account.limits for seat in seats])
        steps = len(self._steps.charges)
        self._ready: list[list[_Entry]] = [[] for _ in range(steps)]
        self._rising: list[list[_Entry]] = [[] for _ in range(steps)]
        self._fitting: list[list[Seat]] = [[] for _ in range(steps)]
        self._fits: list[frozenset[int]] = [frozenset()] * steps
        self._touched.clear()
        self._moves.clear()
        self._misses.clear()
        self._of_limit.clear()
        self._changes = 0
        self._seat_anew(seats)

    def _seat_anew(self, seats: Sequence[Seat]) -> None:
        """Find how much each of these can ever pay, and who can ever pay what."""
        before = [seat.most for seat in seats]
        for seat in seats:
            account = seat.account
            seat.version, seat.most = account.version, self._steps.most(account.limits)
            self._of_limit.update(dict.fromkeys(account.limits, seat))
            self._touched[seat] = None
        if [seat.most for seat in seats] != before:
            self._fit_anew()

    def _fit_anew(self) -> None:
        by_most: list[list[Seat]] = [[] for _ in self._fitting]
        for seat in self._seats.values():
            if seat.most >= 0:
                by_most[seat.most].append(seat)
        fitting, fits = list[Seat](), frozenset[int]()
        for step in reversed(range(len(by_most))):
            if by_most[step]:
                fitting = fitting + by_most[step]
                fits = frozenset(slot.index for seat in fitting for slot in seat.slots)
            self._fitting[step], self._fits[step] = fitting, fits

    def _climb(self, now: float) -> None:
        """Place anew who was touched, or is lifted by time."""
        if len(self._moves) > _MOVES:
            self._moves.clear()
            self._misses.clear()
        touched, self._touched = self._touched, {}
        for seat in touched:
            self._place(seat, now)
        for heap in self._rising:
            while heap and heap[0][0] <= now:
                _, stamp, seat = heapq.heappop(heap)
                if stamp == seat.stamp:
                    self._place(seat, now)

    def _place(self, seat: Seat, now: float) -> None:
        charges, account = self._steps.charges, seat.account
        low, high, bound = -1, seat.most, FREE
        while low < high:
            middle = (low + high + 1) // 2
            over = self._bound(account, charges[middle], now)
            if over.seconds <= 0.0:
                low = middle
            else:
                high, bound = middle - 1, over
        seat.step = low
        seat.stamp = next(self._stamps)
        self._moves.append(seat)
        if low >= 0:
            self._push(self._ready[low], (seat.turn, seat.stamp, seat))
        if low < seat.most:  # what was asked last without success is the next step
            due = now + max(bound.seconds, MOMENT) if bound.timed else math.inf
            self._push(self._rising[low + 1], (due, seat.stamp, seat))

    def _push(self, heap: list[_Entry], entry: _Entry) -> None:
        heapq.heappush(heap, entry)
        if len(heap) > _SLACK + 2 * len(self._seats):
            heap[:] = [entry for entry in heap if entry[1] == entry[2].stamp]
            heapq.heapify(heap)

    def _first_ready(self, step: int) -> list[_Entry] | None:
        """Return the heap whose first can pay a step, and is the next in turn of those that can."""
        found: list[_Entry] | None = None
        for heap in self._ready[step:]:
            while heap and heap[0][1] != heap[0][2].stamp:
                heapq.heappop(heap)
            if heap and (found is None or heap[0][0] < found[0][0]):
                found = heap
        return found

    # --- who will be first --------------------------------------------------------------------------------------------

    def _nearest(
        self, charge: Charge, step: int, now: float, model: str, kept: Collection[Account]
    ) -> tuple[Slot | None, Binding, float]:
        seats, others = self._to_ask(charge, step, now, model, kept)
        nearest: Seat | None = None
        slot, soonest, look = None, NEVER, others - now
        for seat in seats:
            serving = seat.slot(model)
            if serving is None:
                continue
            bound = self._bound(seat.account, charge, now)
            if bound.timed:
                look = min(look, bound.seconds)
            if nearest is None or bound.seconds < soonest.seconds:
                nearest, slot, soonest = seat, serving, bound
        if nearest is None:
            self._misses.pop((model, step), None)
        else:
            self._misses[model, step] = _Miss(charge, set(kept), nearest, nearest.stamp, now + look, len(self._moves))
        return slot, soonest, look

    def _to_ask(
        self, charge: Charge, step: int, now: float, model: str, kept: Collection[Account]
    ) -> tuple[Sequence[Seat], float]:
        """Return whom to ask, and when others may come there who are not asked.

        Who waits for long is looked at often: then it is the nearest of the last time, and those that moved since.
        """
        miss = self._misses.get((model, step))
        if miss is not None and miss.seat.stamp == miss.stamp and miss.charge == charge and now < miss.until:
            few = len(self._moves) - miss.moves <= _ASKED
            if few and len(miss.kept) == len(kept) and miss.kept.issuperset(kept):
                return [miss.seat, *self._able(self._moves[miss.moves :], step, model, kept)], miss.until
        fitting = self._fitting[step]
        if len(fitting) <= _ASKED:
            return self._able(fitting, step, model, kept), math.inf
        seats, others = self._near(step, now)
        able = self._able(seats, step, model, kept)
        if able:
            return able, others
        return self._able(fitting, step, model, kept)[:_ASKED], now + _BRIEF

    @staticmethod
    def _able(seats: Sequence[Seat], step: int, model: str, kept: Collection[Account]) -> list[Seat]:
        return [seat for seat in seats if seat.most >= step and seat.account not in kept and seat.slot(model)]

    def _near(self, step: int, now: float) -> tuple[list[Seat], float]:
        """Return some who may come to a step soon, and when others may who rise more than a step at once.

        The former are those just below it, and those that can pay nothing now, since they may be held up by something
        else than tokens; then one from each step between, the highest first.
        """
        near = self._soonest(self._rising[step], _ALIKE + 1)
        lowest = self._soonest(self._rising[0], _ALIKE + 1) if step else []
        others = min((due for due, _, _ in near[_ALIKE:]), default=math.inf)
        held_up = min((due for due, _, _ in lowest[_ALIKE:]), default=math.inf)
        near = near[:_ALIKE] + lowest[:_ALIKE]
        for heap in reversed(self._rising[1:step]):
            room = int(len(near) < _ASKED)
            soonest = self._soonest(heap, 1 + room)
            near += soonest[:room]
            others = min([others, *(due for due, _, _ in soonest[room:])])
        return [seat for _, _, seat in near], min(held_up, max(others, now + _BRIEF))

    def _soonest(self, heap: list[_Entry], most: int) -> list[_Entry]:
        found: list[_Entry] = []
        while heap and len(found) < most:
            entry = heapq.heappop(heap)
            if entry[1] == entry[2].stamp:
                found.append(entry)
        for entry in found:
            heapq.heappush(heap, entry)
        return found
