"""What was measured, as ratios and against targets; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from .shape import ALL_LIMITS, DIALECTS, HIT, NO_LIMITS, NO_METRICS, Dialect, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE: Final = 32
"""At how many calls at once the targets hold."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one way.

    Attributes:
        way: Its name.
        shape: What was called.
        us: Microseconds of a call, or of a chunk of a stream, in each round.
        bare: What a bare one took in the same round, in the same process.
    """

    way: str
    shape: Shape
    us: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        """In multiples of a bare one: the median over the rounds."""
        return median(mine / bare for mine, bare in zip(self.us, self.bare, strict=True))


@dataclass(frozen=True, slots=True)
class Memory:
    """What an open stream takes: its way, whose dialect, and bytes of resident memory."""

    way: str
    dialect: Dialect
    bytes_each: float


@dataclass(frozen=True, slots=True)
class Imports:
    """CPU milliseconds of `import llm`, and of the bare imports beside it, for each pair of fresh processes."""

    ours: list[float] = field(default_factory=list[float])
    bare: list[float] = field(default_factory=list[float])

    @property
    def ratio(self) -> float:
        """The median over the pairs."""
        return median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True))


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured; what was not asked for is empty."""

    costs: list[Cost] = field(default_factory=list[Cost])
    memory: list[Memory] = field(default_factory=list[Memory])
    imports: Imports = field(default_factory=Imports)

    def cost(self, way: str, shape: Shape) -> Cost | None:
        """Return what a way costs for a shape; None where that was not measured."""
        return next((cost for cost in self.costs if (cost.way, cost.shape) == (way, shape)), None)


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for, and what came of it; all in multiples of what is bare.

    Attributes:
        name: What it is about.
        value: What was measured.
        most: The most that is asked for.
    """

    name: str
    value: float
    most: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value <= self.most


def targets(figures: Figures) -> list[Target]:
    """Return the targets of which something was measured."""
    found = [target for dialect in DIALECTS for target in _of_dialect(figures, dialect)]
    if figures.imports.ours:
        found.append(Target("import llm", figures.imports.ratio, 4.0))
    return found


def _of_dialect(figures: Figures, dialect: Dialect) -> Iterator[Target]:
    call, stream = Shape(dialect, streamed=False, at_once=_AT_ONCE), Shape(dialect, streamed=True, at_once=_AT_ONCE)
    if limited := figures.cost(ALL_LIMITS, call):
        yield Target(f"{dialect}: a call, all limits on", limited.ratio, 1.2)
    if chunked := figures.cost(ALL_LIMITS, stream):
        yield Target(f"{dialect}: a streamed chunk, all limits on", chunked.ratio, 1.5)
    if hit := figures.cost(HIT, call):
        yield Target(f"{dialect}: {HIT}", hit.ratio, 0.15)
    free = figures.cost(NO_LIMITS, call)
    if limited and free:
        yield Target(f"{dialect}: what limits add to a call", added(limited, free), 0.2)
    uncounted = figures.cost(NO_METRICS, call)
    if free and uncounted:
        yield Target(f"{dialect}: what metrics add to a call", added(free, uncounted), 0.07)


def added(more: Cost, less: Cost) -> float:
    """Return the median over the rounds of what one way costs more than another, as a part of a bare call."""
    triples = zip(more.us, less.us, more.bare, strict=True)
    return median((mine - without) / bare for mine, without, bare in triples)
