"""Sizes of charges in steps, for accounts that are too many to ask each: who pays a step pays all below it. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from llm.core.call import Charge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .base import Limit, Unit

_EACH: Final = 2.0**-0.5  # a step's size beside the next: a key is given a charge once it has 1.4 times as much
_LEAST: Final = 1 / 256  # of the smallest allowance; what is smaller is not told apart
_ROUNDING: Final = 1e-6  # of a token
_CENTS: Final = 1.0 - 1e-12


class Steps:
    """Sizes from a small part of the smallest account's allowance up to all of the largest one's, in its units.

    The accounts' own allowances are steps, too: all of those that are among the largest, and of the many smaller ones
    enough that of the accounts that could take a charge four in five or more are known to.

    Attributes:
        charges: The largest charge of each step.
        of_requests: Share of the largest allowance of requests that one takes.
    """

    __slots__ = ("_sizes", "_whole", "charges", "of_requests")

    def __init__(self, accounts: Iterable[Sequence[Limit]]) -> None:
        """Make steps for accounts that have these limits."""
        allowances = [_allowance(limits) for limits in accounts]
        self._whole: dict[Unit, float] = {}
        for allowance in allowances:
            for unit, most in allowance.items():
                self._whole[unit] = max(most, self._whole.get(unit, 0.0))
        self.of_requests: float = 1.0 / max(1.0, self._whole.pop("requests", math.inf))
        self._sizes: list[float] = _sizes([self._share(allowance) for allowance in allowances])
        self.charges: tuple[Charge, ...] = tuple(map(self._charge, self._sizes))

    def of(self, charge: Charge) -> int | None:
        """Return the lowest step that covers a charge; None where none does."""
        size = max([getattr(charge, unit) / whole for unit, whole in self._whole.items()], default=0.0)
        step = bisect_left(self._sizes, size)
        return step if step < len(self._sizes) and charge.requests <= 1 else None

    def most(self, limits: Sequence[Limit]) -> int:
        """Return the highest step that limits can ever let through; -1 where that is none."""
        allowance = _allowance(limits)
        if allowance.get("requests", math.inf) < 1.0:
            return -1
        return bisect_right(self._sizes, self._share(allowance)) - 1

    def share(self, charge: Charge) -> float:
        """Return the share (0 to 1) of the largest allowance that a charge's tokens and dollars take."""
        return min(1.0, max([getattr(charge, unit) / whole for unit, whole in self._whole.items()], default=0.0))

    def _share(self, allowance: Mapping[Unit, float]) -> float:
        return min(
            [most / self._whole[unit] for unit, most in allowance.items() if unit in self._whole], default=math.inf
        )

    def _charge(self, size: float) -> Charge:
        def tokens(unit: Unit) -> int:
            amount = size * self._whole.get(unit, 0.0) if size < math.inf else 0.0
            return math.floor(amount + _ROUNDING)

        cost = size * self._whole.get("cost", 0.0) * _CENTS if size < math.inf else 0.0
        return Charge(tokens("input_tokens"), tokens("output_tokens"), tokens("total_tokens"), cost)


def _allowance(limits: Iterable[Limit]) -> dict[Unit, float]:
    """Return the most that limits let through of each unit."""
    most: dict[Unit, float] = {}
    for limit in limits:
        most[limit.unit] = min(limit.capacity, most.get(limit.unit, math.inf))
    return most


def _sizes(shares: Sequence[float]) -> list[float]:
    ordered = sorted(shares, reverse=True)
    if not ordered or ordered[-1] == math.inf:  # nobody has a limit but of requests, of which each takes one
        return [math.inf]
    sizes = {1.0, ordered[-1]}
    place = 0
    while place < len(ordered):
        sizes.add(ordered[place])
        place += max(1, place // 4)
    size = 1.0
    while size > _LEAST * ordered[-1]:
        size *= _EACH
        sizes.add(size)
    return sorted(sizes)
