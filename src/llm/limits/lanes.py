"""All who wait for a provider's keys, in their lanes, and who stands aside for a limit of their own."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

from .fair import Lane, Turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm.core.call import Charge, Ticket

    from .base import Limit
    from .flow import Flow, Waiter


class Lanes:
    """One lane for each model and set of slots that can ever pay: each knows its first, in the order of all."""

    def __init__(self) -> None:
        """Start empty."""
        self._lanes: dict[tuple[str, frozenset[int]], Lane] = {}
        self._turns: dict[int, Turns] = {}
        self._aside: dict[Limit, dict[Flow, tuple[float, Lane]]] = {}
        self._dues: list[tuple[float, int, Limit, Flow]] = []
        self._entries = count()

    def __bool__(self) -> bool:
        """Return whether anybody waits."""
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Waiter]:
        """Return those who wait, in no order."""
        return (waiter for lane in self._lanes.values() for waiter in lane)

    def charges_of(self, ticket: Ticket) -> list[Charge]:
        """Return what those of the ticket's user who wait with its priority still have to pay."""
        return [
            waiter.ticket.charge
            for lane in self._lanes.values()
            for returned in (True, False)
            for waiter in lane.flows.get((-ticket.priority, ticket.user, returned), ())
        ]

    def place(self, waiter: Waiter) -> bool:
        """Put a waiter in its lane; returns whether it is the first there."""
        name = (waiter.ticket.model, waiter.size.fits)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(*name, self._turns)
        lane.push(waiter)
        self._recall_for(waiter, lane)
        return lane.head() is waiter

    def heads(self) -> list[Waiter]:
        """Return the first of each lane, in order."""
        found = [(waiter.flow.rank, waiter) for lane in self._lanes.values() if (waiter := lane.head()) and waiter.flow]
        return [waiter for _, waiter in sorted(found, key=lambda entry: entry[0] or (0, 0.0, (0.0, 0)))]

    def serve(self, waiter: Waiter) -> None:
        """Take out the first of a lane, which goes."""
        lane = self._lane(waiter)
        if lane is not None and waiter.flow is not None:
            lane.serve(waiter.flow)
            self._drop_if_empty(lane)

    def take_back(self, waiter: Waiter) -> None:
        """Put back who was served and did not go after all."""
        self.place(waiter)
        call = waiter.call
        if not call.sends:
            self._turns[-call.priority].unserved(call.user, waiter.size.share)

    def leave(self, waiter: Waiter) -> bool:
        """Take out anyone; returns whether it may have been the first of its lane."""
        lane = self._lane(waiter)
        if lane is None or waiter.flow is None:
            return False
        first = lane.may_be_first(waiter) or self._recall_for(waiter, lane)
        lane.leave(waiter.flow, waiter)
        self._drop_if_empty(lane)
        return first

    def clear(self) -> list[Waiter]:
        """Take all out, and return them."""
        waiters = list(self)
        for waiter in waiters:
            waiter.flow = None
        self._lanes.clear()
        self._aside.clear()
        self._dues.clear()
        return waiters

    # --- who stands aside ---------------------------------------------------------------------------------------------

    def step_aside(self, waiter: Waiter, limit: Limit, due: float) -> None:
        """Let others go before the waiter's user, who waits for `limit`: until `due`, or something is given back."""
        lane, flow = self._lane(waiter), waiter.flow
        if lane is not None and flow is not None:
            flow.rank, flow.aside = None, limit
            self._aside.setdefault(limit, {})[flow] = (due, lane)
            if due < math.inf:
                heapq.heappush(self._dues, (due, next(self._entries), limit, flow))

    def due(self) -> float:
        """Return when the first who stands aside may come back by time alone, in monotonic seconds."""
        dues = self._dues
        while dues:
            due, _, limit, flow = dues[0]
            if self._aside.get(limit, {}).get(flow, (None,))[0] == due:
                return due
            heapq.heappop(dues)
        return math.inf

    def recall_due(self, now: float) -> None:
        """Bring back those whose time has come."""
        while self.due() <= now:
            _, _, limit, flow = heapq.heappop(self._dues)
            flows = self._aside[limit]
            _, lane = flows.pop(flow)
            if not flows:
                del self._aside[limit]
            self._stand(flow, lane)

    def recall(self, limits: Iterable[Limit]) -> None:
        """Bring back those who wait for one of these limits, to which something was given back."""
        if self._aside:
            for limit in limits:
                for flow, (_, lane) in self._aside.pop(limit, {}).items():
                    self._stand(flow, lane)

    def _recall_for(self, waiter: Waiter, lane: Lane) -> bool:
        """Bring those back who stand aside for what their first asks, as another comes or goes; return whether so."""
        flow = waiter.flow
        if flow is None or flow.aside is None or flow.first() is not waiter:
            return False
        flows = self._aside.get(flow.aside, {})
        if flows.pop(flow, None) is not None and not flows:
            del self._aside[flow.aside]
        self._stand(flow, lane)
        return True

    def _stand(self, flow: Flow, lane: Lane) -> None:
        flow.aside = None
        lane.stand(flow)

    def _lane(self, waiter: Waiter) -> Lane | None:
        return self._lanes.get((waiter.ticket.model, waiter.size.fits))

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.flows:
            self._lanes.pop((lane.model, lane.fits), None)
