"""In which order the targets of an alias are tried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .routing import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Strategy: TypeAlias = Literal["fallback", "weighted", "cheapest", "fastest"]


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of one's own for several targets.

    Attributes:
        targets: Where it goes, in the order of the configuration.
        strategy: What decides which is tried first, and which follow it.
        weights: For `weighted`: a number for each target; None: all the same.
    """

    targets: tuple[Target, ...]
    strategy: Strategy = "fallback"
    weights: tuple[float, ...] | None = None

    @classmethod
    def read(cls, targets: Sequence[str], strategy: Strategy, weights: Sequence[float] | None) -> Alias:
        """Make one of `provider/model` texts, as the configuration has them."""
        parts = [target.partition("/") for target in targets]
        return cls(
            tuple([Target(provider, model) for provider, _, model in parts]),
            strategy,
            None if weights is None else tuple(weights),
        )


def by_weight(alias: Alias, dice: Callable[[], float]) -> tuple[Target, ...]:
    """Return the targets as if each were drawn from those left, by their weights.

    `dice` returns a number from 0 up to, but not, 1. Each target's time to a first event, at the rate of its weight,
    puts them in that very order.

    Source: P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    weights = alias.weights or (1.0,) * len(alias.targets)
    times = [-math.log1p(-dice()) / weight for weight in weights]
    return tuple([alias.targets[at] for at in sorted(range(len(times)), key=times.__getitem__)])


def by_price(alias: Alias, price: Callable[[Target], float | None]) -> tuple[Target, ...]:
    """Return the targets from the cheapest on; those whose price (in US dollars) is unknown last, in their order."""
    prices = [price(target) for target in alias.targets]
    known = [math.inf if cost is None else cost for cost in prices]
    return tuple([alias.targets[at] for at in sorted(range(len(known)), key=known.__getitem__)])
