"""Accounts in this process: what limits are counted on, shared by all who hold the same keys."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .base import DAY
from .bucket import TokenBucket
from .concurrency import Concurrency
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from llm.core.call import LimitReport
    from llm.core.exceptions import LimitScope

    from .base import Holds, Limit, Unit

    Wake: TypeAlias = Callable[[Iterable[Limit]], None]

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
    kind = TokenBucket if algorithm == "token_bucket" or (algorithm == "auto" and bucket) else SlidingWindow
    limits: list[Limit] = []
    for name, value in stated.items():
        what, _, span = name.rpartition("_per_")
        if span in _PERIODS and isinstance(value, (int, float)):
            period = _PERIODS[span]
            refuses = period >= DAY or what == "cost"
            limits.append(kind(name, _UNITS[what], float(value), period, level=level, refuses=refuses))
    running = stated.get("concurrent_requests")
    if isinstance(running, (int, float)):
        limits.append(Concurrency("concurrent_requests", float(running), level=level))
    return tuple(limits)


class Account:
    """What limits are counted on: a quota group and a model family, a user, or the whole process.

    Attributes:
        limits: Its limits.
        cooling_until: Monotonic seconds until which the provider asked not to be called.
        strikes: Refusals in a row that gave no time to wait.
        version: Changes with the limits.
    """

    __slots__ = ("__weakref__", "_stated", "cooling_until", "limits", "strikes", "version")

    def __init__(self) -> None:
        """Start without limits."""
        self.limits: tuple[Limit, ...] = ()
        self.cooling_until: float = 0.0
        self.strikes: int = 0
        self.version: int = 0
        self._stated: tuple[dict[str, object], bool] | None = None

    def state(self, now: float, stated: Mapping[str, object], *, level: LimitScope, bucket: bool) -> None:
        """Hold to these limits from now on; those that change keep the share that is taken."""
        if self._stated == (dict(stated), bucket):
            return
        before = {limit.name: limit for limit in self.limits}
        self._stated = (dict(stated), bucket)
        self.version += 1
        self.limits = tuple(
            _continue(before.get(limit.name), limit, now) for limit in make_limits(stated, level=level, bucket=bucket)
        )

    def learn(self, now: float, holds: Holds, reports: Sequence[LimitReport]) -> None:
        """Level with what the provider said, as it admitted or refused a call that holds `holds`."""

    def cool(self, now: float, seconds: float | None) -> float:
        """Rest after a refusal, and return for how many seconds.

        `seconds` is what the provider asked for; where it asked for nothing, the rest doubles from a second to a
        minute with each refusal in a row. Calls that were under way together and are refused together count as one.
        """
        if seconds is None:
            if now < self.cooling_until:
                return self.cooling_until - now
            seconds = min(60.0, 2.0 ** min(self.strikes, 6))
            self.strikes += 1
        self.cooling_until = max(self.cooling_until, now + seconds)
        return seconds


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
        self.sleepers: set[Wake] = set()
        self._accounts: dict[Hashable, Account] = {}

    def account(self, name: Hashable) -> Account:
        """Return the account of that name, made where it is new."""
        with self.lock:
            return self._accounts.setdefault(name, Account())

    def forget(self, name: Hashable) -> None:
        """Drop the account of that name, which holds nothing any more."""
        with self.lock:
            self._accounts.pop(name, None)

    def wake_others(self, caller: Wake, given_back: Iterable[Limit]) -> None:
        """Have all queues but the caller's look again: something was given back to these limits, or others changed."""
        for wake in tuple(self.sleepers):
            if wake != caller:
                wake(given_back)
