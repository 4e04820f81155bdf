"""The slots that have a model, in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .most import Most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llm.core.call import Charge
    from llm.core.keys import Slot

    from .base import Limit
    from .ladder import Ladder
    from .memory import Account


class Ring:
    """The slots that have a model, and whose turn it is.

    Attributes:
        entries: The slots with their accounts, in the order of the configuration.
        turn: Place of the slot that is next.
        ladder: Finds it where they are too many to ask each; else None.
        budgets: Whether a limit of theirs, or of all, refuses what does not fit now; known since `covers` was asked.
    """

    __slots__ = ("_most", "_places", "_version", "budgets", "entries", "ladder", "turn")

    def __init__(self, entries: tuple[tuple[Slot, Account], ...], ladder: Ladder | None = None) -> None:
        """Start with the first."""
        self.entries: tuple[tuple[Slot, Account], ...] = entries
        self.ladder: Ladder | None = ladder
        self.turn: int = 0
        self._places = {slot: place for place, (slot, _) in enumerate(entries)}
        self.budgets: bool = False
        self._version = -1
        self._most = Most(())

    def took(self, slot: Slot) -> None:
        """Pass the turn on from a slot that was taken."""
        place = self._places[slot]
        self.turn = (place + 1) % len(self.entries)
        if self.ladder is not None:
            self.ladder.took(*self.entries[place])

    def in_turn(self) -> Iterator[tuple[Slot, Account]]:
        """Return all, the next in turn first."""
        entries, turn = self.entries, self.turn
        for place in range(turn, turn + len(entries)):
            yield entries[place % len(entries)]

    def covers(self, charge: Charge, shared: Callable[[], Iterable[Limit]], version: int) -> bool:
        """Return whether a charge fits every limit, `shared` ones included, by itself; `version` is the limits'."""
        if self._version != version:
            limits = [*shared(), *(limit for _, account in self.entries for limit in account.limits)]
            self._version, self._most = version, Most(limits)
            self.budgets = any(limit.refuses for limit in limits)
        return self._most.covers(charge)
