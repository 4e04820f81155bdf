"""A run on copies of the limits, in no time: how long many requests would take, and what would keep them waiting.

The same rotation chooses the keys and the same limits count as in a real run, so bursts, windows, guards and what is
reserved until an answer is there all come out as they would. Only time is worked out: it goes from one event to the
next. Nothing is taken from the limits themselves.
"""

from __future__ import annotations

import heapq
import math
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llm.core.call import Ticket
from llm.core.exceptions import LimitScope

from .auto import AutoLimit
from .base import Binding, Hold, never_fits
from .flow import seniority
from .memory import AccountBook
from .rotation import Levels, Rotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import Charge

    from .auto import Kind
    from .base import Holds
    from .flow import Order, Size
    from .memory import Account


PAUSE: Final = "pause"
CONCURRENCY: Final = "concurrency"


class Planned(NamedTuple):
    """A request as the limits will see it.

    Attributes:
        provider: Section of the configuration.
        model: Its model.
        charge: What it takes as it is sent.
        used: What that becomes once it is answered.
        seconds: From its sending to its answer.
    """

    provider: str
    model: str
    charge: Charge
    used: Charge
    seconds: float = 0.0


@dataclass(slots=True)
class Brake:
    """What kept requests waiting.

    Attributes:
        limit: The limit's field in the configuration; `PAUSE` for a rest that a provider asked for, `CONCURRENCY` where
            all workers were waiting for answers.
        level: Whose limit it is; None for `CONCURRENCY`.
        refuses: Whether it does not make calls wait, but fail.
        seconds: For how long.
        keys: Fingerprints of the keys that were waited for; empty where the limit is not a key's.
    """

    limit: str
    level: LimitScope | None = None
    refuses: bool = False
    seconds: float = 0.0
    keys: set[str] = field(default_factory=set[str])


_MOST_SIZES: Final = 4096  # that are remembered: many requests are alike, and each is asked about twice

_Lane: TypeAlias = "list[tuple[Order, Planned]]"


class _Copy(Rotation):
    """A provider's slots on copies of their accounts, and who waits for them."""

    def __init__(self, original: Rotation, memo: dict[int, Any], book: AccountBook) -> None:
        def copied(account: Account) -> Account:
            return deepcopy(account, memo)

        with original._lock:
            slots = [(slot, copied(account)) for slot, account in original._accounts.items()]
            levels = Levels(tuple(map(copied, original._levels.shared)))
        super().__init__(original.provider, slots, clock=original._clock, book=book, levels=levels)
        self.lanes: dict[tuple[str, frozenset[int]], _Lane] = {}
        self._sizes: dict[tuple[str, Charge], Size] = {}
        self.due: float = math.inf
        self.brakes: list[tuple[Binding, frozenset[int]]] = []

    def settle_doubts(self, now: float, kind: Kind) -> None:
        """Let running calls of others end, and count as `kind` what is not known to be a bucket or a window."""
        for account in self._counted:
            for limit in account.limits:
                if not limit.timed:
                    limit.settle(now, Hold(now, limit.capacity - limit.free(now)), 0.0)
                if isinstance(limit, AutoLimit) and limit.kind is None:
                    limit.decide(kind)
            account.hold_to(account.limits)

    def why_never(self, planned: Planned) -> Exception | None:
        """Return why a request can never be sent, or None."""
        ticket = Ticket(planned.charge, planned.model)
        over = never_fits(self._shared(), planned.charge)
        if over is not None:
            return self._too_large(ticket, over)
        if self._size_of(planned).fits:
            return None
        entries = self._ring(planned.model).entries
        overs = [never_fits(account.limits, planned.charge) for slot, account in entries if slot.serves(planned.model)]
        limit = next((over for over in overs if over is not None), None)
        return self._never(ticket, Binding(math.inf, limit))

    def next_model(self, now: float, models: tuple[str, ...]) -> str:
        """Return the model of a call that names none."""
        return self._next_model(models, now)

    def enter(self, now: float, number: int, planned: Planned) -> bool:
        """Let a request wait; return whether it is the first in its lane."""
        size = self._size_of(planned)
        lane = self.lanes.setdefault((planned.model, size.fits), [])
        heapq.heappush(lane, ((now - seniority(size.tokens), number), planned))
        return lane[0][1] is planned

    def let_one_go(self, now: float) -> tuple[Planned, Holds] | None:
        """Return the first who can go, with what it took; where nobody can, `due` and `brakes` tell when and why."""
        kept: set[Account] = set()
        shared = self._shared()
        self.due, self.brakes = math.inf, []
        for name, lane in sorted(self.lanes.items(), key=_first_of):
            model, fits = name
            planned = lane[0][1]
            slot, bound, look = self._choose(model, planned.charge, shared, now, fits=fits, kept=kept)
            if slot is None:  # those before it wait for all the keys that it could take
                continue
            if bound.seconds <= 0.0:
                heapq.heappop(lane)
                if not lane:
                    del self.lanes[name]
                self._ring(model).took(slot)
                limits = (*shared, *self._accounts[slot].limits)
                return planned, [(limit, limit.take(now, planned.charge[limit.place])) for limit in limits]
            self.due = min(self.due, now + look)
            self.brakes.append((bound, fits if bound.limit is not None else frozenset({slot.index})))
            if bound.limit is not None and bound.limit.level != "key":
                break
            kept.add(self._accounts[slot])
        return None

    def _size_of(self, planned: Planned) -> Size:
        name = (planned.model, planned.charge)
        size = self._sizes.get(name)
        if size is None:
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            size = self._sizes[name] = self._size(Ticket(planned.charge, planned.model))
        return size

    def keys(self, limit: str, slots: frozenset[int]) -> set[str]:
        """Return the keys of those of the slots that have such a limit, or pause."""
        return {
            slot.key.fingerprint
            for slot, account in self._accounts.items()
            if slot.index in slots and (limit == PAUSE or limit in [each.name for each in account.limits])
        }


