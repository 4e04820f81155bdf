"""Accounts in this process: what limits are counted on, shared by all who hold the same keys."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from .auto import AutoLimit
from .concurrency import Concurrency
from .learning import Learner
from .most import Most
from .own_window import OwnWindow
from .pace import Count, Pace
from .stating import make_limits
from .together import Together, payers

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from llm.core.call import Charge, LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Holds, Limit, Payer

    Wake: TypeAlias = Callable[[Iterable[Limit]], None]

_SILENT_ANSWERS: Final = 32
_OFTEN: Final = 0.002  # seconds: little beside what may pass anyhow between the view of the vendor and ours
_SELDOM: Final = 0.02  # seconds, while no limit is near: reading what is said of four takes long beside a call
_NEAR: Final = 0.25


class _Changes:
    """How often the limits of any account changed, so that nobody asks all of them whether one did."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


CHANGES: Final = _Changes()


class Account:
    """What limits are counted on: a quota group and a model family, a user, or the whole process.

    Attributes:
        limits: Its limits: those that are stated, and those that the provider told of.
        payers: What pays for all of them: windows that count the same calls together.
        budgets: Those of them that refuse what does not fit now, instead of having it wait.
        version: Changes whenever limits come or go, change their number, or turn out to count otherwise.
        cooling_until: Monotonic seconds until which the provider asked not to be called.
        strikes: Refusals in a row that gave no time to wait.
    """

    __slots__ = (
        "__weakref__",
        "_explained",
        "_learner",
        "_listens_at",
        "_most",
        "_most_of",
        "_numbers",
        "_pace",
        "_served",
        "_silence",
        "_stated",
        "_stated_limits",
        "budgets",
        "cooling_until",
        "limits",
        "payers",
        "strikes",
        "version",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start without limits."""
        self.limits: tuple[Limit, ...] = ()
        self.payers: tuple[Payer, ...] = ()
        self.budgets: tuple[Limit, ...] = ()
        self.version: int = 0
        self.cooling_until: float = 0.0
        self.strikes: int = 0
        self._stated: tuple[dict[str, object], bool] | None = None
        self._stated_limits: tuple[Limit, ...] = ()
        self._numbers: dict[str, float] = {}
        self._learner: Learner | None = None
        self._explained = False
        self._served = Count()
        self._silence = 0
        self._pace: Pace | None = None
        self._listens_at = -math.inf
        self._most = Most(())
        self._most_of = 0

    def covers(self, charge: Charge) -> bool:
        """Return whether a charge fits every limit by itself."""
        if self._most_of != self.version:
            self._most_of, self._most = self.version, Most(self.limits)
        return self._most.covers(charge)

    def state(self, now: float, stated: Mapping[str, object], *, level: LimitScope, bucket: bool) -> None:
        """Hold to these limits from now on; those that change go on with what is taken, and what was learned.

        Of a budget, which refuses, the amount stays taken: to raise it makes room. Of the others the share does, since
        what a provider has left by then is not known.
        """
        if self._stated == (dict(stated), bucket):
            return
        told = {} if self._stated is None or self._stated[1] != bucket else self._stated[0]
        if told.get("algorithm") != stated.get("algorithm"):
            told = {}
        before = {limit.name: limit for limit in self.limits}
        limits: list[Limit] = []
        for limit in make_limits(stated, level=level, bucket=bucket):
            old = before.get(limit.name)
            same = old is not None and told.get(limit.name) == stated[limit.name]
            limits.append(old if old is not None and same else _continue(old, limit, now))
            self._numbers[limit.name] = limit.capacity
        self._stated = (dict(stated), bucket)
        self._silence = _SILENT_ANSWERS
        self._stated_limits = tuple(limits)
        if self._learner is not None:
            self._learner.restate(self._stated_limits, self._numbers)
        self._compose()

    def hold_to(self, limits: tuple[Limit, ...]) -> None:
        """Hold to just these limits, which may be those of another account, too."""
        self.limits, self.payers = limits, payers(limits)

    def catch_up(self, now: float, before: Account) -> None:
        """Go on in the place of `before`, which was in force meanwhile: take what is taken there and not yet here."""
        known = {limit.name: limit for limit in before.limits if limit.timed}
        for limit in self.limits:
            old = known.get(limit.name)
            more = 0.0 if old is None else _handed_on(old, limit, now) - limit.saturation(now) * limit.capacity
            if more > 0.0:
                limit.take(now, more)

    def listens(self, now: float) -> bool:
        """Return whether the last report is so old that the next is worth reading."""
        return now >= self._listens_at

    def learn(self, now: float, holds: Holds, reports: Sequence[LimitReport]) -> None:
        """Level with what the provider said, as it admitted or refused a call that holds `holds`."""
        learner = self._learner
        if learner is None:
            learner = self._learner = Learner(bucket=self._stated is not None and self._stated[1])
            learner.restate(self._stated_limits, self._numbers)
        changed, self._explained = learner.learn(now, holds, reports)
        if changed:
            self._compose()
        else:
            for payer in self.payers:
                if isinstance(payer, Together):
                    payer.level_up()
        near = any(limit.saturation(now) >= _NEAR for limit in self.limits)
        self._listens_at = now + (_OFTEN if near else _SELDOM)

    def doubt(self, now: float, charge: Charge) -> bool:
        """Give up learned limits that keep `charge` out for ever and were not told for long; return whether there were.

        A charge that exceeds what is stated stays out.
        """
        if self._learner is None or not self._learner.doubt(now, charge):
            return False
        self._compose()
        return True

    def succeeded(self, now: float) -> None:
        """Know that the provider serves again."""
        self.strikes = 0
        self._served.add(now)
        if self._silence:
            self._wait_for_proof()
        if self._pace is not None:
            self._pace.succeeded(now)
            if not self._pace.binds(now):
                self._pace = None
                self._compose()

    def cool(self, now: float, seconds: float | None) -> float:
        """Rest after a refusal, and return for how many seconds.

        `seconds` is what the provider asked for; where it asked for nothing, the rest doubles from a second to a
        minute with each refusal in a row. Calls that were under way together and are refused together count as one.
        Where nothing that we know of the limits explains the refusal, calls leave at a slower pace afterwards.
        """
        explained, self._explained = self._explained, False
        if not explained and now >= self.cooling_until:
            self._slow_down(now, seconds)
        if seconds is None:
            if now < self.cooling_until:
                return self.cooling_until - now
            seconds = min(60.0, 2.0 ** min(self.strikes, 6))
            self.strikes += 1
        self.cooling_until = max(self.cooling_until, now + seconds)
        return seconds

    def _wait_for_proof(self) -> None:
        """Count an answer; after several that say nothing, stop counting both ways what no answer will decide."""
        self._silence -= 1
        if self._silence or self._learner is not None:
            return
        for limit in self._stated_limits:
            if isinstance(limit, AutoLimit) and limit.kind is None:
                limit.decide()

    def _slow_down(self, now: float, seconds: float | None) -> None:
        if self._pace is None:
            self._pace = Pace()
            self._compose()
        self._pace.refused(now, self._served.last_minute(now), seconds)

    def _compose(self) -> None:
        learned: tuple[Limit, ...] = () if self._learner is None else self._learner.learned
        pace = () if self._pace is None else (self._pace,)
        timed = tuple(limit for limit in self._stated_limits if limit.timed)
        self.hold_to((*timed, *learned, *pace, *(limit for limit in self._stated_limits if not limit.timed)))
        self.budgets = tuple(limit for limit in self.limits if limit.refuses)
        self.version += 1
        CHANGES.count += 1


def _continue(old: Limit | None, new: Limit, now: float) -> Limit:
    if old is None:
        return new
    if isinstance(old, Concurrency):
        return old.resized(new.capacity)  # calls that run are seen to end
    if type(old) is type(new) and old.capacity == new.capacity:
        return old
    if isinstance(old, OwnWindow) and type(old) is type(new) and new.refuses:
        return old.resized(now, new.capacity)
    new.take(now, _handed_on(old, new, now))
    return new


def _handed_on(old: Limit, new: Limit, now: float) -> float:
    """Return how much of `new` is taken as it goes on in the place of `old`."""
    share = old.saturation(now)
    return min(share * old.capacity, new.capacity) if new.refuses else share * new.capacity


class Watcher(Protocol):
    """Who knows what accounts can pay."""

    def given_back(self, limits: Iterable[Limit], /) -> None:
        """Look anew at the account of these limits before anything is decided."""


class AccountBook:
    """All accounts of one clock, by name.

    An account outlives the manager that made it, as the vendor's memory of a key does. `lock` makes asking and taking
    one step among the threads of several loops.

    Attributes:
        lock: Held while limits are asked and changed.
        sleepers: What to call when something was given back: one of each queue in which somebody waits.
        watchers: Those that are told what is given back, since they know what each of many accounts can pay.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.lock: threading.RLock = threading.RLock()
        self.sleepers: set[Wake] = set()
        self.watchers: list[weakref.ref[Watcher]] = []
        self._accounts: dict[Hashable, Account] = {}

    def account(self, name: Hashable) -> Account:
        """Return the account of that name, made where it is new."""
        with self.lock:
            return self._accounts.setdefault(name, Account())

    def forget(self, name: Hashable) -> None:
        """Drop the account of that name, which holds nothing any more."""
        with self.lock:
            self._accounts.pop(name, None)

    def watch(self, watcher: Watcher) -> None:
        """Tell it what is given back for as long as somebody holds it."""
        self.watchers.append(weakref.ref(watcher, self.watchers.remove))

    def given_back(self, limits: Iterable[Limit]) -> None:
        """Have all who watch look anew at the account of these limits."""
        for held in tuple(self.watchers):
            watcher = held()
            if watcher is not None:
                watcher.given_back(limits)

    def wake_others(self, caller: Wake, given_back: Iterable[Limit]) -> None:
        """Have all queues but the caller's look again: something was given back to these limits, or others changed."""
        for wake in tuple(self.sleepers):
            if wake != caller:
                wake(given_back)
