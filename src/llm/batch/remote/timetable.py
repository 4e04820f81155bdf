"""When what is done next with each part; every method takes `now`, in monotonic seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .values import Pace


class Timetable:
    """The next time of each part, by its number; a part that it does not know is due at once."""

    def __init__(self, pace: Pace) -> None:
        """Begin empty."""
        self._pace = pace
        self._due: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._waiting: set[int] = set()  # for room

    def due(self, number: int) -> float:
        """Return when a part is due."""
        return self._due.get(number, float("-inf"))

    def sent(self, number: int, now: float) -> None:
        """Know that a part was submitted: the first look comes soon."""
        self._set(number, now, self._pace.first)

    def looked(self, number: int, now: float) -> None:
        """Know that a part was looked at and had not ended: the next look comes after twice the pause."""
        self._set(number, now, min(self._pace.most, 2 * self._pauses.get(number, self._pace.first / 2)))

    def later(self, number: int, now: float, seconds: float | None) -> None:
        """Put a part off by so many seconds at most; None: as after a look."""
        self.looked(number, now)
        if seconds is not None:
            self._due[number] = min(self._due[number], now + seconds)

    def full(self, number: int, now: float, told: float | None) -> None:
        """Know that there was no room for a part; `told` are seconds that the vendor asks to wait."""
        pause = self._pauses.get(number, 0.0)
        pause = min(self._pace.queue_most, max(self._pace.queue, 2 * pause))
        self._set(number, now, pause if told is None else max(told, self._pace.first))
        self._pauses[number] = pause
        self._waiting.add(number)

    def forget(self, number: int) -> None:
        """Know that a part is over; those that wait for room may have it now."""
        self._due.pop(number, None)
        self._pauses.pop(number, None)
        for waiting in self._waiting:
            self._due.pop(waiting, None)
        self._waiting.clear()

    def _set(self, number: int, now: float, seconds: float) -> None:
        self._waiting.discard(number)
        self._pauses[number] = seconds
        self._due[number] = now + seconds
