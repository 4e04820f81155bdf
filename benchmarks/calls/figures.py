"""What was measured, as ratios and against targets; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import floor, sqrt
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .shape import ALL_LIMITS, DIALECTS, DISK_HIT, HIT, KEY_LIMITS, NO_LIMITS, NO_METRICS, REDIS_HIT, Dialect, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Part: TypeAlias = Literal["calls", "streams", "memory", "import"]
PARTS: Final[tuple[Part, ...]] = ("calls", "streams", "memory", "import")

AT_ONCE: Final = 32
"""At how many calls at once the targets hold."""
_LEAST_ROUNDS: Final = 4
_NARROW: Final = 0.02
"""How far the median may still be off with a chance of one in twenty, as a part of it, to be settled."""
_OF_HITS: Final = ((HIT, 0.15), (DISK_HIT, 2.0), (REDIS_HIT, 4.0))


@dataclass(frozen=True, slots=True)
class Piece:
    """What is measured in one go, and kept once it is done.

    Attributes:
        part: Which part of the benchmark it belongs to.
        shape: What is called; None for a part that is one piece.
    """

    part: Part
    shape: Shape | None = None

    def __str__(self) -> str:
        """Say it as a heading does."""
        return str(self.shape or self.part)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one way.

    Attributes:
        way: Its name.
        shape: What was called.
        us: Microseconds of a call, or of a chunk of a stream, in each round.
        bare: What a bare one took in the same round, in the same process: the median of many turns.
        failed: Why there are no figures; empty where there are.
    """

    way: str
    shape: Shape
    us: list[float]
    bare: list[float]
    failed: str = ""

    @property
    def ratio(self) -> float:
        """In multiples of a bare one: the median over the rounds.

        Raises:
            statistics.StatisticsError: It failed.
        """
        return median(self.ratios)

    @property
    def settled(self) -> bool:
        """Whether more rounds would hardly move the ratio; true of what failed.

        Where the true median lies is told by the ranks that it has with a chance of 95 %, whatever the distribution.
        """
        if self.failed:
            return True
        ratios, rounds = sorted(self.ratios), len(self.us)
        if rounds < _LEAST_ROUNDS:
            return False
        rank = max(0, floor(rounds / 2 - 0.98 * sqrt(rounds)))
        return ratios[-1 - rank] - ratios[rank] <= 2 * _NARROW * median(ratios)

    @property
    def ratios(self) -> list[float]:
        """In multiples of a bare one, in each round."""
        return [mine / bare for mine, bare in zip(self.us, self.bare, strict=True)]


@dataclass(frozen=True, slots=True)
class Memory:
    """What an open stream takes.

    Attributes:
        way: Its name.
        dialect: Whose.
        bytes_each: Resident memory; 0 where it failed.
        failed: Why there is no figure; empty where there is one.
    """

    way: str
    dialect: Dialect
    bytes_each: float
    failed: str = ""


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
    """All that was measured; what was not asked for is empty.

    Attributes:
        costs: CPU time of calls and of chunks.
        memory: Memory of open streams.
        imports: CPU time of the import.
        made: How each piece was measured, by its name.
        missing: Names of pieces that were asked for and are not there, since the measuring was stopped.
    """

    costs: list[Cost] = field(default_factory=list[Cost])
    memory: list[Memory] = field(default_factory=list[Memory])
    imports: Imports = field(default_factory=Imports)
    made: dict[str, str] = field(default_factory=dict[str, str])
    missing: list[str] = field(default_factory=list[str])

    def cost(self, way: str, shape: Shape) -> Cost | None:
        """Return what a way costs for a shape; None where that was not measured."""
        return next((cost for cost in self.costs if (cost.way, cost.shape) == (way, shape)), None)

    @property
    def names(self) -> set[str]:
        """The pieces that were measured."""
        alone: dict[Part, bool] = {"memory": bool(self.memory), "import": bool(self.imports.ours)}
        return {str(cost.shape) for cost in self.costs} | {part for part, there in alone.items() if there}

    def without(self, parts: Sequence[Part]) -> Figures:
        """Return all but some parts."""
        left = Figures(
            [cost for cost in self.costs if part_of(cost.shape) not in parts],
            [] if "memory" in parts else self.memory,
            Imports() if "import" in parts else self.imports,
        )
        return replace(
            left, made={name: how for name, how in self.made.items() if name in left.names}, missing=self.missing
        )

    def joined(self, more: Figures) -> Figures:
        """Return these and more; what is in both is taken from `more`."""
        shapes = {cost.shape for cost in more.costs}
        return Figures(
            [*(cost for cost in self.costs if cost.shape not in shapes), *more.costs],
            more.memory or self.memory,
            more.imports if more.imports.ours else self.imports,
            {**self.made, **more.made},
            self.missing,
        )


def part_of(shape: Shape) -> Part:
    """Return the part of the benchmark that a shape belongs to."""
    return "streams" if shape.streamed else "calls"


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for, and what came of it; all in multiples of what is bare.

    Attributes:
        name: What it is about.
        value: What was measured; None where what is ours failed.
        most: The most that is asked for.
    """

    name: str
    value: float | None
    most: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value is not None and self.value <= self.most


def targets(figures: Figures) -> list[Target]:
    """Return the targets of which something was measured."""
    found = [target for dialect in DIALECTS for target in _of_dialect(figures, dialect)]
    if figures.imports.ours:
        found.append(Target("import llm", figures.imports.ratio, 4.0))
    return found


def _of_dialect(figures: Figures, dialect: Dialect) -> Iterator[Target]:
    call, stream = Shape(dialect, streamed=False, at_once=AT_ONCE), Shape(dialect, streamed=True, at_once=AT_ONCE)
    levels = {"limits of the key": figures.cost(KEY_LIMITS, call), "all limits": figures.cost(ALL_LIMITS, call)}
    limited = {name: cost for name, cost in levels.items() if cost}
    for name, cost in limited.items():
        yield Target(f"{dialect}: a call, {name} on", _ratio(cost), 1.2)
    if chunked := figures.cost(ALL_LIMITS, stream):
        yield Target(f"{dialect}: a streamed chunk, all limits on", _ratio(chunked), 1.5)
    for way, most in _OF_HITS:
        if hit := figures.cost(way, call):
            yield Target(f"{dialect}: {way}", _ratio(hit), most)
    free = figures.cost(NO_LIMITS, call)
    if free:
        for name, cost in limited.items():
            yield Target(f"{dialect}: what {name} add to a call", added(cost, free), 0.2)
    uncounted = figures.cost(NO_METRICS, call)
    if free and uncounted:
        yield Target(f"{dialect}: what metrics add to a call", added(free, uncounted), 0.07)


def _ratio(cost: Cost) -> float | None:
    return None if cost.failed else cost.ratio


def added(more: Cost, less: Cost) -> float | None:
    """Return the median over the rounds of what one way costs more than another, as a part of a bare call.

    None where one of them failed.
    """
    if more.failed or less.failed:
        return None
    return median(mine - without for mine, without in zip(more.ratios, less.ratios, strict=True))
