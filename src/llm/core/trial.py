"""When what a provider refused for long is tried again: by one call, after a pause that grows with each refusal.

A health check costs nothing, so it cannot tell that credit is there again, or that a model may be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .call import CallState

if TYPE_CHECKING:
    from .call import Call

_FIRST_PAUSE: Final = 300.0
_LONGEST_PAUSE: Final = 3600.0


class Trial:
    """A key, or a model on it, that is out until a call is served.

    Attributes:
        open: Whether the next call may try it.
    """

    __slots__ = ("_call", "_due", "_pause", "open")

    def __init__(self, now: float) -> None:
        """Begin with a refusal at `now`, in monotonic seconds: five minutes pass first."""
        self.open: bool = False
        self._pause = _FIRST_PAUSE
        self._due = now + self._pause
        self._call: Call | None = None

    def look(self, now: float) -> bool:
        """Open when it is due; return whether it did."""
        left = self._call is not None and self._call.state is CallState.ENDED  # before it was sent
        opens = not self.open and now >= self._due and (self._call is None or left)
        if opens:
            self.open, self._call = True, None
        return opens

    def begin(self, call: Call) -> None:
        """Let `call` try, and nobody else."""
        self.open, self._call = False, call

    def refused(self, now: float, call: Call | None) -> None:
        """Stay out for twice as long, up to an hour, where it was `call` that tried."""
        if self.is_of(call):
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._due, self._call = now + self._pause, None

    def undecided(self, call: Call) -> bool:
        """Let the next call try where `call` did and found nothing out; return whether it was so."""
        if self.is_of(call):
            self.open, self._call = True, None
            return True
        return False

    def is_of(self, call: Call | None) -> bool:
        """Return whether it is `call` that tries."""
        return call is not None and self._call is call
