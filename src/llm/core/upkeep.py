"""What is done for the keys between calls.

Refused ones are asked again, those without credit and models that were forbidden are tried again after a while, clients
that idle are closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm.utils.clock import Clock, Timer

    from .pool import Pool


class Upkeep:
    """Looks after the keys of some pools, every `interval` seconds; a timer, and no task while nothing is due."""

    def __init__(
        self,
        pools: Collection[Pool],
        *,
        clock: Clock,
        interval: float,
        min_size: int,
    ) -> None:
        """Take the pools.

        Args:
            pools: Whose keys these are.
            clock: Its time.
            interval: Seconds between two looks, and the most that asking a key may take.
            min_size: Clients of a pool that stay, however long they idle.
        """
        self._pools = pools
        self._clock = clock
        self._interval = interval
        self._min_size = min_size
        self._timer: Timer | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Look from now on."""
        self._timer = self._clock.call_later(self._interval, self._look)

    def stop(self) -> None:
        """Look no more, and give up what is being asked."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._asking:
            task.cancel()

    async def close(self) -> None:
        """Stop, and wait until nothing is left."""
        self.stop()
        if self._asking:
            await asyncio.wait(self._asking)

    def _look(self) -> None:
        self.start()
        for pool in self._pools:
            pool.close_idle(keep=self._min_size)
            pool.try_again()
            if pool.refused_keys():
                task = asyncio.get_running_loop().create_task(self._ask_again(pool))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask_again(self, pool: Pool) -> None:
        try:
            async with self._clock.timeout(self._interval):
                await pool.ask(pool.refused_keys())
        except TimeoutError:
            return  # it is asked again at the next look
