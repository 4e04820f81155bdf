"""Requests whose form is made ready, beside the thread that runs the network; then they come into their batch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple

from .job import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .alone import Alone
    from .batching import Batch
    from .constraint import Form, Grammars
    from .grammar import Grammar
    from .sequence import Sequence


class _Waiting(NamedTuple):
    batch: Batch | Alone
    sequence: Sequence
    form: Future[Form]


def _nobody() -> None: ...


def _hold(sequence: Sequence, form: Form) -> None:
    for each in (sequence, *sequence.others):
        each.hold(form.start(each.most))


class Preparing:
    """Used by the engine's thread.

    Attributes:
        nudge: Called, from any thread, when a form is ready.
    """

    def __init__(self) -> None:
        """Start with none; the thread that makes forms ready starts with the first."""
        self.nudge: Callable[[], None] = _nobody
        self._waiting: list[_Waiting] = []
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, batch: Batch | Alone, sequence: Sequence, grammar: Grammar, grammars: Grammars) -> None:
        """Queue a request with its batch, at once where its form was used before."""
        found = grammars.find(grammar)
        if found is not None:
            _hold(sequence, found)
            batch.add(sequence)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "llm-grammar")
        form = self._thread.submit(grammars.make, grammar)
        self._waiting.append(_Waiting(batch, sequence, form))
        form.add_done_callback(lambda _: self.nudge())

    def admit(self) -> None:
        """Queue those whose form is ready with their batches."""
        ready = [waiting for waiting in self._waiting if waiting.form.done()]
        if ready:
            self._waiting = [waiting for waiting in self._waiting if not waiting.form.done()]
        for batch, sequence, form in ready:
            if (failure := form.exception()) is not None:
                sequence.job.fail(failed(failure))
                continue
            _hold(sequence, form.result())
            batch.add(sequence)

    def finish(self, batch: Batch | Alone) -> None:
        """Wait for the forms of a batch; blocks."""
        wait([waiting.form for waiting in self._waiting if waiting.batch is batch])

    def clear(self, failure: BaseException) -> None:
        """Fail all requests."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.sequence.job.fail(failed(failure))

    def close(self) -> None:
        """Let the thread go, and forget who waits: they were told."""
        self._waiting.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
