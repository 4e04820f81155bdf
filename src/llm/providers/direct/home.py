"""What a transport has in one event loop: its connections, and the exchange of a request for an answer."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConnectionError

from .dial import Dialer
from .pool import Pool
from .reply import DirectReply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.utils.clock import Clock

    from .place import Place


class Home:
    """Connections of one event loop, which end with it."""

    __slots__ = ("_dialer", "_max_body_bytes", "hook", "pool")

    def __init__(self, clock: Clock, connect_timeout: float, max_body_bytes: int) -> None:
        """Begin in the running loop."""
        self.pool: Pool = Pool(clock)
        self.hook: AsyncGenerator[None, None] = _closed_with_its_loop(self.pool)
        self._dialer = Dialer(self.pool, clock, connect_timeout)
        self._max_body_bytes = max_body_bytes
        _pools.add(self.pool)

    async def exchange(self, method: str, place: Place, head: bytes, body: bytes | None) -> DirectReply:
        """Send once, and return when the answer's head is there.

        A connection that turns out to be closed already, before any of the request left, is not the request's affair:
        it goes to the next one, and at last to a new one.

        Raises:
            LLMConnectionError: No answer.
            LLMTimeoutError: No connection.
        """
        fresh = False
        while not fresh:
            connection = self.pool.take(place.origin)
            if connection is None:
                connection, fresh = await self._dialer.dial(place.origin), True
            reply = DirectReply(connection, method, self._max_body_bytes)
            if connection.send(head, body, reply):
                try:
                    await reply.head()
                except BaseException:
                    reply.close()
                    raise
                return reply
        raise LLMConnectionError(
            f"the connection to {place.origin.host} broke before anything was sent; it can be sent again", sent=False
        )


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


async def _closed_with_its_loop(pool: Pool) -> AsyncGenerator[None, None]:
    """Wait for who closes it: the transport, or `asyncio.run` as it ends, which closes generators that are open."""
    try:
        yield
    finally:
        await pool.close()


def _after_fork() -> None:
    # A child that closes what it inherits takes the parent's sockets out of the parent's selector.
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_after_fork)
