"""What several processes need in order to ask one question once: a lease on it, with an owner and an end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from . import scripts

if TYPE_CHECKING:
    from .link import Link


class Lease(Protocol):
    """The right to do something alone, for some seconds; one holder at a time."""

    async def renew(self, seconds: float) -> bool:
        """Have it end so many seconds from now; returns whether it was still held (if not, somebody else may)."""
        ...

    async def release(self) -> None:
        """Give it back, and wake those who wait for it; nothing happens where it was lost before."""
        ...


@runtime_checkable
class Leasing(Protocol):
    """A backend that several processes share, and that can tell one of them to go first.

    Any method may raise: whoever asked goes on as if it were alone.
    """

    async def lease(self, key: str, seconds: float) -> Lease | None:
        """Take the lease on a key for so many seconds; None where somebody holds it."""
        ...

    async def released(self, key: str, timeout: float) -> bool:  # noqa: ASYNC109 - the caller's patience, no deadline
        """Wait until nobody holds the lease on a key; returns False when `timeout` seconds have passed before."""
        ...


class OwnLease:
    """A lease that this process took in Redis, under a name that only it knows."""

    def __init__(self, link: Link, place: str, *, owner: str, channel: str, key: str) -> None:
        """Keep what it takes to give it back.

        Args:
            link: The way to the server.
            place: Where the server has it.
            owner: What stands there while it is ours.
            channel: Where those who wait hear that it was given back.
            key: What they know it by.
        """
        self._link = link
        self._place = place
        self._owner = owner
        self._channel = channel
        self._key = key

    async def renew(self, seconds: float) -> bool:
        """Have it end so many seconds from now; returns whether it was still held.

        Raises:
            ConnectionError: No answer came, or none was waited for: it may or may not be held.
            RuntimeError: The server refused.
        """
        home = await self._link.home()
        return bool(await self._link.run(home, scripts.RENEW, self._place, self._owner, milliseconds(seconds)))

    async def release(self) -> None:
        """Give it back, and wake those who wait for it.

        Raises:
            ConnectionError: No answer came, or none was waited for: it may be held until it ends by itself.
            RuntimeError: The server refused.
        """
        home = await self._link.home()
        await self._link.run(home, scripts.RELEASE, self._place, self._owner, self._channel, self._key)


def milliseconds(seconds: float) -> int:
    """Return a time as Redis takes it: whole, and not zero."""
    return max(1, math.ceil(seconds * 1000))
