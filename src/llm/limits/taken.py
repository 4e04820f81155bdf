"""What is taken of a limit, for those who did not see it being taken: told as seconds ago and amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from .auto import AutoLimit
from .bucket import TokenBucket
from .own_window import OwnWindow
from .window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .base import Limit

Told: TypeAlias = "Sequence[tuple[float, float]]"
"""Pairs of seconds ago and amount."""

_SLACK: Final = 1.0  # second that two views of the same taking may differ by
_MOST: Final = 64
"""Pairs that are told of a window: more of them are laid together, as of the latest."""


def crowd(limit: Limit) -> None:
    """Tell a limit that several processes draw, each of which hears a part of the answers."""
    counted = limit.counted if isinstance(limit, AutoLimit) else limit
    if isinstance(counted, TokenBucket | SlidingWindow):
        counted.crowd()


def tell(limit: Limit, now: float) -> Told:
    """Return what is taken of a limit: of a bucket what it lacks now, of a window what is in it."""
    counted = limit.counted if isinstance(limit, AutoLimit) else limit
    if isinstance(counted, TokenBucket):
        lacking = counted.lacking(now)
        return [(0.0, lacking)] if lacking > 0.0 else []
    if isinstance(counted, OwnWindow):
        counted.saturation(now)  # which forgets what has left it
        return _few([(now - at, amount) for at, amount in counted.taken if amount > 0.0])
    return []


def hear(limit: Limit, now: float, told: Told, age: float) -> None:
    """Take what somebody told `age` seconds ago and is not counted here; nothing is given back for it."""
    counted = limit.counted if isinstance(limit, AutoLimit) else limit
    if isinstance(counted, TokenBucket):
        refilled = age * counted.capacity / counted.period
        lacking = sum(amount for _, amount in told) - refilled - counted.lacking(now)
        if lacking > 0.0:
            limit.take(now, lacking)
    elif isinstance(counted, OwnWindow):
        own = [(now - at, amount) for at, amount in counted.taken]
        for ago, missing in _missing([(ago + age, amount) for ago, amount in told], own):
            limit.take(now - ago, missing)


def _few(told: list[tuple[float, float]]) -> Told:
    """Return at most `_MOST` pairs, oldest first."""
    each = -(-len(told) // _MOST) or 1
    parts = [told[first : first + each] for first in range(0, len(told), each)]
    return [(part[-1][0], sum(amount for _, amount in part)) for part in parts]


def _missing(told: Iterable[tuple[float, float]], own: Iterable[tuple[float, float]]) -> Told:
    """Return what must be added, oldest first, so that within any last seconds no less is counted than was told."""
    known, added, said = sorted(own), 0.0, 0.0
    missing: list[tuple[float, float]] = []
    place, counted = 0, 0.0
    for ago, amount in sorted(told):
        said += amount
        while place < len(known) and known[place][0] <= ago + _SLACK:
            counted += known[place][1]
            place += 1
        more = said - counted - added
        if more > 0.0:
            added += more
            missing.append((ago, more))
    return missing[::-1]
