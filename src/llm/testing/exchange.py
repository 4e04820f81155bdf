"""One request at a `MockUpstream`, as both its faces play it: what is sent when, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from llm.core.call import Charge

from .pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.utils.clock import Clock

Ending: TypeAlias = Literal["whole", "reset", "cut", "stall"]


@dataclass(slots=True)
class MockRequest:
    """What a `MockUpstream` knows of a request; `repr` shows neither key nor content.

    Attributes:
        number: From 1; counts requests for answers.
        path: Path of the URL.
        key: The key as it was sent; None for none.
        headers: Headers, names in lower case.
        body: The body; empty where it was no JSON object.
        stream: Whether it asked for a stream.
        at: When it arrived, in the clock's monotonic seconds.
        status: Status of the answer; 0 for a connection that is reset before one.
        fault: Kind of the fault that it met.
        charge: What admission took; None where it was refused.
        sent: Pieces of the answer that were sent.
        ended: When the last of it was sent, or the client left, in monotonic seconds.
        left: Whether the client left before that.
        method: HTTP method.
    """

    number: int
    path: str
    at: float
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    stream: bool = False
    status: int = 0
    fault: str | None = None
    charge: Charge | None = None
    sent: int = 0
    ended: float | None = None
    left: bool = False
    method: str = "POST"


class Frame(NamedTuple):
    """A piece of a body.

    Attributes:
        at: When it is sent, in monotonic seconds.
        data: Its bytes.
    """

    at: float
    data: bytes


@dataclass(slots=True)
class Play:
    """An answer, before it is sent.

    Attributes:
        status: HTTP status; 0 for none.
        headers: Headers.
        frames: Pieces of the body, in order of time.
        head_at: When the head is sent, in monotonic seconds.
        ending: How it ends: in an orderly way, by a reset, by an end of the connection, or not at all.
        length: Bytes of the whole body, for `content-length`; None for a stream.
    """

    status: int
    headers: dict[str, str]
    frames: list[Frame]
    head_at: float
    ending: Ending = "whole"
    length: int | None = None


class ConnectionBrokenError(Exception):
    """The script breaks the connection here.

    Attributes:
        reset: Whether by a reset; else by an end in the middle.
    """

    def __init__(self, *, reset: bool) -> None:
        """Keep how."""
        super().__init__("connection reset" if reset else "connection ended in the middle of the body")
        self.reset: bool = reset


class Exchange:
    """Plays an answer on a clock."""

    def __init__(
        self, record: MockRequest, play: Play, clock: Clock, done: Callable[[MockRequest], None], *, delay: float
    ) -> None:
        """Play `play`, all of it `delay` seconds late, and call `done` once at its end."""
        self.record = record
        self.play = play
        self._clock = clock
        self._done: Callable[[MockRequest], None] | None = done
        self._delay = delay
        self._pause = Pause(clock)
        self._next = 0

    async def head(self) -> Play:
        """Wait until the head goes out.

        Raises:
            ConnectionBrokenError: There is none.
        """
        await self._until(self.play.head_at)
        if self.play.status == 0:
            self._end()
            raise ConnectionBrokenError(reset=True)
        return self.play

    async def piece(self) -> bytes:
        """Return the next piece when it is due; empty at the orderly end.

        Raises:
            ConnectionBrokenError: The connection breaks here.
            Exception: The one that `leave` was called with.
        """
        if self._next < len(self.play.frames):
            frame = self.play.frames[self._next]
            await self._until(frame.at)
            self._next += 1
            self.record.sent += 1
            return frame.data
        if self.play.ending == "stall":
            await self._pause.wait(None)
        self._end()
        if self.play.ending == "whole":
            return b""
        raise ConnectionBrokenError(reset=self.play.ending == "reset")

    def waiting(self) -> bool:
        """Return whether the next piece is there."""
        return self._next < len(self.play.frames) and self._due(self.play.frames[self._next].at) <= 0

    def leave(self, error: Exception | None = None) -> None:
        """Note that the client has gone; a wait that is under way raises `error`."""
        if self._done is not None:
            self.record.left = True
            self._end()
        if error is not None:
            self._pause.break_off(error)

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.record.ended = self._clock.now()
            done(self.record)

    def _due(self, at: float) -> float:
        return at + self._delay - self._clock.now()

    async def _until(self, at: float) -> None:
        await self._pause.wait(self._due(at))
