"""Rows that are still to be answered: which worker has which, and which wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from llm.batch.values import BadRow, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

SECOND: Final = 4
"""Rows on their second try that one worker has at most: if one of them kills it, few others go with it."""

_AT_ONCE: Final = 16
"""Rows in one message: they may be large, and all of them are in memory twice meanwhile."""


class Hand:
    """The rows that one worker has."""

    def __init__(self, size: int) -> None:
        """Begin empty; it takes `size` rows at most."""
        self.size: int = size
        self.rows: dict[int, Row] = {}
        self.second: set[int] = set()


class Stock:
    """Hands rows out until all have ended: new ones as they are read, and those of lost workers once more.

    Rows are known by their place in the input.
    """

    def __init__(self, *, again: bool = True) -> None:
        """Begin empty; `fill` brings rows. `again`: whether rows of lost workers are asked again."""
        self._once = not again
        self._new: deque[Row] = deque()
        self._again: deque[Row] = deque()
        self._out = 0
        self._read = False
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether every row has ended."""
        return self._read and not (self._new or self._again or self._out)

    @property
    def out(self) -> int:
        """How many rows workers have."""
        return self._out

    async def fill(
        self, portions: AsyncIterator[Sequence[Row | BadRow]], refuse: Callable[[BadRow], Awaitable[None]]
    ) -> None:
        """Bring in all rows, the next portion once those before are taken; `refuse` gets those that are none."""
        async for portion in portions:
            self._new.extend(row for row in portion if isinstance(row, Row))
            self._changed.set()
            for row in portion:
                if isinstance(row, BadRow):
                    await refuse(row)
            while self._new:
                await self._change()
        self._read = True
        self._changed.set()

    async def any(self) -> bool:
        """Wait for a first row; return whether there is one."""
        while not (self._new or self._again or self._read):
            await self._change()
        return not self.over

    async def ended(self) -> None:
        """Wait until every row has ended."""
        while not self.over:
            await self._change()

    async def take(self, hand: Hand) -> Sequence[Row]:
        """Wait for rows that the hand has room for, and put them there; none: every row has ended, whoever had it."""
        while not self.over:
            if rows := self._fitting(hand):
                hand.rows.update((row.order, row) for row in rows)
                self._out += len(rows)
                self._changed.set()
                return rows
            await self._change()
        return ()

    def end(self, hand: Hand, orders: Iterable[int]) -> None:
        """Take rows that have ended out of a hand."""
        for order in orders:
            del hand.rows[order]
            hand.second.discard(order)
            self._out -= 1
        self._changed.set()

    def lose(self, hand: Hand) -> Sequence[Row]:
        """Take all rows of a lost worker back, for their second try; return those that have none left."""
        lost = list(hand.rows.values())
        ended = [row for row in lost if self._once or row.order in hand.second]
        self._again.extend(row for row in lost if not self._once and row.order not in hand.second)
        hand.rows.clear()
        hand.second.clear()
        self._out -= len(lost)
        self._changed.set()
        return ended

    def _fitting(self, hand: Hand) -> list[Row]:
        room = min(_AT_ONCE, hand.size - len(hand.rows))
        rows = [self._again.popleft() for _ in range(min(room, SECOND - len(hand.second), len(self._again)))]
        hand.second.update(row.order for row in rows)
        rows += [self._new.popleft() for _ in range(min(room - len(rows), len(self._new)))]
        return rows

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
