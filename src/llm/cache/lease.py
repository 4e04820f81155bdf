"""What several processes need in order to ask one question once: a lease on it, with an owner and an end."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


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
