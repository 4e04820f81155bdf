"""The one thread in which an engine's models run, so that no event loop ever waits for a matrix."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from llm.core.exceptions import LLMConfigurationError, LLMConnectionError, LLMOverloadedError

from .job import Generation, failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .job import Task

_PATIENCE = 10.0  # seconds that leaving the interpreter waits for the step that runs
_AT_ONCE = 16  # tasks that are begun between two steps, so that a crowd that comes holds up nobody who is served


class _Nudge:
    """A task without anything to do: the thread looks at its steps."""

    ended = True

    def run(self) -> None:
        """Do nothing."""


_NUDGE = _Nudge()


class Steps(Protocol):
    """What goes on in steps as long as there is anything to do."""

    def step(self) -> bool:
        """Go one step on, and return whether there is more to do."""
        ...

    def clear(self, failure: BaseException) -> None:
        """Fail all that was begun: the thread died of it."""
        ...


class Worker:
    """Begins tasks, first come first served, and steps on with what they began; sleeps where there is nothing to do.

    The thread starts with the first task. One that dies fails what it had; the next task starts another. A forked child
    has none, and its parent's locks as they were: there it takes no task.
    """

    def __init__(self, name: str, steps: Steps | None = None) -> None:
        """Name the thread, for stack dumps."""
        self._name = name
        self._steps = steps
        self._queue: SimpleQueue[Task[Any] | _Nudge | None] = SimpleQueue()
        self._lock = threading.RLock()  # the collector may free the engine, which stops this, while it is held
        self._live: set[Task[Any]] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._died = False
        self._process = os.getpid()

    def submit(self, task: Task[Any], *, most: int | None = None) -> None:
        """Queue a task.

        Raises:
            LLMConfigurationError: The engine is closed, or belongs to the process that this one was forked from.
            LLMOverloadedError: `most` generations, or more, are queued or run.
        """
        if self._process != os.getpid():
            raise LLMConfigurationError("this engine belongs to the process that was forked; make a new one here")
        with self._lock:
            if self._stopped:
                raise LLMConfigurationError("this engine is closed; make a new one")
            if most is not None and self.generations >= most:
                raise LLMOverloadedError(
                    f"the model on the box has {most} requests, as many as may run and wait; "
                    "ask again later, or allow more with max_waiting"
                )
            self._live.add(task)
            self._queue.put(task)
            if self._thread is None:
                self._start()

    def nudge(self) -> None:
        """Have the thread, if it sleeps, take a step: no task brought what there is to do; from any thread."""
        self._queue.put(_NUDGE)

    def stop(self, last: Task[Any] | None = None) -> bool:
        """Take no more tasks, cancel those there are, run `last` and end the thread; return whether `last` will run."""
        if self._process != os.getpid():
            return False
        with self._lock:
            if self._stopped:
                return False
            self._stopped = True
            live = list(self._live)
            if last is not None:
                self._queue.put(last)
            self._queue.put(None)
            if self._died and last is not None and self._thread is None:
                self._start()
        for task in live:
            task.cancel(LLMConnectionError("the engine was closed before the answer was whole; ask another", sent=True))
        return self._thread is not None

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, so many seconds at most; blocks."""
        if (thread := self._thread) is not None:
            thread.join(seconds)

    @property
    def generations(self) -> int:
        """How many texts are asked for, those that nobody has begun included."""
        with self._lock:
            return sum(task.choices for task in self._live if isinstance(task, Generation) and not task.ended)

    def _start(self) -> None:
        # A daemon, so that leaving the interpreter does not wait for an answer that nobody reads.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _running.add(self)
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._die(failure)
        finally:
            _running.discard(self)

    def _work(self) -> None:
        busy = False
        while True:
            for task in self._next(wait=not busy):
                if task is None:
                    return
                task.run()
                del task  # its prompt and its text must not stay until the next one comes
            busy = self._steps is not None and self._steps.step()
            with self._lock:
                self._live = {task for task in self._live if not task.ended}

    def _next(self, *, wait: bool) -> Iterator[Task[Any] | _Nudge | None]:
        if wait:
            yield self._queue.get()
        with suppress(Empty):
            for _ in range(_AT_ONCE):
                yield self._queue.get_nowait()

    def _die(self, failure: BaseException) -> None:
        with self._lock:
            live, self._live = self._live, set()
        try:
            if self._steps is not None:
                self._steps.clear(failure)
        finally:
            for task in live:
                task.fail(failed(failure))
            with self._lock:  # not before: no two threads may have the models
                self._thread, self._died = None, True
                if self._live or self._stopped:  # what came meanwhile, and what is to be done last
                    self._start()


_running: set[Worker] = set()
os.register_at_fork(after_in_child=_running.clear)


@atexit.register
def _leave() -> None:
    # A thread inside torch must not outlive the interpreter.
    workers = list(_running)
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join(_PATIENCE)
