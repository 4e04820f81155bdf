"""The calls of one user that wait: how large each is, and in which order they go."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from llm.core.call import Call, Ticket

    from .base import Limit
    from .grant import Grant
    from .memory import Account

Order: TypeAlias = tuple[float, int]
"""Monotonic seconds of arrival, less the call's seniority, and its number: the smallest is first."""

FlowName: TypeAlias = tuple[int, str | None, bool]
"""Priority (negative), user, and whether the calls were sent before."""

Rank: TypeAlias = tuple[int, float, Order]
"""Priority (negative), turn of the user, order of the call: the smallest is first."""

_CLASSES = 16  # of size, half a power of two each: from 1/256 of a key's allowance to all of it
_SENIORITY = 2.0  # seconds for each class


def seniority(share: float) -> float:
    """Return by how many seconds a request that takes `share` (0 to 1) of a key's tokens goes before its arrival.

    Large ones first leave the small ones to fill what is left at the end; with 600 jobs at once on four keys that ends
    the work 1 to 5 % earlier than arrival alone. Nobody is overtaken by who comes more than 32 seconds later.

    Source: R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", 1969 (longest processing time first).
    """
    return _SENIORITY * max(0, math.floor(_CLASSES + 2.0 * math.log2(min(1.0, share)))) if share > 0.0 else 0.0


class Size(NamedTuple):
    """How large a charge is for the slots that can ever pay it.

    Attributes:
        fits: Those slots, by their index.
        tokens: Share (0 to 1) of the largest allowance among them that it takes; requests not counted.
        share: The same, requests counted.
    """

    fits: frozenset[int] = frozenset()
    tokens: float = 0.0
    share: float = 0.0


class Standing(Protocol):
    """Where a waiter stands; the queue."""

    def leave(self, waiter: Waiter) -> None:
        """Take out one that gave up."""

    def move(self, waiter: Waiter) -> None:
        """Place one anew, whose priority changed."""


class Waiter:
    """A call's `Place` in the queue.

    Attributes:
        call: Who waits.
        ticket: What it waits to pay.
        user: The account of its user's limits; None where there are none.
        size: How large its charge is.
        future: Is given the grant, or the reason why there is none.
        order: Its order among its user's calls.
        flow: Among whom it stands; None where it does not.
        held_until: Monotonic seconds until which a limit of its user's own may hold it; None before one does.
    """

    __slots__ = ("_queue", "call", "flow", "future", "held_until", "order", "size", "ticket", "user")

    def __init__(  # noqa: PLR0913 - a waiter's facts
        self,
        call: Call,
        ticket: Ticket,
        *,
        user: Account | None,
        size: Size,
        future: asyncio.Future[Grant],
        queue: Standing,
    ) -> None:
        """Stand nowhere yet."""
        self.call: Call = call
        self.ticket: Ticket = ticket
        self.user: Account | None = user
        self.size: Size = size
        self.future: asyncio.Future[Grant] = future
        self.order: Order = (call.started - seniority(size.tokens), call.number)
        self.flow: Flow | None = None
        self.held_until: float | None = None
        self._queue = queue

    def give_back(self) -> None:
        """Leave the queue."""
        self._queue.leave(self)

    def move(self) -> None:
        """Take the place that the call's new priority gives it."""
        self._queue.move(self)


class Flow:
    """The calls of one user and priority in one lane, by order.

    Calls that come back after a refusal are a flow of their own, before all others of their priority.

    Attributes:
        name: Whose calls.
        since: The turn that was served last as it came.
        rank: Where it stands; None while it stands aside.
        aside: The limit that it stands aside for; None while it does not.
    """

    __slots__ = ("_entries", "_left", "_waiters", "aside", "name", "rank", "since")

    def __init__(self, name: FlowName, since: float) -> None:
        """Start empty."""
        self.name: FlowName = name
        self.since: float = since
        self.rank: Rank | None = None
        self.aside: Limit | None = None
        self._waiters: list[tuple[Order, int, Waiter]] = []
        self._entries = count()
        self._left = 0

    def __len__(self) -> int:
        """Return how many wait, those who left and were not dropped yet included."""
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """Return those who wait, in no order."""
        return (waiter for _, _, waiter in self._waiters if self._holds(waiter))

    def push(self, waiter: Waiter) -> bool:
        """Add one; returns whether it is the first now."""
        waiter.flow = self
        heapq.heappush(self._waiters, (waiter.order, next(self._entries), waiter))
        return self._waiters[0][2] is waiter

    def first(self) -> Waiter | None:
        """Return the first who still waits; who left is dropped as it comes up."""
        while self._waiters:
            waiter = self._waiters[0][2]
            if self._holds(waiter):
                return waiter
            heapq.heappop(self._waiters)
            self._left -= 1
        return None

    def pop(self) -> None:
        """Take out the first."""
        heapq.heappop(self._waiters)[2].flow = None

    def leave(self, waiter: Waiter) -> None:
        """Take out any, at a cost that does not depend on how many wait."""
        waiter.flow = None
        self._left += 1
        if self._left * 2 > len(self._waiters):
            self._waiters = [entry for entry in self._waiters if self._holds(entry[2])]
            heapq.heapify(self._waiters)
            self._left = 0

    def _holds(self, waiter: Waiter) -> bool:
        return waiter.flow is self
