"""From what a section states to limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from .auto import AutoLimit
from .base import DAY
from .bucket import TokenBucket
from .concurrency import Concurrency
from .moments import Memory
from .own_window import OwnWindow
from .per_call import PerCall
from .told import ToldMemory
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm.core.exceptions import LimitScope

    from .base import Limit, Unit

_UNITS: Final[dict[str, Unit]] = {
    "requests": "requests",
    "tokens": "total_tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost": "cost",
}
PERIODS: Final = {"minute": 60.0, "hour": 3600.0, "day": DAY}


def make_limits(stated: Mapping[str, object], *, level: LimitScope, bucket: bool) -> tuple[Limit, ...]:
    """Make the limits that a section states by field name; `bucket` chooses the algorithm that `auto` stands for.

    Concurrency comes last, since it alone says nothing of when it will be free.
    """
    algorithm = stated.get("algorithm", "auto")
    bucket = algorithm == "token_bucket" or (algorithm == "auto" and bucket)
    told = {period: ToldMemory(period) for period in PERIODS.values()}
    own = {period: Memory(period) for period in PERIODS.values()}
    limits: list[Limit] = []
    for name, value in stated.items():
        what, _, span = name.rpartition("_per_")
        if span in PERIODS and isinstance(value, (int, float)):
            period = PERIODS[span]
            refuses = period >= DAY or what == "cost"
            # Of a day, and above the keys, nothing is ever proved.
            learns = algorithm == "auto" and level == "key" and period < DAY
            kind: Callable[..., Limit]
            if learns:
                kind = partial(AutoLimit, bucket=bucket, memory=told[period])
            elif bucket:
                kind = TokenBucket
            elif level == "key":
                kind = partial(SlidingWindow, memory=told[period])
            else:  # above the keys no provider tells of anything
                kind = partial(OwnWindow, memory=own[period])
            limits.append(kind(name, _UNITS[what], float(value), period, level=level, refuses=refuses))
        elif span == "call" and isinstance(value, (int, float)):
            limits.append(PerCall(name, _UNITS[what], float(value), level=level))
    running = stated.get("concurrent_requests")
    if isinstance(running, (int, float)):
        limits.append(Concurrency("concurrent_requests", float(running), level=level))
    return tuple(limits)
