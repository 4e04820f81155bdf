"""The memory of the tokens that were read: keys and values of all layers, without gaps, so that nothing is gathered.

Each request has a row on a shelf. A shelf is one tensor whose rows have room for the same number of tokens, so all that
answer from one shelf attend in one operation, padded only to the longest of them. A request that outgrows its row moves
to the shelf with twice the room.
"""

from __future__ import annotations

from mmap import mmap
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch.nn.functional import scaled_dot_product_attention

from .blocks import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .attention import Where


class Shape(NamedTuple):
    """What one token takes.

    Attributes:
        layers: Layers of the network.
        heads: Heads of keys and values in each.
        dimensions: Numbers in each head.
        dtype: Type of the numbers.
        device: Where they are.
    """

    layers: int
    heads: int
    dimensions: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Bytes of one token."""
        return 2 * self.layers * self.heads * self.dimensions * self.dtype.itemsize

    def zeros(self, *, rows: int, room: int) -> torch.Tensor:
        """Return memory for rows of tokens, shape `(2, layers, rows, heads, room, dimensions)`.

        What is never written is zero: a row is multiplied up to the length of the longest, and hidden numbers must at
        least be numbers. On a CPU the system gives such memory page by page, as it is first touched.
        """
        size = (2, self.layers, rows, self.heads, room, self.dimensions)
        if self.device.type != "cpu" or rows == 0:
            return torch.zeros(size, dtype=self.dtype, device=self.device)
        return torch.frombuffer(mmap(-1, self.token_bytes * rows * room), dtype=self.dtype).view(*size)


class Owner(Protocol):
    """Whose tokens are in a row.

    Attributes:
        read: How many.
    """

    read: int


T = TypeVar("T", bound=Owner)


class Shelf(Generic[T]):
    """Rows of one room. Those of owners that answer come first, then those of owners that read; then unused ones."""

    def __init__(self, shape: Shape, room: int, most: int) -> None:
        """Start with no row of the `most` there may be."""
        self.room: int = room
        self.owners: list[T] = []
        self.answering: int = 0
        self.rows: int = 0
        self._shape = shape
        self._most = most
        self._data = shape.zeros(rows=0, room=room)

    @property
    def row_blocks(self) -> int:
        """Blocks of one row."""
        return self.room // BLOCK

    def resize(self, rows: int) -> None:
        """Have so many rows, at least those that are owned."""
        held = self._data.shape[2]
        if rows > held or rows < self.rows:
            # A CPU gives memory as it is first written: all rows are asked for at once, and need not move later.
            whole = self._most if self._shape.device.type == "cpu" and rows else rows
            data, owned = self._shape.zeros(rows=whole, room=self.room), len(self.owners)
            data[:, :, :owned] = self._data[:, :, :owned]
            self._data = data
        self.rows = rows

    def enter(self, owner: T) -> None:
        """Give the next row to one that reads."""
        self.owners.append(owner)

    def answer(self, owner: T) -> None:
        """Count one that reads among those that answer."""
        row, first = self.owners.index(owner), self.answering
        self.answering += 1
        if row != first:
            kept = self._data[:, :, first].clone()
            self._move(row, first)
            self._data[:, :, row] = kept
            self.owners[row], self.owners[first] = self.owners[first], owner

    def leave(self, owner: T) -> None:
        """Take a row back; the last of those that answer, and then the last of all, move into the gap."""
        gap = self.owners.index(owner)
        if gap < self.answering:
            self.answering -= 1
            gap = self._fill(gap, self.answering)
        self._fill(gap, len(self.owners) - 1)
        self.owners.pop()

    def cleanse(self, leaving: T) -> None:
        """Put zero where there is no number, but for what others than who leaves have read: that fails them, too."""
        for row in range(self.rows):
            owner = self.owners[row] if row < len(self.owners) else leaving
            read = 0 if owner is leaving else owner.read
            self._data[:, :, row, :, read:].nan_to_num_(0.0, 0.0, 0.0)

    def view(self, owner: T) -> torch.Tensor:
        """Return an owner's row, shape `(2, layers, heads, room, dimensions)`."""
        return self._data[:, :, self.owners.index(owner)]

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a layer, each of shape `(rows, heads, room, dimensions)`."""
        return self._data[0, layer], self._data[1, layer]

    def _fill(self, gap: int, row: int) -> int:
        if row != gap:
            self._move(row, gap)
            self.owners[gap] = self.owners[row]
        return row

    def _move(self, row: int, gap: int) -> None:
        tokens = self.owners[row].read
        self._data[:, :, gap, :, :tokens] = self._data[:, :, row, :, :tokens]


class _Masks:
    # What is hidden in one pass, by the window that a layer sees: made for the first layer of each.
    def __init__(self, longest: int, make: Callable[[int | None], torch.Tensor | None]) -> None:
        self._longest = longest
        self._make = make
        self._made: dict[int | None, torch.Tensor | None] = {}

    def of(self, window: int | None) -> torch.Tensor | None:
        if window is not None and window >= self._longest:
            window = None
        if window not in self._made:
            self._made[window] = self._make(window)
        return self._made[window]


class Rows:
    """The rows that answer on a shelf, each with one token that comes after those it holds."""

    def __init__(self, shelf: Shelf[Any], shape: Shape, lengths: Sequence[int]) -> None:
        """Take the shelf and the tokens of each row, the new one included."""
        self.tokens: int = len(lengths)
        self._shelf = shelf
        self._shape = shape
        self._longest = max(lengths)
        self._equal = min(lengths) == self._longest
        self._lengths = torch.tensor(lengths, device=shape.device)
        heads = torch.arange(self.tokens * shape.heads, device=shape.device).view(self.tokens, shape.heads)
        self._places = (heads * shelf.room + self._lengths.unsqueeze(1) - 1).flatten()
        self._masks = _Masks(self._longest, self._make_mask)

    def attend(self, where: Where, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Put one token into each row, and let it see its row; as `Part`."""
        shape, (keys, values) = self._shape, self._shelf.layer(where.layer)
        keys.view(-1, shape.dimensions).index_copy_(0, self._places, key.reshape(-1, shape.dimensions))
        values.view(-1, shape.dimensions).index_copy_(0, self._places, value.reshape(-1, shape.dimensions))
        # The queries that share a head of keys are rows of one product: it is read once for all of them.
        found = scaled_dot_product_attention(
            query.reshape(self.tokens, shape.heads, -1, shape.dimensions),
            keys[: self.tokens, :, : self._longest],
            values[: self.tokens, :, : self._longest],
            attn_mask=self._masks.of(where.window),
            scale=where.scale,
        )
        return found.reshape(self.tokens, -1, shape.dimensions)

    def _make_mask(self, window: int | None) -> torch.Tensor | None:
        if self._equal and window is None:
            return None
        places = torch.arange(self._longest, device=self._shape.device)
        ends = self._lengths.unsqueeze(1)
        hidden = places >= ends
        if window is not None:
            hidden = hidden | (places < ends - window)
        return _hiding(hidden, self._shape.dtype).view(self.tokens, 1, 1, -1)


