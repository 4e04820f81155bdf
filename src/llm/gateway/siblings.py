"""What the workers of one gateway ask each other: their pages for Prometheus, so that a scrape of any tells of all.

Each worker has a mailbox, made by the parent before any of them starts and inherited by all, also by a worker that
takes the place of a dead one. Who asks puts an end of a new pair of sockets into it and reads the answer at the other.
No name in a folder and no port is needed, so nothing is left behind and nobody else can ask.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.utils.clock import Clock

_PATIENCE: Final = 1.0  # seconds: a scrape has ten by default, and a worker that is stuck is not to cost all pages
_AT_ONCE: Final = 65_536  # bytes


class Mailboxes:
    """A mailbox for each worker; both ends of it are inherited by all."""

    def __init__(self, count: int) -> None:
        """Make so many."""
        self.pairs: tuple[tuple[socket.socket, socket.socket], ...] = tuple(
            socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)
        )
        for ends in self.pairs:
            for end in ends:
                end.settimeout(0.0)

    def close(self) -> None:
        """Give them up in this process."""
        for ends in self.pairs:
            for end in ends:
                end.close()


class Siblings:
    """One worker's view of all of them.

    Attributes:
        place: Which it is, from 0.
        count: How many there are.
    """

    def __init__(self, boxes: Mailboxes, place: int, clock: Clock | None = None) -> None:
        """Be the worker of this place, from 0."""
        self.place: int = place
        self.count: int = len(boxes.pairs)
        self._boxes = boxes
        self._clock = clock or SystemClock()
        self._answering: set[asyncio.Task[None]] = set()

    def listen(self, write: Callable[[], bytes]) -> None:
        """Answer others from now on with what `write` returns; it is called in a thread."""
        loop, (box, _) = asyncio.get_running_loop(), self._boxes.pairs[self.place]

        def look() -> None:
            with suppress(OSError):  # what asked is gone
                _, ends, _, _ = socket.recv_fds(box, 1, 1)
                for end in ends:  # none where this process has as many files as it may
                    task = loop.create_task(self._answer(socket.socket(fileno=end), write))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)

        loop.add_reader(box, look)

    def close(self) -> None:
        """Answer no more; free when that is so already."""
        asyncio.get_running_loop().remove_reader(self._boxes.pairs[self.place][0])
        for task in self._answering:
            task.cancel()

    async def ask(self) -> dict[int, bytes]:
        """Return the others' answers by their places; of those that gave none within a second there is none."""
        others = [place for place in range(self.count) if place != self.place]
        async with asyncio.TaskGroup() as group:
            asked = {place: group.create_task(self._ask(place)) for place in others}
        return {place: task.result() for place, task in asked.items() if task.result()}

    async def _answer(self, asker: socket.socket, write: Callable[[], bytes]) -> None:
        with asker, suppress(OSError, TimeoutError):  # it waits no longer
            asker.settimeout(0.0)
            answer = await asyncio.to_thread(write)
            async with self._clock.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_sendall(asker, answer)

    async def _ask(self, place: int) -> bytes:
        mine, its = socket.socketpair()
        with mine:
            mine.settimeout(0.0)
            with its:
                try:
                    socket.send_fds(self._boxes.pairs[place][1], [b"?"], [its.fileno()])
                except OSError:  # its mailbox is full: it has been away for long
                    return b""
            loop, answer = asyncio.get_running_loop(), bytearray()
            try:
                async with self._clock.timeout(_PATIENCE):
                    while part := await loop.sock_recv(mine, _AT_ONCE):
                        answer += part
            except (OSError, TimeoutError):
                return b""
        return bytes(answer)
