"""An iterator that reads files, run in a thread of its own, so that no event loop waits for a disk or a pipe."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

_T = TypeVar("_T")
_MORE: Final = "more"
_NO_MORE: Final = "no more"


async def apart(make: Callable[[], Generator[_T]]) -> AsyncGenerator[_T]:
    """Yield what a generator yields that runs in a thread, one item ahead.

    Leaving early ends the thread and closes the generator there, as soon as the read that is under way has returned:
    nobody waits for it, for from a pipe it may never come.
    """
    reader = _Reader(make, asyncio.get_running_loop())
    try:
        while (item := await reader.next()) is not None:
            yield item
    finally:
        reader.leave()


class _Reader(Generic[_T]):
    def __init__(self, make: Callable[[], Generator[_T]], loop: asyncio.AbstractEventLoop) -> None:
        self._make = make
        self._loop = loop
        self._came: asyncio.Queue[_T | BaseException | None] = asyncio.Queue()
        self._asked: SimpleQueue[str] = SimpleQueue()
        self._asked.put(_MORE)  # the one ahead
        # A daemon, for a read from a pipe must not keep the interpreter from ending.
        threading.Thread(target=self._run, name="llm-batch-reader", daemon=True).start()

    async def next(self) -> _T | None:
        """Return the next item, None at the end; raises what the generator raised."""
        self._asked.put(_MORE)
        item = await self._came.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def leave(self) -> None:
        """Ask for no more."""
        self._asked.put(_NO_MORE)

    def _run(self) -> None:
        try:
            with closing(self._make()) as items:
                while self._asked.get() is _MORE and (item := next(items, None)) is not None:
                    self._tell(item)
            self._tell(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits hears of it
            self._tell(error)

    def _tell(self, item: _T | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is gone, and nobody waits
            self._loop.call_soon_threadsafe(self._came.put_nowait, item)
