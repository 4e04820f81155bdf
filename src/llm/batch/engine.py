"""The engine of batches: a fixed number of workers that take a row, ask for its answer, and see it delivered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from llm.core.embedding import joined
from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.middleware.errors import may_have_arrived

from .dialect import request_of
from .summary import was_cached
from .trouble import PATIENCE, Alone, Trouble, is_trouble, shows_service
from .values import BadRow, ResponseWrapper, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from llm.core.client import LLMClient
    from llm.core.types import TokenUsage
    from llm.utils.clock import Clock, Timer

_logger = logging.getLogger("llm.batch")

_DRAIN: Final = 10.0
"""Seconds that calls in flight get to end by themselves where the run stops."""

Deliver: TypeAlias = Callable[[Row | BadRow, ResponseWrapper], Awaitable[None]]
"""Takes a row that has come to its end, and returns when that is kept; the row is not finished before."""


class Hearing(Protocol):
    """Hears how a run goes; an `llm.progress.ProgressTracker` is one."""

    def answered(self, usage: TokenUsage, cost: float | None, *, cached: bool) -> None:
        """Know of a row that was answered, and what that took."""

    def failed(self, kind: str) -> None:
        """Know of a row that failed, and how."""

    def waiting(self, why: str | None) -> None:
        """Know why nothing goes on for a while; None: it goes on."""

    def running(self, rows: int) -> None:
        """Know how many rows are in flight."""


class Workers:
    """Takes rows through a client, so many at once; one run.

    No more is in memory than a portion of rows and one row for each worker.
    """

    def __init__(  # noqa: PLR0913 - what a run is made of
        self,
        client: LLMClient,
        *,
        deliver: Deliver,
        tracker: Hearing,
        clock: Clock,
        concurrency: int = 64,
        patience: float = PATIENCE,
        lasting: Callable[[], bool] = lambda: False,
        after_send: Callable[[], bool] = lambda: True,
        stops: bool = True,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Make the workers of one run.

        Args:
            client: Whose calls they make.
            deliver: Takes each row that has come to its end.
            tracker: Hears of each row, and of the provider's trouble.
            clock: Their time.
            concurrency: How many rows are in flight, at most.
            patience: Seconds without one answer after which a provider in trouble is given up.
            lasting: Returns whether trouble cannot pass any more, since the manager was closed for one.
            after_send: Returns whether a row is asked again that may have reached the provider, as `retry` has it.
            stops: Whether the run stops where the provider is given up; else that is the row's own end.
            dice: Returns a number from 0 to 1 for the jitter of pauses.

        Raises:
            LLMInvalidRequestError: `concurrency` or `patience` is out of range.
        """
        check_range(concurrency, patience)
        self._client = client
        self._deliver = deliver
        self._tracker = tracker
        self._clock = clock
        self._concurrency = concurrency
        self._lasting = lasting
        self._after_send = after_send
        self._stops = stops
        self._dice = dice
        self._trouble = Trouble(patience)
        self._stopped = asyncio.Event()
        self._reason: LLMException | None = None
        self._timer: Timer | None = None
        self._running = 0
        self._rows: _Rows | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._told: set[type[Exception]] = set()

    async def run(self, portions: AsyncIterator[Sequence[Row | BadRow]]) -> None:
        """Take all rows to their end; the reader is asked for the next portion by one worker at a time.

        Where one fails, or this is cancelled, the calls in flight are ended; what was delivered stays. Where the
        provider is given up they get a few seconds first.

        Raises:
            LLMException: The provider was given up: what it failed with last. Its rows are not delivered.
            Exception: What the reader or `deliver` raised.
        """
        rows = self._rows = _Rows(portions)
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = [group.create_task(self._work(rows)) for _ in range(self._concurrency)]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if self._reason is not None:
            raise self._reason

    async def _work(self, rows: _Rows) -> None:
        self._running += 1
        self._tracker.running(self._running)
        await self._take(rows)
        self._running -= 1
        self._tracker.running(self._running)

    async def _take(self, rows: _Rows) -> None:
        # A provider, or a layer, may have swallowed the cancellation.
        cancelled = cast("asyncio.Task[None]", asyncio.current_task()).cancelling
        while self._reason is None and not cancelled() and (row := await rows.next()) is not None:
            wrapper = _refused(row) if isinstance(row, BadRow) else await self._answered(row)
            if wrapper is None or (wrapper.response is None and cancelled()):
                return
            await self._deliver(row, wrapper)
            response = wrapper.response
            if response is None:
                self._tracker.failed(kind_of(row, wrapper))
            else:
                self._tracker.answered(response.usage, response.cost, cached=was_cached(response))

    async def _answered(self, row: Row) -> ResponseWrapper | None:
        """Return what became of a row; None where the run stops before that is known."""
        attempt, alone = 0, Alone(self._trouble)
        while True:
            try:
                return await self._asked(row)
            except LLMException as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001 - one row's end, whatever it is
                error = self._unforeseen(raised)
            attempt += 1
            if not is_trouble(error) or alone.failed(error) or self._only_once(error):
                if shows_service(error):
                    self._served()
                break
            if not await self._paused(error, attempt):
                if self._reason is not None:
                    return None
                break
        return ResponseWrapper(row.custom_id, row.order, None, _light(error))

    def _only_once(self, error: LLMException) -> bool:
        return may_have_arrived(error) and not self._after_send()

    async def _asked(self, row: Row) -> ResponseWrapper:
        request = request_of(row)
        response = await self._client.request(request)
        if not response.cached:
            self._served()
        return ResponseWrapper(row.custom_id, row.order, response if request.embed is None else joined([response]))

    async def _paused(self, error: LLMException, attempt: int) -> bool:
        """Wait for the provider to come round; return whether to ask again."""
        pause = None
        if not self._lasting():
            pause = self._trouble.pause(self._clock.now(), error, attempt, self._dice())
        if pause is None:
            if self._stops:
                self._stop(error)
            return False
        self._tracker.waiting(error.message)
        with suppress(TimeoutError):
            async with self._clock.timeout(pause):
                await self._stopped.wait()
        return not self._stopped.is_set()

    def _served(self) -> None:
        if self._trouble.over():
            self._tracker.waiting(None)

    def _stop(self, error: LLMException) -> None:
        if self._reason is None:
            self._reason = error
            self._stopped.set()
            self._timer = self._clock.call_later(_DRAIN, self._end)
            if self._rows is not None:
                self._rows.send_away()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _unforeseen(self, raised: Exception) -> LLMException:
        kind = type(raised)
        if kind not in self._told:  # once, for there may be a million
            self._told.add(kind)
            _logger.error("a row of a batch failed with a %s that nobody foresaw", kind.__name__, exc_info=raised)
        return LLMException(f"the call ended with a {kind.__name__}, which is a fault in the program; see the log")


