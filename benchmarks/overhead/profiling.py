"""Where the time of a way goes."""

from __future__ import annotations

import asyncio
import cProfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .measure import measure

if TYPE_CHECKING:
    from .ways import Way


class Spent(NamedTuple):
    """What a function costs in one call; the profiler makes all of it slower, so compare and do not add up.

    Attributes:
        place: Its file, line and name.
        times: How often it is entered.
        own_us: Microseconds in it.
        whole_us: Microseconds in it and in what it calls.
    """

    place: str
    times: float
    own_us: float
    whole_us: float


def profile(way: Way, base_url: str, *, calls: int, rooms: tuple[str, ...], most: int) -> list[Spent]:
    """Return the costliest functions of some rooms of the package, the costliest first.

    Args:
        way: What to look at.
        base_url: Where the server is.
        calls: How many calls.
        rooms: Parts of the paths of files that count.
        most: How many functions.
    """
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(measure([way], base_url, rounds=1, calls=calls))
    profiler.disable()
    profiler.create_stats()
    made = 2 * calls  # the round to warm up is one too
    found = [
        Spent(f"{Path(file).name}:{line} {name}", entered / made, own / made * 1e6, whole / made * 1e6)
        for (file, line, name), (_, entered, own, whole, _) in profiler.stats.items()
        if any(room in file for room in rooms)
    ]
    return sorted(found, key=lambda spent: -spent.own_us)[:most]
