"""Blocks of tokens that were read before, so that a prompt that begins like another one is not read twice."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING

from .blocks import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from .kv import Shape


class PrefixStore:
    """Whole blocks by all the tokens up to their end; the least recently used go first.

    All its memory is taken at the start, so that it does not grow with what was asked.
    """

    def __init__(self, shape: Shape, blocks: int) -> None:
        """Make room for so many blocks."""
        self.blocks: int = blocks
        self._data = shape.zeros(rows=blocks, room=BLOCK)
        self._free = list(range(blocks))
        self._rows: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many blocks are kept."""
        return len(self._rows)

    def recall(self, tokens: Sequence[int], into: torch.Tensor) -> int:
        """Copy what is known of the beginning of a prompt, and return how many tokens that is.

        At least the last token is left to be read: what comes after it is asked.

        Args:
            tokens: The prompt.
            into: Keys and values, shape `(2, layers, heads, room, dimensions)`.
        """
        found = 0
        for name in _names(tokens[:-1]):
            row = self._rows.get(name)
            if row is None:
                break
            self._rows.move_to_end(name)
            into[:, :, :, found : found + BLOCK] = self._data[:, :, row]
            found += BLOCK
        return found

    def keep(self, tokens: Sequence[int], data: torch.Tensor) -> None:
        """Keep the whole blocks of tokens that were read; `data` holds their keys and values, as in `recall`."""
        names = list(_names(tokens))[: self.blocks]
        for at, name in reversed(list(enumerate(names))):  # the first blocks serve most prompts: they are used last
            if name in self._rows:
                self._rows.move_to_end(name)
                continue
            row = self._free.pop() if self._free else self._rows.popitem(last=False)[1]
            self._rows[name] = row
            self._data[:, :, row] = data[:, :, :, at * BLOCK : (at + 1) * BLOCK]


def _names(tokens: Sequence[int]) -> Iterator[bytes]:
    # A block's name is the digest of all tokens up to its end.
    name = b""
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        name = hashlib.sha256(name + array("q", tokens[start : start + BLOCK]).tobytes()).digest()
        yield name
