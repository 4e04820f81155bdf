"""Who has memory: the rows of one model's requests, within a number of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .blocks import BLOCK, blocks_of, room_for
from .kv import Chunk, Rows, Shelf

if TYPE_CHECKING:
    import torch

    from .attention import Part
    from .kv import Shape
    from .sequence import Sequence

_MORE: Final = 4  # rows that a shelf gets at once, if there is memory for them


class Room:
    """Memory for the requests that run, counted in blocks as it is allocated.

    Whoever finds no room gets False, and asks again when another one has left.
    """

    def __init__(self, shape: Shape, *, blocks: int, window: int) -> None:
        """Allow so many blocks, for requests of at most `window` tokens; nothing is allocated yet."""
        self.blocks: int = blocks
        self._shape = shape
        self._window = window
        self._top = blocks_of(window) * BLOCK
        self._shelves: dict[int, Shelf[Sequence]] = {}

    @property
    def used(self) -> int:
        """Blocks of the rows that requests have."""
        return sum(len(shelf.owners) * shelf.row_blocks for shelf in list(self._shelves.values()))

    @property
    def longest(self) -> int:
        """Tokens of the longest request that can be served, alone: it needs two rows while it moves to a larger one."""
        if 2 * self._top <= self.blocks * BLOCK:
            return self._window
        room = room_for(1)
        while 4 * room <= self.blocks * BLOCK:
            room *= 2
        return room

    @property
    def answering(self) -> list[Sequence]:
        """Who answers, in the order of `parts`."""
        return [owner for shelf in self._ordered() for owner in shelf.owners[: shelf.answering]]

    def parts(self) -> list[Part]:
        """Return all that answer as parts of a pass in which each reads one token."""
        return [
            Rows(shelf, self._shape, [owner.read + 1 for owner in shelf.owners[: shelf.answering]])
            for shelf in self._ordered()
            if shelf.answering
        ]

    def chunk(self, sequence: Sequence, tokens: int) -> Part:
        """Return the next tokens of a request that reads, as part of a pass."""
        return Chunk(self._shelf(sequence).view(sequence), self._shape, sequence.read, tokens)

    def enter(self, sequence: Sequence) -> bool:
        """Give a row to a request that will read its tokens; whether there is one."""
        shelf = self._free_row(len(sequence.tokens) + 1)
        if shelf is None:
            return False
        shelf.enter(sequence)
        return True

    def answer(self, sequence: Sequence) -> None:
        """Count a request that has read its tokens among those that answer."""
        self._shelf(sequence).answer(sequence)

    def widen(self, sequence: Sequence) -> bool:
        """See to it that the row of a request that answers has room for its next token."""
        old = self._shelf(sequence)
        if sequence.read < old.room:
            return True
        new = self._free_row(sequence.read + 1)
        if new is None:
            return False
        new.enter(sequence)
        new.view(sequence)[:, :, :, : sequence.read] = old.view(sequence)
        new.answer(sequence)
        old.leave(sequence)
        return True

    def left(self, sequence: Sequence) -> int:
        """Return how many more tokens the row of a request has room for."""
        return self._shelf(sequence).room - sequence.read

    def view(self, sequence: Sequence) -> torch.Tensor:
        """Return keys and values in a request's row, shape `(2, layers, heads, room, dimensions)`."""
        return self._shelf(sequence).view(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Take a request's row back, if it has one."""
        for shelf in self._shelves.values():
            if sequence in shelf.owners:
                shelf.leave(sequence)

    def cleanse(self, leaving: Sequence) -> None:
        """Take what is no number out of all rows, but for what others than who leaves have read."""
        for shelf in self._shelves.values():
            shelf.cleanse(leaving)

    def _ordered(self) -> list[Shelf[Sequence]]:
        return [shelf for _, shelf in sorted(self._shelves.items())]

    def _shelf(self, sequence: Sequence) -> Shelf[Sequence]:
        return next(shelf for shelf in self._shelves.values() if sequence in shelf.owners)

    def _free_row(self, tokens: int) -> Shelf[Sequence] | None:
        room = min(room_for(tokens), self._top)
        if room not in self._shelves:
            self._shelves[room] = Shelf(self._shape, room, max(1, self.blocks * BLOCK // room))
        shelf = self._shelves[room]
        if len(shelf.owners) < shelf.rows:
            return shelf
        for more in (_MORE, 1):
            if self._fits(more * shelf.row_blocks):
                shelf.resize(shelf.rows + more)
                return shelf
        return None

    def _fits(self, blocks: int) -> bool:
        if self._allocated() + blocks <= self.blocks:
            return True
        for shelf in self._shelves.values():  # rows that nobody uses, before anybody waits
            if shelf.rows > len(shelf.owners):
                shelf.resize(len(shelf.owners))
        return self._allocated() + blocks <= self.blocks

    def _allocated(self) -> int:
        return sum(shelf.rows * shelf.row_blocks for shelf in self._shelves.values())
