"""Who waits, in order, and cheap to leave."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from llm.core.call import Call

    from .grant import Grant
    from .memory import Account


class Waiter:
    """A call's place in a lane.

    Attributes:
        call: Who waits.
        future: Is given the grant, or the reason why there is none.
        key: Its order in the lane: the smallest is first.
    """

    __slots__ = ("_leave", "call", "future", "key")

    def __init__(self, call: Call, future: asyncio.Future[Grant], leave: Callable[[Waiter], None]) -> None:
        """Stand nowhere yet; `leave` is told when the call gives up."""
        self.call: Call = call
        self.future: asyncio.Future[Grant] = future
        self.key: tuple[int, int] = (0, 0)
        self._leave = leave

    def give_back(self) -> None:
        """Leave the queue."""
        self._leave(self)


class Lane:
    """Waiters that the same slots can serve, under the same limits.

    A higher priority goes first, then who came first. Leaving costs O(1): who left is dropped as it comes up, or with
    all others when they are the larger part.
    """

    __slots__ = ("heap", "left", "model", "user")

    def __init__(self, model: str, user: Account | None) -> None:
        """Start empty."""
        self.model: str = model
        self.user: Account | None = user
        self.heap: list[tuple[tuple[int, int], Waiter]] = []
        self.left = 0

    def push(self, waiter: Waiter) -> None:
        """Add a waiter at its place."""
        # A call's number is its arrival, also when it comes back after a refusal: then it is first of its priority.
        waiter.key = (-waiter.call.priority, waiter.call.number)
        heapq.heappush(self.heap, (waiter.key, waiter))

    def head(self) -> Waiter | None:
        """Return the first who still waits."""
        while self.heap:
            key, waiter = self.heap[0]
            if waiter.future.done() or key != waiter.key:
                heapq.heappop(self.heap)
                self.left = max(0, self.left - 1)
            else:
                return waiter
        return None

    def forget(self) -> None:
        """Count one that left."""
        self.left += 1
        if self.left * 2 > len(self.heap):
            self.heap = [entry for entry in self.heap if not entry[1].future.done() and entry[0] == entry[1].key]
            heapq.heapify(self.heap)
            self.left = 0

    def pop(self) -> None:
        """Take the first out."""
        heapq.heappop(self.heap)

    def first_key(self) -> tuple[int, int]:
        """Return the order of the lane among others."""
        return self.heap[0][0] if self.heap else (0, 0)
