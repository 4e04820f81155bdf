"""Calls that run, so that closing can wait for them, refuse new ones and end what is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .exceptions import LLMPoolExhaustedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.utils.clock import Clock

    from .call import Call


class InFlight:
    """All calls of a manager that have not ended, and how to end each."""

    def __init__(self, clock: Clock) -> None:
        """Start open and empty."""
        self.closing: bool = False
        self._clock = clock
        self._enders: dict[Call, Callable[[], None]] = {}
        self._waiters: list[tuple[set[Call], asyncio.Future[None]]] = []

    def __len__(self) -> int:
        """Return how many calls run."""
        return len(self._enders)

    def enter(self, call: Call, end: Callable[[], None]) -> None:
        """Count a call in; `end` ends it early. Entering again replaces `end`.

        Raises:
            LLMPoolExhaustedError: The manager is closing.
        """
        if self.closing and call not in self._enders:
            raise LLMPoolExhaustedError("this manager is closed; get a new one from get_llm_manager()")
        self._enders[call] = end

    def leave(self, call: Call) -> None:
        """Count a call out."""
        self._enders.pop(call, None)
        for calls, future in self._waiters:
            calls.discard(call)
            if not calls and not future.done():
                future.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until all calls that run now have ended; return False where `seconds` were not enough."""
        calls = set(self._enders)
        if not calls:
            return True
        entry = (calls, asyncio.get_running_loop().create_future())
        self._waiters.append(entry)
        try:
            async with self._clock.timeout(seconds):
                await entry[1]
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(entry)
        return True

    def end_all(self) -> None:
        """End what still runs."""
        for end in list(self._enders.values()):
            end()


class Outbox:
    """What must be done without delaying a call: small tasks that `drain` waits for."""

    def __init__(self) -> None:
        """Start empty."""
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` soon; what it raises goes to the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for all that was spawned, and for what that spawns."""
        while self._tasks:
            await asyncio.wait(self._tasks)
