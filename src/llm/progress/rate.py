"""How fast rows end, and when the last one will."""

from __future__ import annotations

from typing import Final

RECENT: Final = 30.0
"""Seconds over which a rate is told."""
_LONGEST: Final = 300.0
_SOONEST: Final = 3.0  # seconds of work before a guess is worth more than none


class Window:
    """What came in the last seconds, in slots of equal width: constant memory, however much comes."""

    __slots__ = ("_began", "_input", "_output", "_rows", "_slot", "_slots", "_stamps", "_until", "_width")

    def __init__(self, began: float, *, slots: int, width: float) -> None:
        """Cover `slots` times `width` seconds, from the moment `began`."""
        self._began = began
        self._slots = slots
        self._width = width
        self._slot = 0  # of the last row
        self._until = began  # when that slot is over
        self._stamps = [-1] * slots
        self._rows = [0] * slots
        self._input = [0] * slots
        self._output = [0] * slots

    def add(self, now: float, input_tokens: int, output_tokens: int) -> None:
        """Count one row, and its tokens."""
        if now >= self._until:
            self._move(now)
        slot = self._slot
        self._rows[slot] += 1
        self._input[slot] += input_tokens
        self._output[slot] += output_tokens

    def _move(self, now: float) -> None:
        stamp = int((now - self._began) / self._width)
        self._until = self._began + (stamp + 1) * self._width
        self._slot = slot = stamp % self._slots
        self._stamps[slot] = stamp
        self._rows[slot] = self._input[slot] = self._output[slot] = 0

    def rates(self, now: float, seconds: float) -> tuple[float, float, float]:
        """Return rows, input tokens and output tokens per second over about the last `seconds`."""
        last = int((now - self._began) / self._width)
        first = max(0, last + 1 - min(self._slots, round(seconds / self._width)))
        span = max(now - self._began - first * self._width, 1.0)  # the first rows of all are no rate yet
        slots = [slot for slot, stamp in enumerate(self._stamps) if first <= stamp <= last]
        rows, read, written = (sum(each[slot] for slot in slots) for each in (self._rows, self._input, self._output))
        return rows / span, read / span, written / span


class Outlook(Window):
    """Foretells the end from the recent past. Its time is that of work: pauses are taken out before it is told."""

    __slots__ = ()

    def __init__(self, began: float) -> None:
        """Start at the moment `began`."""
        super().__init__(began, slots=60, width=_LONGEST / 60)

    def seconds_left(self, worked: float, *, done: int, in_flight: int, left: int) -> float | None:
        """Return seconds until `left` more rows have ended; None while nobody can know.

        The future is judged by as long a past, between 30 seconds and 5 minutes: so a run that the limits let go on in
        bursts, one a minute, has a steady end, and a burst of cached answers is soon forgotten near the end. But never
        by the first half of the run so far: full limits let a first burst through, and no second one.
        `done` rows ended in this run. While fewer ended than are `in_flight`, the first round of them still runs.
        """
        if left == 0:
            return 0.0
        if not done or done < in_flight or worked - self._began < _SOONEST:
            return None
        long, *_ = self.rates(worked, _LONGEST)
        if not long:
            return None
        past = min(max(left / long, RECENT), _LONGEST, (worked - self._began) / 2)
        recent, *_ = self.rates(worked, past)
        return left / (recent or long)
