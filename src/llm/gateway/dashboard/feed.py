"""The dashboard's stream: one look a second, whoever watches, and to each who watches what it has not seen yet.

What is kept is the newest of each section, five minutes of points and the last calls; of a viewer only how far it has
seen. So one that reads slowly holds nothing, and hears the newest when it reads again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson

from llm.gateway.state import tell_failure

from .sight import FOR_OPERATORS

if TYPE_CHECKING:
    from collections.abc import Generator

    from llm.providers.endpoints.caller import Caller
    from llm.utils.clock import Clock, Timer

    from .sight import Look, Sight

POINTS: Final = 300
"""How many points the charts have: five minutes."""

_CALLS: Final = 60
_SHARE: Final = 20  # of so much time one part may go into looking
_LONGEST: Final = 4.0  # seconds between two looks: the page takes a stream that says nothing for six as lost


class Feed:
    """What all viewers watch.

    Attributes:
        turn: How many looks there were.
        viewers: How many watch.
        interval: Seconds between two looks.
        closed: Whether all viewers are to leave.
    """

    def __init__(self, sight: Sight, clock: Clock) -> None:
        """Look at nothing before somebody watches."""
        self.turn: int = 0
        self.viewers: int = 0
        self.interval: float = 1.0
        self.closed: bool = False
        self._sight = sight
        self._clock = clock
        self._timer: Timer | None = None
        self._news = asyncio.Event()
        self._sections: dict[str, tuple[int, bytes]] = {}
        self._points: deque[tuple[int, float, bytes]] = deque(maxlen=POINTS)
        self._calls: deque[tuple[int, str | None, bytes]] = deque(maxlen=_CALLS)
        self._written: dict[tuple[int, bool, str | None], bytes] = {}

    @contextmanager
    def watched(self) -> Generator[None]:
        """Look once a second while somebody is in here."""
        self.viewers += 1
        if self.viewers == 1:
            self._sight.open()
            self._forget()
            self._look()
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._sight.close()
                if self._timer is not None:
                    self._timer.cancel()

    def _forget(self) -> None:
        """Drop the points that are over: nobody has watched since."""
        oldest = self._clock.now() - POINTS
        while self._points and self._points[0][1] < oldest:
            self._points.popleft()

    async def after(self, turn: int) -> None:
        """Return when there was a look after the one of this number, or all are to leave."""
        while self.turn <= turn and not self.closed:
            await self._news.wait()

    def close(self) -> None:
        """Have all viewers leave."""
        self.closed = True
        self._tell()

    def event(self, since: int, caller: Caller) -> bytes:
        """Return what a caller may see and has not seen since the look of a number: an object, less its braces."""
        audience = since, caller.operator, None if caller.operator else caller.user
        written = self._written.get(audience)
        if written is None:
            written = self._written[audience] = self._write(since, caller)
        return written

    def _write(self, since: int, caller: Caller) -> bytes:
        every = caller.operator
        fields = [
            b"%b:%b" % (orjson.dumps(name), told)
            for name, (turn, told) in self._sections.items()
            if turn > since and (every or name not in FOR_OPERATORS)
        ]
        points = [point for turn, _, point in self._points if turn > since]
        calls = [call for turn, user, call in self._calls if turn > since and (every or user == caller.user)]
        lists = [(b"points", points), (b"calls", calls)]
        fields += [b'"%b":[%b]' % (name, b",".join(told)) for name, told in lists if told]
        return b",".join(fields)

    def _look(self) -> None:
        began = self._clock.now()
        try:
            self._take(self._sight.look())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be better
            tell_failure(error)
        took = self._clock.now() - began
        self._timer = self._clock.call_later(min(max(self.interval, _SHARE * took), _LONGEST), self._look)

    def _take(self, look: Look) -> None:
        self.turn += 1
        self._written.clear()
        for name in [name for name in self._sections if name not in look.sections]:
            del self._sections[name]
        for name, value in look.sections.items():
            told = orjson.dumps(value)
            known = self._sections.get(name)
            if known is None or known[1] != told:
                self._sections[name] = (self.turn, told)
        self._points.append((self.turn, self._clock.now(), orjson.dumps(look.point)))
        self._calls.extend((self.turn, call["user"], orjson.dumps(call)) for call in look.calls)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
