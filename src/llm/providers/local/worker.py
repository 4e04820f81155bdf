"""The one thread in which an engine's model runs, so that no event loop ever waits for a matrix."""

from __future__ import annotations

import atexit
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMConfigurationError, LLMConnectionError

if TYPE_CHECKING:
    from .job import Job

_PATIENCE = 10.0  # seconds that leaving the interpreter waits for the step that runs


class Worker:
    """Runs jobs one after the other, first come first served; the thread starts with the first."""

    def __init__(self, name: str) -> None:
        """Name the thread, for stack dumps."""
        self._name = name
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._lock = threading.RLock()  # the collector may free the engine, which stops this, while it is held
        self._live: set[Job[Any]] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def submit(self, job: Job[Any]) -> None:
        """Queue a job.

        Raises:
            LLMConfigurationError: The engine is closed.
        """
        with self._lock:
            if self._stopped:
                raise LLMConfigurationError("this engine is closed; make a new one")
            self._live.add(job)
            self._queue.put(job)
            if self._thread is None:
                # A daemon, so that leaving the interpreter does not wait for an answer that nobody reads.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self, last: Job[Any] | None = None) -> bool:
        """Take no more jobs, cancel those there are, run `last` and end the thread; return whether `last` will run."""
        with self._lock:
            if self._stopped:
                return False
            self._stopped = True
            live = list(self._live)
            if last is not None:
                self._queue.put(last)
            self._queue.put(None)
        for job in live:
            job.cancel(
                LLMConnectionError("the engine was closed before the answer was whole; ask a new one", sent=True)
            )
        return self._thread is not None

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, so many seconds at most; blocks."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        _running.add(self)
        try:
            while (job := self._queue.get()) is not None:
                job.run()
                with self._lock:
                    self._live.discard(job)
                del job  # its prompt and its text must not stay until the next one comes
        finally:
            _running.discard(self)


_running: set[Worker] = set()


@atexit.register
def _leave() -> None:
    # A thread inside torch must not outlive the interpreter.
    workers = list(_running)
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join(_PATIENCE)
