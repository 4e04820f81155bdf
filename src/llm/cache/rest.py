"""How often a store that fails is tried again."""

from __future__ import annotations

from typing import Final

_FIRST: Final = 1.0  # seconds, after a failure; twice as long after each further one
_LONGEST: Final = 30.0
_TRY: Final = 2.0  # seconds that one try has before another may go; longer than a try's own time-outs


class Rest:
    """Keeps all from waiting for a store that just failed: after a pause one tries, and the others if that works."""

    __slots__ = ("_pause", "_tried_until", "_until")

    def __init__(self) -> None:
        """Begin without a failure."""
        self._pause = 0.0
        self._until = 0.0
        self._tried_until = 0.0

    def admits(self, now: float) -> bool:
        """Return whether the store may be asked; after a failure only one is told so, until it is known what came."""
        if not self._pause:
            return True
        if now < max(self._until, self._tried_until):
            return False
        self._tried_until = now + _TRY
        return True

    def failed(self, now: float) -> None:
        """Take in that it does not answer; those that were on their way when it failed count as one."""
        if self._pause and now < self._until:
            return
        self._pause = min(_LONGEST, self._pause * 2 or _FIRST)
        self._until = now + self._pause
        self._tried_until = 0.0

    def worked(self) -> None:
        """Take in that it answered."""
        self._pause = 0.0
        self._tried_until = 0.0
