"""How the batches stand at their vendor, in words, for whoever watches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .ledger import State
from .values import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.batch.engine import Hearing

    from .ledger import Part
    from .values import Standing


class View:
    """Tells a tracker what the vendor says of all parts together."""

    def __init__(self, tracker: Hearing) -> None:
        """Know nothing yet."""
        self._tracker = tracker
        self._standings: dict[int, Standing] = {}
        self._queued: set[int] = set()

    def stands(self, part: Part, standing: Standing) -> None:
        """Know how a part stands."""
        self._standings[part.plan.number] = standing
        self._queued.discard(part.plan.number)

    def queued(self, part: Part) -> None:
        """Know that the vendor has no room for a part now."""
        self._standings.pop(part.plan.number, None)
        self._queued.add(part.plan.number)

    def forget(self, part: Part) -> None:
        """Know that a part is over."""
        self._standings.pop(part.plan.number, None)
        self._queued.discard(part.plan.number)

    def show(self, parts: Iterable[Part]) -> None:
        """Tell it."""
        there = [part for part in parts if part.state is not State.PLANNED]
        self._tracker.running(sum(part.plan.rows for part in there))
        self._tracker.waiting(self.words(parts) or None)

    def words(self, parts: Iterable[Part]) -> str:
        """Return how the parts stand: `2 batches: in progress 1,200 of 5,000, 1 validating`."""
        held = list(parts)
        counted = Counter(self._word(part) for part in held)
        running = [part for part in held if self._word(part) == "in progress"]
        done = sum(self._standings[part.plan.number].done for part in running)
        of = sum(self._standings[part.plan.number].total or part.plan.rows for part in running)
        said = [f"in progress {done:,} of {of:,}"] if running else []
        said += [
            word if len(held) == 1 else f"{number:,} {word}"
            for word, number in sorted(counted.items())
            if word != "in progress"
        ]
        several = f"{len(held):,} batches: " if len(held) > 1 else ""
        return several + ", ".join(said) if said else ""

    def _word(self, part: Part) -> str:
        number = part.plan.number
        if number in self._queued:
            return "waiting for room in the queue"
        standing = self._standings.get(number)
        if part.state is State.PLANNED:
            return "not sent yet"
        if standing is None:
            return "submitted"
        return "validating" if standing.phase is Phase.CHECKED else "in progress"
