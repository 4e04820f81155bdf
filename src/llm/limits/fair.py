"""Who of those who wait is next: by priority, then fair between users, then by arrival and size. Pure."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

from .flow import Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .flow import FlowName, Rank, Waiter

_LEAST = 1e-6  # of a key's allowance: what a call counts between users where no limit is known
_MANY_USERS = 1024


class Turns:
    """Users of one priority get equal shares of the keys, however many calls each has waiting.

    Start-time fair queueing: a call's turn is where its user's call before it ends, or where the user came; it ends a
    share of a key's allowance later.

    Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996.

    Attributes:
        now: The turn that was served last.
    """

    __slots__ = ("_ends", "_many", "now")

    def __init__(self) -> None:
        """Start with everybody equal."""
        self.now: float = 0.0
        self._ends: dict[str | None, float] = {}
        self._many = _MANY_USERS

    def next(self, user: str | None, since: float) -> float:
        """Return the turn of the user's next call, where the user waits since the turn `since`."""
        return max(since, self._ends.get(user, 0.0))

    def served(self, user: str | None, turn: float, share: float) -> None:
        """Count a call of the user that had `turn` and takes `share` of a key's allowance."""
        self.now = max(self.now, turn)
        self._ends[user] = turn + max(share, _LEAST)
        if len(self._ends) > self._many:
            self._ends = {name: end for name, end in self._ends.items() if end > self.now}
            self._many = max(_MANY_USERS, 2 * len(self._ends))

    def unserved(self, user: str | None, share: float) -> None:
        """Count a call no more that was served and did not go."""
        if user in self._ends:
            self._ends[user] -= max(share, _LEAST)


class Lane:
    """Who waits for one model and fits the same slots; the first stands for all behind it.

    Attributes:
        model: The model.
        fits: The slots that can ever pay those who wait, by their index.
        flows: Those who wait.
    """

    __slots__ = ("_entries", "_heap", "_turns", "fits", "flows", "model")

    def __init__(self, model: str, fits: frozenset[int], turns: dict[int, Turns]) -> None:
        """Start empty; `turns` are the queue's, by priority (negative)."""
        self.model: str = model
        self.fits: frozenset[int] = fits
        self.flows: dict[FlowName, Flow] = {}
        self._turns = turns
        self._heap: list[tuple[Rank, int, Flow]] = []
        self._entries = count()

    def __iter__(self) -> Iterator[Waiter]:
        """Return those who wait, in no order."""
        return (waiter for flow in self.flows.values() for waiter in flow)

    def push(self, waiter: Waiter) -> None:
        """Add a waiter at its place."""
        call = waiter.call
        name = (-call.priority, call.user, call.sends > 0)
        flow = self.flows.get(name)
        if flow is None:
            since = self._turns.setdefault(name[0], Turns()).now
            flow = self.flows[name] = Flow(name, since)
            flow.push(waiter)
            self.stand(flow)
        elif flow.push(waiter) and flow.rank is not None:
            self.stand(flow)

    def head(self) -> Waiter | None:
        """Return who is next; None where nobody waits but those who stand aside."""
        while self._heap:
            rank, _, flow = self._heap[0]
            if rank is flow.rank:
                first = flow.first()
                if first is not None and rank == self._rank(flow, first):
                    return first
            heapq.heappop(self._heap)
            if rank is flow.rank:  # it belongs elsewhere now
                self.stand(flow)
        return None

    def may_be_first(self, waiter: Waiter) -> bool:
        """Return whether a waiter may be the first; open while those who left before it are not dropped. O(1)."""
        if not self._heap:
            return False
        rank, _, flow = self._heap[0]
        return rank is not flow.rank or flow is waiter.flow

    def stand(self, flow: Flow) -> None:
        """Put a flow where its first call belongs."""
        first = flow.first()
        flow.rank = None if first is None else self._rank(flow, first)
        if flow.rank is not None:
            heapq.heappush(self._heap, (flow.rank, next(self._entries), flow))
        elif self.flows.get(flow.name) is flow:
            del self.flows[flow.name]
        if len(self._heap) > 64 + 2 * len(self.flows):
            self._heap = [entry for entry in self._heap if entry[0] is entry[2].rank]
            heapq.heapify(self._heap)

    def serve(self, flow: Flow) -> None:
        """Take out the first of a flow, which goes, and count it as its user's turn."""
        first = flow.first()
        priority, user, returned = flow.name
        if first is not None and not returned:
            turns = self._turns[priority]
            turns.served(user, turns.next(user, flow.since), first.size.share)
        self.drop(flow)

    def drop(self, flow: Flow) -> None:
        """Take out the first of a flow."""
        flow.pop()
        self.stand(flow)

    def leave(self, flow: Flow, waiter: Waiter) -> None:
        """Take out any."""
        flow.leave(waiter)
        if not flow and self.flows.get(flow.name) is flow:
            flow.rank = None
            del self.flows[flow.name]

    def _rank(self, flow: Flow, first: Waiter) -> Rank:
        priority, user, returned = flow.name
        turn = -math.inf if returned else self._turns[priority].next(user, flow.since)
        return priority, turn, first.order
