"""Several processes on one socket: the parent starts them, passes signals on, and starts again what dies.

The parent opens no manager and no model, runs no loop and no thread, so that each worker is its fork. A pair of sockets
joins it with each of them: a worker says there that it listens, and hears there that its parent is gone.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.utils.clock import Clock

_logger = logging.getLogger("llm.gateway")

_HEARD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
_READY: Final = b"1"
_WRONG: Final = frozenset({2, 3})
"""Statuses of who has no usable configuration, or no provider: the next would not do better."""

_LONGEST_PAUSE: Final = 30.0
_STEADY: Final = 10.0
"""Seconds after which a worker's death says nothing about how long the next one lives."""


class Ears:
    """What hears signals without a loop: each is a byte in a socket."""

    def __init__(self) -> None:
        """Hear from now on."""
        self.socket, self._told = socket.socketpair()
        self._told.settimeout(0.0)
        self._before = {number: signal.signal(number, _heard) for number in _HEARD}
        signal.set_wakeup_fd(self._told.fileno())

    def close(self) -> None:
        """Hear no more; free when that is so already."""
        if self._before:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}
            self.socket.close()
            self._told.close()


@dataclass(slots=True)
class Worker:
    """A place among the workers, and the process that has it.

    Attributes:
        pause: Seconds that the next one will have to wait, if this one dies soon.
        pid: Its process; 0 while there is none.
        since: Monotonic seconds of its start.
        due: Monotonic seconds from which on the next may start.
        line: The parent's end of what joins them.
    """

    pause: float
    pid: int = 0
    since: float = 0.0
    due: float = 0.0
    line: socket.socket | None = None


class Supervisor:
    """The parent of the workers."""

    def __init__(  # noqa: PLR0913 - what a parent needs, most of it with its default
        self,
        count: int,
        work: Callable[[socket.socket, int], int],
        *,
        ready: Callable[[], object],
        leave: Callable[[], object],
        pause: float = 0.5,
        clock: Clock | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            count: How many workers there are to be.
            work: What one does, with its line to the parent and its place, from 0; returns its exit status.
            ready: Called once the first of them listens.
            leave: Called as no more are started: the parent's own hold of what they listen on ends.
            pause: Seconds until a worker that died is started again; they double while it dies soon.
            clock: Its time.
        """
        self._pause = pause
        self._work = work
        self._ready = ready
        self._leave = leave
        self._clock = clock or SystemClock()
        self._workers = [Worker(pause) for _ in range(count)]
        self._served = False
        self._ending: int | None = None  # the exit status to come

    def run(self) -> int:
        """Return the exit status: here the parent's, and in each worker its own."""
        ears = Ears()
        try:
            while True:
                for place, worker in enumerate(self._workers):
                    line = self._fork(worker) if self._is_due(worker) else None
                    if line is not None:
                        return self._be(ears, line, place)
                if self._ending is not None and not any(worker.pid for worker in self._workers):
                    return self._ending
                self._wait(ears)
        finally:
            ears.close()

    def _is_due(self, worker: Worker) -> bool:
        return not worker.pid and self._ending is None and self._clock.now() >= worker.due

    def _fork(self, worker: Worker) -> socket.socket | None:
        """Start a worker; return its line to the parent in the worker, and None in the parent."""
        mine, its = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # no signal is to meet a worker that has our ears
        pid = os.fork()
        if not pid:
            mine.close()
            return its
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        its.close()
        worker.pid, worker.line, worker.since = pid, mine, self._clock.now()
        return None

    def _be(self, ears: Ears, line: socket.socket, place: int) -> int:
        """Do a worker's work, in its process."""
        os.setpgid(0, 0)  # Ctrl-C in a terminal is for the parent, which passes it on
        for worker in self._workers:
            if worker.line is not None:
                worker.line.close()
        ears.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        return self._work(line, place)

    def _wait(self, ears: Ears) -> None:
        """Wait for a signal, for a worker's word, or until one is due, and do what follows from it."""
        lines = {worker.line: worker for worker in self._workers if worker.line is not None}
        dues = [worker.due for worker in self._workers if not worker.pid]
        seconds = max(0.0, min(dues) - self._clock.now()) if dues and self._ending is None else None
        readable, _, _ = select.select([ears.socket, *lines], [], [], seconds)
        for each in readable:
            if each is ears.socket:
                for number in each.recv(4096):
                    self._hear(number)
            else:
                self._listen(lines[each], each)

    def _listen(self, worker: Worker, line: socket.socket) -> None:
        if line.recv(1) != _READY:
            line.close()
            worker.line = None
        elif not self._served:
            self._served = True
            self._ready()

    def _hear(self, number: int) -> None:
        if number == signal.SIGCHLD:
            for worker in self._workers:
                self._reap(worker)
        elif number in (signal.SIGHUP, signal.SIGUSR1):
            self._tell(signal.Signals(number))
        elif self._ending is None:
            self._end(128 + number, signal.Signals(number))
        else:
            self._ending = 128 + number
            self._tell(signal.SIGKILL)

    def _end(self, status: int, number: signal.Signals) -> None:
        self._ending = status
        self._leave()
        self._tell(number)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)  # it is there at least as a zombie until it is reaped

    def _reap(self, worker: Worker) -> None:
        pid, how = os.waitpid(worker.pid, os.WNOHANG) if worker.pid else (0, 0)
        if not pid:
            return
        status, now = os.waitstatus_to_exitcode(how), self._clock.now()
        worker.pid = 0
        if self._ending is not None:
            return
        if status in _WRONG and not self._served:
            self._end(status, signal.SIGTERM)
            return
        pause = self._pause if now - worker.since >= _STEADY else worker.pause
        worker.due, worker.pause = now + pause, min(2 * pause, _LONGEST_PAUSE)
        _logger.error("worker %d ended with status %d; another one starts in %g seconds", pid, status, pause)


def say_ready(line: socket.socket) -> None:
    """Tell the parent that the worker at this end of the line listens."""
    with suppress(OSError):  # it is gone, and the worker will hear of that
        line.send(_READY)


def _heard(*_: object) -> None:
    """Do nothing: that there is a handler is what makes a signal a byte."""
