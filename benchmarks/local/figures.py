"""What was measured, as ratios and against targets; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Final

from .shape import AS_CAME, LLAMA, LLAMA_Q8, NAIVE, NO_HALVES, NO_LOOKUP, OURS, SERVE, STATIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .shape import Answer

LEAST: Final[dict[str, dict[int, float]]] = {
    NAIVE: {1: 0.9, 4: 2.8, 16: 6.0, 32: 8.0},
    SERVE: {1: 1.0, 4: 1.0, 16: 1.5, 32: 2.2},
    LLAMA: {1: 0.5, 4: 1.2, 16: 1.9, 32: 2.3},
}
"""How many times as fast ours is at least, by the number of requests at once."""
COMPARED: Final = (NO_LOOKUP, NO_HALVES, AS_CAME, NAIVE, STATIC, SERVE, LLAMA, LLAMA_Q8)

WARM_PREFIX: Final = "first token behind a warm prefix of 1,000 tokens, x cold"
HELD_UP: Final = "longest gap of a stream while a prompt of 2,800 tokens comes in, s"
IDLE: Final = "CPU over 5 idle seconds, s"
KEPT: Final = "memory kept after 1,000 short requests, MiB"
MOST: Final[dict[str, float]] = {WARM_PREFIX: 1 / 6, HELD_UP: 0.4, IDLE: 0.05, KEPT: 8.0}
"""What is promised of ours: of the stall that a study had without chunks half, and of nothing next to nothing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one engine did in one round.

    Attributes:
        engine: Its name.
        at_once: How many requests came at the same time.
        number: Of the round, from 0.
        tokens_s: Generated tokens per second, until the last answer's end.
        first: Seconds to the first piece of text: the median of the requests, and the longest.
        gaps: Seconds between two pieces of a text: median, 99th percentile, longest.
        peak: Bytes of resident memory at most, of the process that runs the model; 0 where the system does not say.
    """

    engine: str
    at_once: int
    number: int
    tokens_s: float
    first: tuple[float, float]
    gaps: tuple[float, float, float]
    peak: int


@dataclass(frozen=True, slots=True)
class Promise:
    """One of the other promises, measured.

    Attributes:
        what: Which.
        engine: Whose figure it is.
        value: The figure; None where it failed.
    """

    what: str
    engine: str
    value: float | None

    @property
    def word(self) -> str:
        """Whether it is kept; empty for engines that promised nothing."""
        if self.engine != OURS:
            return ""
        return "met" if self.value is not None and self.value <= MOST[self.what] else "missed"


@dataclass(frozen=True, slots=True)
class Target:
    """How many times as fast as another engine ours has to be.

    Attributes:
        against: The other engine.
        at_once: How many requests came at the same time.
        ratio: Ours over the other's tokens per second; None where ours failed.
        least: What is wanted; None: there is no target.
    """

    against: str
    at_once: int
    ratio: float | None
    least: float | None

    @property
    def word(self) -> str:
        """Whether it is met; empty without a target."""
        if self.least is None:
            return ""
        return "met" if self.ratio is not None and self.ratio >= self.least else "missed"


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured.

    Attributes:
        made: Where, when and how.
        turns: Of all engines and rounds.
        promises: The other promises.
        failed: Why an engine has no figures, or no more.
    """

    made: str = ""
    turns: list[Turn] = field(default_factory=list[Turn])
    promises: list[Promise] = field(default_factory=list[Promise])
    failed: dict[str, str] = field(default_factory=dict[str, str])

    def with_turn(self, turn: Turn) -> Figures:
        """Return these and one more turn."""
        return replace(self, turns=[*self.turns, turn])

    def with_failure(self, engine: str, why: str) -> Figures:
        """Return these and why an engine has no more turns."""
        return replace(self, failed={**self.failed, engine: why})

    @property
    def counts(self) -> list[int]:
        """Numbers of requests at once that there are figures for."""
        return sorted({turn.at_once for turn in self.turns})

    def middle(self, engine: str, at_once: int) -> Turn | None:
        """Return the medians over the rounds of all that a turn has; None: there is none."""
        mine = [turn for turn in self.turns if (turn.engine, turn.at_once) == (engine, at_once)]
        if not mine:
            return None
        first = [median(turn.first[place] for turn in mine) for place in range(2)]
        gaps = [median(turn.gaps[place] for turn in mine) for place in range(3)]
        return Turn(
            engine,
            at_once,
            len(mine),
            median(turn.tokens_s for turn in mine),
            (first[0], first[1]),
            (gaps[0], gaps[1], gaps[2]),
            round(median(turn.peak for turn in mine)),
        )

    def targets(self) -> list[Target]:
        """Return how ours stands against each engine that was measured beside it, or at all where ours failed."""
        return [
            Target(against, at_once, self._ratio(against, at_once), LEAST.get(against, {}).get(at_once))
            for against in COMPARED
            for at_once in self.counts
            if self.middle(against, at_once) and (self.middle(OURS, at_once) or OURS in self.failed)
        ]

    def _ratio(self, against: str, at_once: int) -> float | None:
        """Return ours over the other's: the median over the rounds that both have, so that a slow moment hits both."""
        ours = self._by_round(OURS, at_once)
        other = self._by_round(against, at_once)
        pairs = [ours[number] / other[number] for number in ours.keys() & other.keys()]
        return median(pairs) if pairs else None

    def _by_round(self, engine: str, at_once: int) -> dict[int, float]:
        return {turn.number: turn.tokens_s for turn in self.turns if (turn.engine, turn.at_once) == (engine, at_once)}


def turn_of(engine: str, number: int, answers: Sequence[Answer], peak: int) -> Turn:
    """Return what a turn's answers come to."""
    firsts = sorted(answer.pieces[0] - answer.begun for answer in answers)
    gaps = sorted(gap for answer in answers for gap in gaps_of(answer)) or [0.0]
    seconds = max(answer.pieces[-1] for answer in answers)
    return Turn(
        engine,
        len(answers),
        number,
        sum(answer.tokens for answer in answers) / seconds,
        (median(firsts), firsts[-1]),
        (median(gaps), gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)], gaps[-1]),
        peak,
    )


def gaps_of(answer: Answer, since: float = 0.0) -> list[float]:
    """Return the seconds between two pieces of an answer, of the pieces that came after a moment of the turn."""
    pairs = zip(answer.pieces, answer.pieces[1:], strict=False)
    return [later - earlier for earlier, later in pairs if later >= since]
