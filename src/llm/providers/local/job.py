"""Work of the engine's thread that a coroutine of any event loop waits for."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from llm.core.exceptions import LLMException, LLMServerError

from .request import GenerationResult, Piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.choices import TokenLogprob

T = TypeVar("T")


class Task(Generic[T]):
    """What is asked of the engine's thread; it belongs to the loop that was running when it was made, and no other."""

    def __init__(self, work: Callable[[], object]) -> None:
        """Keep the work; it runs in the engine's thread, and settles the task or sees to it that something will."""
        self._work: Callable[[], object] | None = work
        self._loop = asyncio.get_running_loop()
        self._lock = threading.RLock()  # a stream that the collector frees while this thread holds it cancels its job
        self._waiters: list[asyncio.Future[None]] = []
        self._cancelled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._ended = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more: it was cancelled, or its loop was closed."""
        return self._cancelled or self._loop.is_closed()

    @property
    def ended(self) -> bool:
        """Whether there is an outcome."""
        return self._ended

    @property
    def value(self) -> T | None:
        """What the work returned; None before that."""
        return self._value

    def cancel(self, error: LLMException | None = None) -> None:
        """Have the work stop at its next step, from any thread; who waits gets `error` at once, if there is one."""
        with self._lock:
            if self._ended:
                return
            self._cancelled = True
            self._error = error
            self._ended = error is not None
        self._wake()

    def run(self) -> None:
        """Do the work, unless nobody waits for it; called once, by the engine's thread."""
        work, self._work = self._work, None  # who still holds the job must not hold a model by it
        if self._ended or work is None:
            return
        try:
            work()
        except Exception as failure:  # noqa: BLE001 - whatever a model does, it fails one request and not the thread
            self.fail(failed(failure))

    def settle(self, value: T) -> None:
        """Keep the outcome, unless there is one."""
        self._end(value, None)

    def fail(self, error: LLMException) -> None:
        """Keep the error as the outcome, unless there is one."""
        self._end(None, error)

    def _end(self, value: T | None, error: LLMException | None) -> None:
        with self._lock:
            if not self._ended:
                self._value, self._error, self._ended = value, error, True
        self._wake()

    async def result(self) -> T:
        """Wait for the outcome.

        Raises:
            LLMException: The work failed, or the engine was closed.
        """
        await self._until(lambda: self._ended)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # it ended without an error, so this is what work returned

    async def _until(self, ready: Callable[[], bool]) -> None:
        while True:
            with self._lock:
                if ready():
                    return
                waiter = self._loop.create_future()
                self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                self._loop.call_soon_threadsafe(_release, waiter)


class Job(Task[T]):
    """One piece of work, whose value is the outcome."""

    def __init__(self, work: Callable[[], T]) -> None:
        """Keep the work."""
        super().__init__(lambda: self.settle(work()))


class Listener(Protocol):
    """Who waits for one text."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def push(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        """Take a piece of it."""

    def settle(self, value: GenerationResult) -> None:
        """Take it whole."""

    def fail(self, error: LLMException) -> None:
        """Hear that there will be none."""


class Generation(Task[GenerationResult]):
    """The generation of a text, or of several, piece by piece.

    Its work begins it, and the batch that it is in then settles it.
    """

    def __init__(self, begin: Callable[[Generation], None], *, streaming: bool, choices: int = 1) -> None:
        """Keep how it begins; the pieces of one that is not streaming are read at the end, and wake nobody before."""
        super().__init__(lambda: begin(self))
        self.choices: int = choices
        self._streaming = streaming
        self._pieces: deque[Piece] = deque()
        self._results: dict[int, GenerationResult] = {}

    @property
    def listeners(self) -> list[Listener]:
        """Who waits for each of its texts."""
        return [self] if self.choices == 1 else [_Choice(self, index) for index in range(self.choices)]

    def push(self, text: str, logprobs: tuple[TokenLogprob, ...] = (), choice: int = 0) -> None:
        """Hand a piece of a text over, from the engine's thread."""
        if text and self._streaming:
            self._pieces.append(Piece(text, logprobs, choice))
            self._wake()

    def settle_one(self, choice: int, result: GenerationResult) -> None:
        """Keep one of several texts; with the last, or when it was cancelled, all there are are the outcome."""
        self._results[choice] = result
        if len(self._results) == self.choices or result.finish_reason == "cancelled":
            first, *others = [result for _, result in sorted(self._results.items())]
            self.settle(replace(first, others=tuple(others)))

    def waiting(self) -> bool:
        """Return whether a piece is there to be read."""
        return bool(self._pieces)

    async def piece(self) -> Piece | None:
        """Return the next piece, None after the last.

        Raises:
            LLMException: The generation failed; what came before is read first.
        """
        await self._until(lambda: bool(self._pieces) or self._ended or self._cancelled)
        if self._pieces:
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return None


class _Choice:
    """One of several texts of a generation."""

    def __init__(self, job: Generation, index: int) -> None:
        self._job = job
        self._index = index

    @property
    def cancelled(self) -> bool:
        return self._job.cancelled or self._job.ended  # as where another one failed

    def push(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        self._job.push(text, logprobs, self._index)

    def settle(self, value: GenerationResult) -> None:
        self._job.settle_one(self._index, value)

    def fail(self, error: LLMException) -> None:
        self._job.fail(error)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def failed(failure: BaseException) -> LLMException:
    """Return a failure in the engine's thread as the caller gets it."""
    if isinstance(failure, LLMException):
        _let_go(failure)
        return failure
    if failure.__traceback__ is not None:
        failure.add_note("".join(traceback.format_tb(failure.__traceback__)))
    _let_go(failure)
    error = LLMServerError(
        f"the model on the box failed: {type(failure).__name__}: {failure}; ask again, and if it stays, "
        "take another device or a shorter prompt"
    )
    error.__cause__ = failure
    return error


def _let_go(failure: BaseException) -> None:
    # Who keeps an error must not keep by its frames the model that they worked with.
    link: BaseException | None = failure
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
