"""A thread that does what event loops must not wait for: what was asked together is done together."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llm.utils.clock import Clock

_T = TypeVar("_T")
_S = TypeVar("_S", bound="Station")

_MOST: Final = 256  # jobs at once, so that none waits for many others to be answered
_PATIENCE: Final = 2.0  # seconds that leaving the interpreter waits for what a thread is doing


class Job(Generic[_S, _T]):
    """Something to do at a station, and who waits for it.

    Attributes:
        rows: Numbers of the rows that it will look at, so that the station can fetch those of all jobs together.
        last: Whether the worker ends with it, and does nothing but that.
    """

    __slots__ = ("_future", "_loop", "_result", "_work", "last", "rows")

    def __init__(
        self, work: Callable[[_S], _T], rows: Iterable[int] = (), *, awaited: bool = True, last: bool = False
    ) -> None:
        """Take the work; where it is awaited, the running loop hears of its end."""
        self.rows = tuple(rows)
        self.last = last
        self._work = work
        self._loop = asyncio.get_running_loop() if awaited else None
        self._future: asyncio.Future[_T] | None = self._loop.create_future() if self._loop else None
        self._result: _T

    async def done(self) -> _T:
        """Return the result.

        Raises:
            OSError: The files cannot be used now.
        """
        assert self._future is not None  # noqa: S101 - asked only where it is awaited
        return await self._future

    def run(self, station: _S) -> None:
        """Do it; again where the station had to begin anew."""
        self._result = self._work(station)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where somebody waits."""
        return self._loop

    def settle(self, error: Exception | None) -> None:
        """Tell whoever waits, in its loop."""
        if self._future is None or self._future.done():
            return
        if error is None:
            self._future.set_result(self._result)
        else:
            failure = OSError(str(error))  # one each: a traceback grows where it is raised
            failure.__cause__ = error
            self._future.set_exception(failure)


class Station(Protocol):
    """Where a worker does its jobs."""

    def handle(self, jobs: Sequence[Job[Any, Any]]) -> None:
        """Run all of these; an exception is the failure of all."""

    def close(self) -> None:
        """Give back what it holds; it is taken anew by the next job."""


class Worker(Generic[_S]):
    """Runs jobs in a thread of its own, in the order in which they came; the thread starts with the first.

    A process that forks has its connections closed for that moment, and the child begins with a thread of its own:
    SQLite's locks and connections must not cross a fork (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """

    def __init__(self, name: str, station: _S) -> None:
        """Name the thread, for stack dumps."""
        self._name = name
        self._station = station
        self._stopped = False
        self.begin_anew()
        with _register:
            _workers.add(self)

    def begin_anew(self) -> None:
        """Forget thread and queue, which a forked child does not have."""
        self.turn: threading.Lock = threading.Lock()  # held while the station works
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Job[_S, Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, work: Callable[[_S], _T], rows: Iterable[int] = ()) -> _T:
        """Have it done, and return what it returned.

        Raises:
            OSError: The files cannot be used now.
            RuntimeError: The worker has ended.
        """
        job = Job(work, rows)
        self._put(job)
        return await job.done()

    def post(self, work: Callable[[_S], object]) -> None:
        """Have it done some time; nobody hears of it, nor of its failure."""
        with suppress(RuntimeError):
            self._put(Job(work, awaited=False))

    def _put(self, job: Job[_S, Any]) -> None:
        with self._lock:
            if self._stopped:
                raise RuntimeError("this cache is closed; make a new one")
            self._queue.put(job)
            if self._thread is None:
                # A daemon, so that leaving the interpreter waits for `_leave` alone, and that not for ever.
                self._thread = threading.Thread(
                    target=_run, args=(self._queue, self._station, self.turn), name=self._name, daemon=True
                )
                self._thread.start()
                weakref.finalize(self, self._queue.put, _end(awaited=False)).atexit = False

    async def end(self, clock: Clock) -> None:
        """Take no more jobs; returns when those there are have been done, and the thread has ended."""
        with suppress(OSError):
            if (last := self.stop(awaited=True)) is not None:
                await last.done()
        while self._thread is not None and self._thread.is_alive():  # not for long: it has nothing left to do
            await clock.sleep(0)

    def stop(self, *, awaited: bool) -> Job[Any, None] | None:
        """Take no more jobs; returns the last one, None where there is nothing to wait for."""
        with self._lock:
            if self._stopped or self._thread is None:
                self._stopped = True
                return None
            self._stopped = True
            last = _end(awaited=awaited)
            self._queue.put(last)
            return last

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, so many seconds at most; blocks."""
        if self._thread is not None:
            self._thread.join(seconds)

    def pause(self) -> threading.Lock:
        """Let the station give back what it holds; returns the lock that keeps it from going on."""
        self.turn.acquire()
        self._station.close()
        return self.turn


def _end(*, awaited: bool) -> Job[Any, None]:
    return Job(lambda _: None, awaited=awaited, last=True)


def _run(queue: SimpleQueue[Job[_S, Any]], station: _S, turn: threading.Lock) -> None:
    more = True
    while more:
        jobs = _take(queue)
        more = not jobs[-1].last
        error: Exception | None = None
        try:
            with turn:
                _work(jobs, station)
        except Exception as raised:  # noqa: BLE001 - whatever it is, those who wait hear of it
            error = raised
        _tell(jobs, error)
        del jobs, error  # what they hold must not stay until the next one comes


def _work(jobs: list[Job[_S, Any]], station: _S) -> None:
    last = jobs[-1].last
    try:
        if todo := jobs[:-1] if last else jobs:
            station.handle(todo)
    finally:
        if last:
            jobs[-1].run(station)
            station.close()


def _take(queue: SimpleQueue[Job[_S, Any]]) -> list[Job[_S, Any]]:
    """Return the jobs that wait, in order; where the last one of all is among them, it is their last."""
    jobs = [queue.get()]
    with suppress(Empty):
        while len(jobs) < _MOST and not jobs[-1].last:
            jobs.append(queue.get_nowait())
    return jobs


def _tell(jobs: Iterable[Job[Any, Any]], error: Exception | None) -> None:
    waiting: dict[asyncio.AbstractEventLoop, list[Job[Any, Any]]] = {}
    for job in jobs:
        if job.loop is not None:
            waiting.setdefault(job.loop, []).append(job)
    for loop, done in waiting.items():
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done, error)


def _settle(jobs: Iterable[Job[Any, Any]], error: Exception | None) -> None:
    for job in jobs:
        job.settle(error)


_register = threading.Lock()
_workers: weakref.WeakSet[Worker[Any]] = weakref.WeakSet()
_paused: list[threading.Lock] = []


@atexit.register
def _leave() -> None:
    for worker in list(_workers):  # one by one: of two that close together, none is the last, which tidies up
        worker.stop(awaited=False)
        worker.join(_PATIENCE)


def _before_fork() -> None:
    _register.acquire()
    _paused.extend(worker.pause() for worker in list(_workers))


def _after_fork_in_parent() -> None:
    for turn in _paused:
        turn.release()
    _paused.clear()
    _register.release()


def _after_fork_in_child() -> None:
    _paused.clear()
    _register.release()
    for worker in list(_workers):
        worker.begin_anew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