class _Rows:
    """Hands rows out one by one, and reads the next portion for all when they run out."""

    def __init__(self, portions: AsyncIterator[Sequence[Row | BadRow]]) -> None:
        self._portions = portions
        self._rows: Iterator[Row | BadRow] = iter(())
        self._reading = asyncio.Lock()
        self._waiting: set[asyncio.Task[object]] = set()
        self._over = False

    async def next(self) -> Row | BadRow | None:
        """Return the next row; None at the end."""
        while (row := next(self._rows, None)) is None and not self._over:
            await self._read(self._rows)
        return row

    async def _read(self, before: Iterator[Row | BadRow]) -> None:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._waiting.add(task)
        try:
            async with self._reading:
                if self._rows is before and not self._over:
                    portion = await anext(self._portions, None)
                    self._over = portion is None
                    self._rows = iter(portion or ())
        finally:
            self._waiting.discard(task)

    def send_away(self) -> None:
        """End those that wait for a row, for none is wanted any more, and the next may be long in coming."""
        for task in self._waiting:
            task.cancel()


def check_range(concurrency: int, patience: float) -> None:
    """Refuse what no run can have.

    Raises:
        LLMInvalidRequestError: A number is out of range; names it and the range.
    """
    given: tuple[object, object] = (concurrency, patience)
    if type(given[0]) is not int or concurrency < 1:
        raise LLMInvalidRequestError(f"concurrency is {concurrency!r}; expected how many rows at once, 1 or more")
    if type(given[1]) not in {int, float} or not patience >= 0.0:
        raise LLMInvalidRequestError(f"patience is {patience!r}; expected seconds, 0 or more")


def kind_of(row: Row | BadRow, wrapper: ResponseWrapper) -> str:
    """Return what to call a row's failure: the code of a row that holds no request, else the exception's name."""
    return row.code if isinstance(row, BadRow) else type(wrapper.error).__name__


def _light(error: LLMException) -> LLMException:
    """Return an error that may be kept: without tracebacks, which hold all that the call held."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _refused(row: BadRow) -> ResponseWrapper:
    return ResponseWrapper(row.custom_id or "", row.order, None, LLMInvalidRequestError(f"{row.code}: {row.message}"))
