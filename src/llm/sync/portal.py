"""The way from any thread to one event loop of the process, which runs in a thread of its own.

The loop starts with the first errand and ends with the interpreter. A forked child gets another one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")

_PATIENCE: Final = 1.0
"""Seconds that what was interrupted gets to let go of what it holds; the loop gets as many to end."""

_IN_THE_LOOP: Final = (
    "a blocking call was made in the very loop that would have to answer it, and would wait for ever; await the client "
    "of `from llm import get_llm_manager` here"
)
_FORKED: Final = (
    "this was made before the process forked, and its event loop is the parent's; call get_llm_manager() in the child"
)
_ENDING: Final = "the interpreter is ending, and the loop of blocking calls has ended before; make the call earlier"


class Portal:
    """One event loop, and the way there."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._over: str | None = None  # why nothing runs here any more

    @property
    def over(self) -> bool:
        """Whether nothing runs here any more."""
        return self._over is not None

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop and return what it returns; the caller's context variables go along.

        What ends the wait, Ctrl-C above all, cancels the coroutine, gives it a second to let go, and goes on.

        Raises:
            RuntimeError: The loop itself would have to wait, or is not there any more.
            BaseException: What the coroutine raised.
        """
        try:
            loop = self._there()
        except BaseException:
            coroutine.close()
            raise
        errand = _Errand(self, coroutine)
        try:
            loop.call_soon_threadsafe(errand.start, loop)
            errand.ended.acquire()
        except BaseException:
            self._give_up(errand, loop)
            raise
        try:
            return errand.result()
        finally:
            del errand  # an exception holds the frames it came through, and they would hold it by its task

    def end(self) -> None:
        """End the loop and what runs there; who waits for that waits on, for its thread ends with the interpreter."""
        with self._changing:
            self._over = self._over or _ENDING
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_PATIENCE)

    def lose(self) -> None:
        """Know that the thread is the parent's."""
        self._over = _FORKED

    def _give_up(self, errand: _Errand[Any], loop: asyncio.AbstractEventLoop) -> None:
        if self._over is not None:  # since this very moment
            errand.drop()
            _refuse(self._over)
        loop.call_soon_threadsafe(errand.cancel)
        errand.ended.acquire(timeout=_PATIENCE)

    def _there(self) -> asyncio.AbstractEventLoop:
        if self._over is not None:
            _refuse(self._over)
        if self._loop is None or self._thread is None:
            return self._begun()
        if self._thread.ident == threading.get_ident():
            raise RuntimeError(_IN_THE_LOOP)
        return self._loop

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._changing:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(loop,), name="llm.sync", daemon=True)
                try:
                    thread.start()
                except BaseException:
                    loop.close()
                    raise
                self._thread, self._loop = thread, loop
            return self._loop


class _Errand(Generic[_T]):
    """A coroutine on its way to the loop and back; a lock and no future, which would cost more than the way."""

    __slots__ = ("_coroutine", "_portal", "_task", "ended")

    def __init__(self, portal: Portal, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._portal = portal
        self._coroutine = coroutine
        self._task: asyncio.Task[_T] | None = None
        self.ended = threading.Lock()
        self.ended.acquire()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start; in the loop, and in a copy of the caller's context."""
        if self._portal.over:
            self.drop()
            return
        self._task = loop.create_task(self._coroutine)
        self._task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Have it end; in the loop, after `start` where that comes at all."""
        if self._task is None:
            self.drop()
            self.ended.release()
        else:
            self._task.cancel()

    def drop(self) -> None:
        """Have what was not started never start, and nobody warned of that."""
        if self._task is None:
            self._coroutine.close()

    def result(self) -> _T:
        """Return what came of it, once it has ended."""
        assert self._task is not None  # noqa: S101 - only what was started ends by itself
        try:
            return self._task.result()
        finally:
            del self  # as in `run`

    def _done(self, task: asyncio.Task[_T]) -> None:
        if not task.cancelled():
            task.exception()  # of what was given up nobody asks for it, and asyncio would complain
        if not self._portal.over:
            self.ended.release()


def _refuse(why: str) -> NoReturn:
    if why is _ENDING and threading.current_thread().daemon:
        threading.Event().wait()  # as those who wait already: it ends with the interpreter, and has nothing to say
    raise RuntimeError(why)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.set_exception_handler(_say_nothing)  # there is nobody left to be told
        loop.run_until_complete(_wind_up())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _say_nothing(*_: object) -> None:
    pass


async def _wind_up() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE)


_portals: list[Portal] = [Portal()]
_inherited: list[Portal] = []


def current() -> Portal:
    """Return the way to the loop of this process."""
    return _portals[0]


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in the background loop of this process; see `Portal.run`.

    Raises:
        RuntimeError: It was called in that loop, or the interpreter is ending.
        BaseException: What the coroutine raised.
    """
    return _portals[0].run(coroutine)


def _after_fork() -> None:
    # The parent's loop is not the child's to use or to close, so it only keeps it.
    _inherited.append(_portals[0])
    _portals[0].lose()
    _portals[0] = Portal()


def _at_exit() -> None:
    _portals[0].end()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)  # as early as can be, for what is registered later still makes calls
