"""How long those who wait already keep a call waiting: what they ask of the limits, at the rate that these refill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import GUARD, Binding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm.core.call import Charge

    from .base import Limit


def behind(limits: Iterable[Limit], charges: Sequence[Charge], now: float) -> Binding:
    """Return the limit that keeps the last of `charges` waiting longest, where all of them pay it in turn."""
    return _longest([[limit] for limit in limits], charges, now)


def behind_keys(of_keys: Sequence[Sequence[Limit]], charges: Sequence[Charge], now: float) -> Binding:
    """Return the same for keys that share the charges; a limit that some key does not have binds nobody."""
    names = dict.fromkeys(limit.name for limits in of_keys for limit in limits)
    alike = [[limit for limits in of_keys for limit in limits if limit.name == name] for name in names]
    return _longest([group for group in alike if len(group) == len(of_keys)], charges, now)


def _longest(groups: Iterable[Sequence[Limit]], charges: Sequence[Charge], now: float) -> Binding:
    bounds = [Binding(_seconds(group, charges, now), group[0]) for group in groups]
    return max(bounds, key=lambda bound: bound.seconds, default=Binding())


def _seconds(limits: Sequence[Limit], charges: Sequence[Charge], now: float) -> float:
    """Return seconds until limits that are drawn on together have all that `charges` ask."""
    rate = sum(limit.capacity / period for limit in limits if (period := getattr(limit, "period", 0.0)))
    if not rate:  # when a call ends nobody knows
        return 0.0
    left = sum(limit.capacity * (1.0 - limit.saturation(now)) for limit in limits)
    missing = sum(getattr(charge, limits[0].unit) for charge in charges) - left
    return missing / rate + GUARD if missing > 0.0 else 0.0
