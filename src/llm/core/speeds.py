"""How fast targets answered of late, and which to ask first because of that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .routing import Target

_SHARE: Final = 0.2  # of the newest answer; the last ten make nine tenths of what is known
_FRESH: Final = 300.0  # seconds that a measurement holds; what is older is measured again
_TURN: Final = 10.0  # seconds that one call gets to measure a target, before another one tries
_REST: Final = 30.0  # seconds that a target stands last, after it failed


@dataclass(slots=True)
class _Track:
    seconds: float | None = None
    at: float = -math.inf
    asked: float = -math.inf
    failed: float = -math.inf

    def rank(self, now: float) -> float:
        if now - self.failed < _REST:
            return math.inf
        if self.seconds is not None and now - self.at < _FRESH:
            return self.seconds
        return -1.0 if now - self.asked >= _TURN else _LATE


_LATE: Final = 1e9  # after all that is measured, before what failed


class Speeds:
    """The exponentially weighted seconds of each target's answers; of streams, those to the first token.

    What is not measured is asked first, by one call at a time, so that it gets measured; so is what was measured five
    minutes ago, for it may have become faster since. What failed stands last for half a minute.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._tracks: dict[tuple[Target, bool], _Track] = {}

    def order(self, now: float, targets: Sequence[Target], *, stream: bool) -> tuple[Target, ...]:
        """Return the targets from the fastest on, for a call that is made now; changes nothing."""
        ranks = [self._track(target, stream=stream).rank(now) for target in targets]
        return tuple([targets[at] for at in sorted(range(len(ranks)), key=ranks.__getitem__)])

    def asked(self, now: float, target: Target, *, stream: bool) -> None:
        """Note that a target is asked, and so measured soon."""
        self._track(target, stream=stream).asked = now

    def answered(self, now: float, target: Target, seconds: float, *, stream: bool) -> None:
        """Note how long a target took to answer."""
        track = self._track(target, stream=stream)
        fresh = track.seconds is not None and now - track.at < _FRESH
        track.seconds = seconds if not fresh else _mixed(track.seconds or 0.0, seconds)
        track.at, track.failed = now, -math.inf

    def overran(self, now: float, target: Target, seconds: float, *, stream: bool) -> None:
        """Note that a call ended before a target had answered it; so long an answer takes at least."""
        track = self._track(target, stream=stream)
        if track.seconds is not None and now - track.at < _FRESH and seconds > track.seconds:
            track.seconds = _mixed(track.seconds, seconds)

    def failed(self, now: float, target: Target, *, stream: bool) -> None:
        """Note that a target could not answer."""
        self._track(target, stream=stream).failed = now

    def _track(self, target: Target, *, stream: bool) -> _Track:
        track = self._tracks.get((target, stream))
        if track is None:
            track = self._tracks[target, stream] = _Track()
        return track


def _mixed(before: float, newest: float) -> float:
    return before + _SHARE * (newest - before)
