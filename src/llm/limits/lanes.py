"""Who waits, in order, and cheap to leave."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from llm.core.call import Call, Ticket

    from .grant import Grant
    from .memory import Account


class Waiter:
    """A call's place in a lane.

    Attributes:
        call: Who waits.
        ticket: What it waits to pay.
        lane: Where.
        future: Is given the grant, or the reason why there is none.
        key: Its order in the lane: the smallest is first.
    """

    __slots__ = ("_leave", "call", "future", "key", "lane", "ticket")

    def __init__(
        self, call: Call, ticket: Ticket, lane: Lane, future: asyncio.Future[Grant], leave: Callable[[Waiter], None]
    ) -> None:
        """Stand nowhere yet; `leave` is told when the call gives up."""
        self.call: Call = call
        self.ticket: Ticket = ticket
        self.lane: Lane = lane
        self.future: asyncio.Future[Grant] = future
        self.key: tuple[int, int, int] = (0, 0, 0)
        self._leave = leave

    def give_back(self) -> None:
        """Leave the queue."""
        self._leave(self)


class Lane:
    """Waiters that the same slots can serve, under the same limits.

    A higher priority goes first, then who came first. Leaving costs O(1): who left is dropped as it comes up, or with
    all others when they are the larger part.
    """

    __slots__ = ("_entries", "_left", "heap", "model", "user")

    def __init__(self, model: str, user: Account | None) -> None:
        """Start empty."""
        self.model: str = model
        self.user: Account | None = user
        self.heap: list[tuple[tuple[int, int, int], Waiter]] = []
        self._entries = count()
        self._left = 0

    def push(self, waiter: Waiter) -> None:
        """Add a waiter at its place."""
        # A call's number is its arrival, also when it comes back after a refusal: then it is first of its priority.
        waiter.key = (-waiter.call.priority, waiter.call.number, next(self._entries))
        heapq.heappush(self.heap, (waiter.key, waiter))

    def head(self) -> Waiter | None:
        """Return the first who still waits."""
        while self.heap:
            waiter = self.heap[0][1]
            if waiter.future.done():
                heapq.heappop(self.heap)
                self._left -= 1
            elif waiter.key[0] != -waiter.call.priority:  # somebody more urgent waits for this call's answer now
                heapq.heappop(self.heap)
                self.push(waiter)
            else:
                return waiter
        return None

    def forget(self) -> None:
        """Count one that left, and whose future is done."""
        self._left += 1
        if self._left * 2 > len(self.heap):
            self.heap = [entry for entry in self.heap if not entry[1].future.done()]
            heapq.heapify(self.heap)
            self._left = 0

    def pop(self) -> Waiter:
        """Take the first out."""
        return heapq.heappop(self.heap)[1]