def _first_of(entry: tuple[object, _Lane]) -> Order:
    return entry[1][0][0]


class Rehearsal:
    """So many workers that send requests, one after the other; each waits for its turn and for its answer.

    Attributes:
        sent: Requests that were sent so far.
        refused_after: How many were sent before a limit refused one that another day would have taken; None: none was.
    """

    def __init__(self, queues: Iterable[Rotation], now: float, *, workers: int, kind: Kind = "bucket") -> None:
        """Copy the limits as they stand.

        Args:
            queues: Those of all providers, which may share accounts.
            now: Monotonic seconds.
            workers: How many send at the same time.
            kind: How limits are counted of which that is not known: `bucket` is the sooner, `window` the later.
        """
        memo: dict[int, Any] = {}
        self._book = AccountBook()
        self._copies: dict[str, _Copy] = {queue.provider: _Copy(queue, memo, self._book) for queue in queues}
        for copied in self._copies.values():
            copied.settle_doubts(now, kind)
        self._now = self._began = now
        self._workers = workers
        self._numbers = count()
        self._waiting = 0
        self._running: list[tuple[float, int, Planned, Holds]] = []
        self._brakes: dict[tuple[str, LimitScope | None], Brake] = {}
        self._waited_for: dict[tuple[str, str], set[frozenset[int]]] = {}
        self.sent: int = 0
        self.refused_after: int | None = None

    @property
    def brakes(self) -> list[Brake]:
        """What kept requests waiting, that which did for longest first."""
        for (limit, provider), seen in self._waited_for.items():
            self._brake(limit, "key").keys |= self._copies[provider].keys(limit, frozenset[int]().union(*seen))
        return sorted(self._brakes.values(), key=lambda brake: -brake.seconds)

    def why_never(self, planned: Planned) -> Exception | None:
        """Return why a request can never be sent, however long it waits; None where it can."""
        return self._copies[planned.provider].why_never(planned)

    def choose_model(self, provider: str, models: tuple[str, ...]) -> str:
        """Return which of these models a provider gives to the next request, which names none."""
        self._await_worker()
        return self._copies[provider].next_model(self._now, models)

    def send(self, planned: Planned) -> None:
        """Have the next worker that is free send a request, for which `why_never` has nothing."""
        self._await_worker()
        copied = self._copies[planned.provider]
        self._waiting += 1
        if copied.enter(self._now, next(self._numbers), planned):
            self._let_go(copied)

    def finish(self) -> float:
        """Wait for all answers; return seconds from the start to the last."""
        while self._waiting or self._running:
            self._step()
        return self._now - self._began

    def _await_worker(self) -> None:
        while self._waiting + len(self._running) >= self._workers:
            self._step()

    def _let_go(self, copied: _Copy) -> None:
        while (gone := copied.let_one_go(self._now)) is not None:
            planned, holds = gone
            self._waiting -= 1
            self.sent += 1
            if planned.seconds > 0.0:
                heapq.heappush(self._running, (self._now + planned.seconds, self.sent, planned, holds))
            else:
                self._settle(planned, holds)

    def _settle(self, planned: Planned, holds: Holds) -> None:
        for limit, hold in holds:
            limit.settle(self._now, hold, planned.used[limit.place])
        self._book.given_back([limit for limit, _ in holds])

    def _step(self) -> None:
        """Go to the next event."""
        blocked = [copied for copied in self._copies.values() if copied.lanes]
        due = min((copied.due for copied in blocked), default=math.inf)
        end = self._running[0][0] if self._running else math.inf
        self._spend(max(0.0, min(due, end) - self._now), blocked)
        self._now = max(self._now, min(due, end))
        if end <= due:
            _, _, planned, holds = heapq.heappop(self._running)
            self._settle(planned, holds)
        for copied in blocked:
            self._let_go(copied)

    def _spend(self, seconds: float, blocked: list[_Copy]) -> None:
        if not blocked and len(self._running) >= self._workers:
            self._brake(CONCURRENCY, None).seconds += seconds
        for copied in blocked:
            for bound, slots in copied.brakes:
                limit = bound.limit
                brake = self._brake(PAUSE, "key") if limit is None else self._brake(limit.name, limit.level)
                brake.seconds += seconds
                if brake.level == "key":
                    self._waited_for.setdefault((brake.limit, copied.provider), set()).add(slots)
                if limit is not None and limit.refuses:
                    self._refused(brake)

    def _brake(self, limit: str, level: LimitScope | None) -> Brake:
        return self._brakes.get((limit, level)) or self._brakes.setdefault((limit, level), Brake(limit, level))

    def _refused(self, brake: Brake) -> None:
        brake.refuses = True
        if self.refused_after is None:
            self.refused_after = self.sent
