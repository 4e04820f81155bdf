"""What each call asks for, and what its caller does to it: all by one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from random import Random

Way: TypeAlias = Literal["whole", "stream", "left", "embed"]

CANCELLED: Final = 0.10
"""Share of the calls that are cancelled; half of them have ended before."""

_WEIGHTS: Final = {"alpha": 35, "beta": 30, "gamma": 8, "delta": 15, "epsilon": 12}
_WAYS: Final[dict[Way, int]] = {"whole": 55, "stream": 35, "left": 5, "embed": 5}
_BOUNDED: Final = 0.05
_SHARED: Final = 0.10
_CACHED: Final = 0.30
_TWINS: Final = 5  # calls that ask the same
_USERS: Final = (None, None, None, "ann", "bob", "cid", "poor")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call.

    Attributes:
        text: What it asks, and what its answer must be; calls that share it are identical.
        provider: Section of the configuration.
        way: Whole, as a stream, as a stream that is left early, or for a vector.
        chunks: Of a stream that is left: how many are read.
        cancel_turns: Turns of the event loop after which it is cancelled; None for never.
        cancel_seconds: Seconds after which it is cancelled; None for never.
        timeout: Its deadline in seconds; None for none.
        user: On whose behalf.
        priority: Higher goes first.
        cached: Whether the cache may answer and keep it.
    """

    text: str
    provider: str
    way: Way
    chunks: int = 0
    cancel_turns: int | None = None
    cancel_seconds: float | None = None
    timeout: float | None = None
    user: str | None = None
    priority: int = 0
    cached: bool = False

    @property
    def cancelled(self) -> bool:
        """Whether its caller cancels it, unless it ends before."""
        return self.cancel_turns is not None or self.cancel_seconds is not None


def planned(calls: int, random: Random, *, name: str) -> list[Asked]:
    """Return so many calls; `name` sets their texts apart from other plans'."""
    asked: list[Asked] = []
    while len(asked) < calls:
        text = f"call-{name}-{len(asked)}-{random.getrandbits(160):040x}"
        first = _asked(text, random)
        twins = _TWINS if first.cached and random.random() < _SHARED / _CACHED / _TWINS else 1
        asked.append(first)
        asked += [_twin(first, random) for _ in range(min(twins, calls - len(asked) + 1) - 1)]
    return asked


def _asked(text: str, random: Random) -> Asked:
    provider = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    way = random.choices(list(_WAYS), list(_WAYS.values()))[0]
    if way == "embed":
        provider = "alpha"
    turns, seconds = _cancellation(random)
    return Asked(
        text,
        provider,
        way,
        chunks=random.randint(0, 4),
        cancel_turns=turns,
        cancel_seconds=seconds,
        timeout=random.uniform(0.002, 0.3) if random.random() < _BOUNDED else None,
        user=random.choice(_USERS),
        priority=random.choice((0, 0, 1, 2)),
        cached=way != "embed" and random.random() < _CACHED,
    )


def _twin(first: Asked, random: Random) -> Asked:
    turns, seconds = _cancellation(random)
    way: Way = random.choice((first.way, first.way, "whole", "stream"))
    return Asked(first.text, first.provider, way, cancel_turns=turns, cancel_seconds=seconds, cached=True)


def _cancellation(random: Random) -> tuple[int | None, float | None]:
    if random.random() >= CANCELLED:
        return None, None
    # By turns the points lie close together, by seconds they reach far: retries, waits, the middle of a stream.
    return (random.randint(0, 40), None) if random.random() < 0.5 else (None, random.uniform(0.0, 0.2))
