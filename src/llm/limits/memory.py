"""Accounts in this process: what limits are counted on, shared by all who hold the same keys."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from .auto import AutoLimit
from .base import DAY
from .bucket import TokenBucket
from .concurrency import Concurrency
from .learning import Learner
from .pace import Count, Pace
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Holds, Learning, Limit, Unit

_UNITS: dict[str, Unit] = {
    "requests": "requests",
    "tokens": "total_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost": "cost",
}
_PERIODS = {"minute": 60.0, "hour": 3600.0, "day": DAY}


def make_limits(stated: Mapping[str, object], *, level: LimitScope, bucket: bool) -> tuple[Limit, ...]:
    """Make the limits that a section states by field name; `bucket` chooses the algorithm that `auto` stands for.

    Concurrency comes last, since it alone says nothing of when it will be free.
    """
    algorithm = stated.get("algorithm", "auto")
    plain = TokenBucket if algorithm == "token_bucket" or (algorithm == "auto" and bucket) else SlidingWindow
    limits: list[Limit] = []
    for name, value in stated.items():
        what, _, span = name.rpartition("_per_")
        if span in _PERIODS and isinstance(value, (int, float)):
            period = _PERIODS[span]
            refuses = period >= DAY or what == "cost"
            # Of a day, and above the keys, nothing is ever proved.
            learns = algorithm == "auto" and level == "key" and period < DAY
            kind = partial(AutoLimit, bucket=bucket) if learns else plain
            limits.append(kind(name, _UNITS[what], float(value), period, level=level, refuses=refuses))
    running = stated.get("concurrent_requests")
    if isinstance(running, (int, float)):
        limits.append(Concurrency("concurrent_requests", float(running), level=level))
    return tuple(limits)


class Account:
    """What limits are counted on: a quota group and a model family, a user, or the whole process.

    Attributes:
        limits: Its limits: those that are stated, and those that the provider told of.
        version: Changes whenever limits come or go, change their number, or turn out to count otherwise.
        cooling_until: Monotonic seconds until which the provider asked not to be called.
        strikes: Refusals in a row that gave no time to wait.
    """

    __slots__ = (
        "__weakref__", "_explained", "_learner", "_pace", "_served", "_stated", "_stated_limits",
        "cooling_until", "limits", "strikes", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start without limits."""
        self.limits: tuple[Limit, ...] = ()
        self.version: int = 0
        self.cooling_until: float = 0.0
        self.strikes: int = 0
        self._stated: tuple[dict[str, object], bool] | None = None
        self._stated_limits: tuple[Limit, ...] = ()
        self._learner: Learner | None = None
        self._explained = False
        self._served = Count()
        self._pace: Pace | None = None

    def state(self, now: float, stated: Mapping[str, object], *, level: LimitScope, bucket: bool) -> None:
        """Hold to these limits from now on; those that change keep the share that is taken, and what was learned."""
        if self._stated == (dict(stated), bucket):
            return
        told, _ = self._stated or ({}, bucket)
        before = {limit.name: limit for limit in self.limits}
        same = stated.get("algorithm") == told.get("algorithm") and (self._stated is None or self._stated[1] == bucket)
        self._stated = (dict(stated), bucket)
        self._stated_limits = tuple(
            before[limit.name]
            if same and limit.name in before and told.get(limit.name) == stated[limit.name]
            else _continue(before.get(limit.name), limit, now)
            for limit in make_limits(stated, level=level, bucket=bucket)
        )
        if self._learner is not None:
            self._learner.restate(self._learning())
        self._compose()

    def learn(self, now: float, holds: Holds, reports: Sequence[LimitReport]) -> None:
        """Level with what the provider said, as it admitted or refused a call that holds `holds`."""
        learner = self._learner
        if learner is None:
            learner = self._learner = Learner(self._learning(), bucket=self._stated is not None and self._stated[1])
        changed, self._explained = learner.learn(now, holds, reports)
        if changed:
            self._compose()

    def succeeded(self, now: float) -> None:
        """Know that the provider serves again."""
        self.strikes = 0
        self._served.add(now)
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
            self._slow_down(now)
        if seconds is None:
            if now < self.cooling_until:
                return self.cooling_until - now
            seconds = min(60.0, 2.0 ** min(self.strikes, 6))
            self.strikes += 1
        self.cooling_until = max(self.cooling_until, now + seconds)
        return seconds

    def _slow_down(self, now: float) -> None:
        if self._pace is None:
            self._pace = Pace()
            self._compose()
        self._pace.refused(now, self._served.last_minute(now))

    def _compose(self) -> None:
        learned: tuple[Limit, ...] = () if self._learner is None else self._learner.learned
        pace = () if self._pace is None else (self._pace,)
        timed = tuple(limit for limit in self._stated_limits if limit.timed)
        self.limits = (*timed, *learned, *pace, *(limit for limit in self._stated_limits if not limit.timed))
        self.version += 1

    def _learning(self) -> list[tuple[Learning, float]]:
        return [
            (limit, float(self._stated[0][limit.name]))
            for limit in self._stated_limits
            if isinstance(limit, (AutoLimit, TokenBucket, SlidingWindow))
        ]


def _continue(old: Limit | None, new: Limit, now: float) -> Limit:
    if old is None:
        return new
    if isinstance(old, Concurrency):
        old.capacity = new.capacity  # the same object, so that calls that run are seen to end
        return old
    if type(old) is type(new) and old.capacity == new.capacity:
        return old
    new.take(now, old.saturation(now) * new.capacity)
    return new


class AccountBook:
    """All accounts of one clock, by name.

    An account outlives the manager that made it, as the vendor's memory of a key does. `lock` makes asking and taking
    one step among the threads of several loops.

    Attributes:
        lock: Held while limits are asked and changed.
        sleepers: What to call when something was given back: one of each queue in which somebody waits.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.lock: threading.RLock = threading.RLock()
        self.sleepers: set[Callable[[], None]] = set()
        self._accounts: dict[Hashable, Account] = {}

    def account(self, name: Hashable) -> Account:
        """Return the account of that name, made where it is new."""
        with self.lock:
            return self._accounts.setdefault(name, Account())

    def forget(self, name: Hashable) -> None:
        """Drop the account of that name, which holds nothing any more."""
        with self.lock:
            self._accounts.pop(name, None)

    def wake_others(self, caller: Callable[[], None]) -> None:
        """Have all queues but the caller's look again, since they may count on the same accounts."""
        for wake in tuple(self.sleepers):
            if wake != caller:
                wake()
