"""A lease on a question that several processes may ask: held while one of them asks, given back when it is done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.cache.lease import Lease, Leasing
    from llm.utils.clock import Clock, Timer

    Spawn = Callable[[Coroutine[object, object, None]], None]
    Trouble = Callable[[str, Exception], None]

SECONDS: Final = 10.0
"""A lease ends so long after it was last renewed, where its holder died."""
_BEATS: Final = 3  # renewals until then, of which some may fail


class Hold:
    """A lease that is renewed until it is given back, which never delays whoever does that."""

    def __init__(self, lease: Lease, *, clock: Clock, spawn: Spawn, trouble: Trouble) -> None:
        """Begin to renew it; `spawn` runs what takes time, `trouble` is told of what fails."""
        self.writing: bool = False
        """Whether the answer is on its way to the store, and the lease goes back when it is there."""
        self._lease = lease
        self._clock = clock
        self._spawn = spawn
        self._trouble = trouble
        self._over = False
        self._timer: Timer = self._next()

    def let_go(self) -> None:
        """Give it back, soon."""
        self._over = True
        self._timer.cancel()
        self._spawn(self._release())

    def _next(self) -> Timer:
        return self._clock.call_later(SECONDS / _BEATS, lambda: self._spawn(self._renew()))

    async def _renew(self) -> None:
        held = True
        try:
            held = self._over or await self._lease.renew(SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may do
            self._trouble("renewing a lease", error)
        if held and not self._over:
            self._timer = self._next()

    async def _release(self) -> None:
        try:
            await self._lease.release()
        except Exception as error:  # noqa: BLE001 - it ends by itself
            self._trouble("giving back a lease", error)


async def take(backend: Leasing, name: str, *, spawn: Spawn) -> Lease | None:
    """Take a lease; None where somebody has it. Who is cancelled meanwhile leaves none behind.

    Raises:
        Exception: The backend's.
    """
    taking = asyncio.get_running_loop().create_task(_taken(backend, name))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        spawn(_put_back(taking))
        raise


async def _taken(backend: Leasing, name: str) -> Lease | None:
    return await backend.lease(name, SECONDS)


async def _put_back(taking: asyncio.Task[Lease | None]) -> None:
    try:
        lease = await taking
        if lease is not None:
            await lease.release()
    except Exception:  # noqa: BLE001, S110 - nobody waits for it any more, and it ends by itself
        pass
