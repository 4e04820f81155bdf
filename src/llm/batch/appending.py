"""Lines that go to the ends of files, whole or not at all, in a thread of their own."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from .claim import trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm.utils.clock import Clock

    from .claim import Claim

_MOST: Final = 1024  # lines in one write; the system takes no more buffers
_SYNC_AFTER: Final = 1.0  # seconds


class Tail:
    """The end of a claimed file.

    Attributes:
        failure: Why nothing more can be added; None while it can.
    """

    def __init__(
        self,
        claimed: Claim,
        *,
        write: Callable[[int, Sequence[bytes | memoryview]], int] = os.writev,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Add nothing yet.

        Args:
            claimed: The file.
            write: Hands a descriptor's system bytes, and returns how many it took.
            sync: What has a descriptor's file on the disk.
        """
        self.failure: OSError | None = None
        self._claimed = claimed
        self._write = write
        self._sync = sync
        self._written = False

    def add(self, lines: Sequence[bytes]) -> int:
        """Hand lines to the system; returns how many of them, from the first, are whole in the file.

        Where that is not all, `failure` says why, and nothing of the others is there.
        """
        if self.failure is not None:
            return 0
        self._written = True
        end, rest, whole = self._claimed.size, deque[bytes | memoryview](lines), 0
        try:
            while rest:
                sent = self._write(self._claimed.descriptor, list(islice(rest, _MOST)))
                while rest and sent >= len(rest[0]):
                    sent -= len(rest.popleft())
                    end += len(lines[whole])
                    whole += 1
                if sent:
                    rest[0] = memoryview(rest[0])[sent:]
        except OSError as error:
            self._fail(error)
            with suppress(OSError):  # else the next run cuts it
                os.ftruncate(self._claimed.descriptor, end)
        return whole

    def sync(self) -> None:
        """Have what was added on the disk, where something was."""
        if self._written:
            self._written = False
            try:
                self._sync(self._claimed.descriptor)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = trouble(self._claimed.path, error)


class _Line:
    """A line on its way, and who waits for it."""

    __slots__ = ("data", "future", "tail")

    def __init__(self, tail: Tail, data: bytes, future: asyncio.Future[None]) -> None:
        self.tail = tail
        self.data = data
        self.future = future


class Appender:
    """Adds lines to tails: what waits together goes out in one write, and is on the disk about a second later."""

    def __init__(self, clock: Clock, *, sync_after: float = _SYNC_AFTER) -> None:
        """Start no thread yet.

        Args:
            clock: Its time.
            sync_after: Seconds from a first line until it and those after it are had on the disk.
        """
        self._now = clock.now
        self._sync_after = sync_after
        self._sync_at: float | None = None
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._dirty: set[Tail] = set()
        self._closed = False

    async def add(self, tail: Tail, line: bytes) -> None:
        """Return once the line is handed to the system whole. A caller that is cancelled leaves it to be written.

        Raises:
            OSError: It is not, nor is any part of it; no later one will be.
            RuntimeError: `end` was called.
        """
        if self._closed:
            raise RuntimeError("the journal is closed; a line can be written inside its `async with` only")
        future = asyncio.get_running_loop().create_future()
        self._queue.put(_Line(tail, line, future))
        await future

    def end(self) -> None:
        """Take no more lines; `run` returns when those there are have been written."""
        self._closed = True
        self._queue.put(None)

    def run(self) -> None:
        """Write until the end; for a thread of its own."""
        more = True
        while more:
            taken = self._take()
            lines = [line for line in taken if line is not None]
            more = len(lines) == len(taken)
            self._write(lines)
            if self._sync_at is not None and (not more or self._now() >= self._sync_at):
                self._sync()

    def _take(self) -> list[_Line | None]:
        """Return what waits, None last where the end has come; nothing where the time to sync has."""
        seconds = None if self._sync_at is None else max(0.0, self._sync_at - self._now())
        taken: list[_Line | None] = []
        with suppress(Empty):
            taken.append(self._queue.get(timeout=seconds))
            while len(taken) < _MOST and taken[-1] is not None:
                taken.append(self._queue.get_nowait())
        return taken

    def _write(self, lines: Sequence[_Line]) -> None:
        for tail in {line.tail for line in lines}:
            mine = [line for line in lines if line.tail is tail]
            whole = tail.add([line.data for line in mine])
            self._dirty.add(tail)
            if self._sync_at is None:
                self._sync_at = self._now() + self._sync_after
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                mine[0].future.get_loop().call_soon_threadsafe(_settle, mine, whole, tail.failure)

    def _sync(self) -> None:
        self._sync_at = None
        for tail in self._dirty:
            tail.sync()
        self._dirty.clear()


def _settle(lines: Sequence[_Line], whole: int, failure: OSError | None) -> None:
    for number, line in enumerate(lines):
        if line.future.done():
            continue  # cancelled
        if number < whole:
            line.future.set_result(None)
        else:
            assert failure is not None  # noqa: S101 - else it were whole
            error = OSError(failure.errno, failure.strerror)  # one each: a traceback grows where it is raised
            error.__cause__ = failure.__cause__
            line.future.set_exception(error)