class Chunk:
    """The next tokens of one prompt."""

    def __init__(self, row: torch.Tensor, shape: Shape, start: int, tokens: int) -> None:
        """Take a row as `Shelf.view` gives it, how many tokens it holds, and how many come now."""
        self.tokens: int = tokens
        self._row = row
        self._shape = shape
        self._start = start
        self._end = start + tokens
        self._masks = _Masks(self._end, self._make_mask)

    def attend(self, where: Where, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Add the tokens to the row, and let each see those before it; as `Part`."""
        keys, values = self._row[0, where.layer], self._row[1, where.layer]
        keys[:, self._start : self._end] = key.transpose(0, 1)
        values[:, self._start : self._end] = value.transpose(0, 1)
        mask = self._masks.of(where.window)
        found = scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            keys[:, : self._end].unsqueeze(0),
            values[:, : self._end].unsqueeze(0),
            attn_mask=mask,
            is_causal=mask is None and self.tokens > 1,
            scale=where.scale,
            enable_gqa=True,
        )
        return found[0].transpose(0, 1)

    def _make_mask(self, window: int | None) -> torch.Tensor | None:
        if window is None and (self._start == 0 or self.tokens == 1):
            return None
        places = torch.arange(self._end, device=self._shape.device)
        own = places[self._start :].unsqueeze(1)
        hidden = places > own
        if window is not None:
            hidden = hidden | (places <= own - window)
        return _hiding(hidden, self._shape.dtype)


def _hiding(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
