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
    """

    __slots__ = ("_harmless", "_places", "_version", "entries", "ladder", "turn")

    def __init__(self, entries: tuple[tuple[Slot, Account], ...], ladder: Ladder | None = None) -> None:
        """Start with the first."""
        self.entries: tuple[tuple[Slot, Account], ...] = entries
        self.ladder: Ladder | None = ladder
        self.turn: int = 0
        self._places = {slot: place for place, (slot, _) in enumerate(entries)}
        self._version = -1
        self._harmless: Most | None = None

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

    def is_harmless(self, charge: Charge, shared: Callable[[], Iterable[Limit]], version: int) -> bool:
        """Return whether no limit, `shared` ones included, can refuse a charge at once; `version` is the limits'."""
        if self._version != version:
            of_keys = [limit for _, account in self.entries for limit in account.limits]
            self._version, self._harmless = version, Most.of([*shared(), *of_keys])
        return self._harmless is not None and self._harmless.covers(charge)
