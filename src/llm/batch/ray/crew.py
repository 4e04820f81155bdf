"""The process that runs the batch, and its workers: rows go out, outcomes come in, and a lost worker is replaced."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from llm.batch.outcome import outcome_of
from llm.batch.outlast import outlast
from llm.batch.values import BadRow, ResponseWrapper
from llm.core.exceptions import LLMConnectionError

from .stock import Hand, Stock
from .values import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from llm.batch.values import Outcome, Row
    from llm.progress import ProgressTracker
    from llm.utils.clock import Clock

    from .seen import Seen
    from .values import News, Worker

_IN_VAIN: Final = 3
"""Workers, beyond one for each place, that may be lost before any row ended in between; then none can live there."""
_REST: Final = 30.0
"""Seconds without a worker at a place where so many were lost, while others live."""
_CLOSE: Final = 10.0
_LEAVE: Final = 2.0
"""Seconds that a worker gets to put its affairs in order: at the end, and where the run is ended early."""
_TWICE: Final = "two workers were lost while they had this row; the last"
_ONCE: Final = "its worker was lost, may have sent it, and retry.after_send is off"
_STARTING: Final = "workers are being started"


class Hiring(NamedTuple):
    """How workers are had.

    Attributes:
        hire: Makes one.
        size: How many there are at the same time.
        hand: Rows that each has at most: those it answers, and a few that wait there for their turn.
    """

    hire: Callable[[], Worker]
    size: int
    hand: int


class RemoteCrew:
    """Has workers take rows to their end. A worker that is lost costs its rows a second try, and no more."""

    def __init__(  # noqa: PLR0913 - what a run is made of
        self,
        hiring: Callable[[], AbstractAsyncContextManager[Hiring]],
        write: Callable[[Outcome], Awaitable[None]],
        *,
        tracker: ProgressTracker,
        seen: Seen,
        clock: Clock,
        again: bool = True,
    ) -> None:
        """Ask for workers once there is a row.

        Args:
            hiring: Where workers come from; left when the run ends, however it ends.
            write: Keeps an outcome.
            tracker: Hears of each row, and of the provider's trouble.
            seen: Hears what the workers' calls came to.
            clock: The time.
            again: Whether a row is asked again that a lost worker may have sent, as `retry.after_send` has it.
        """
        self._hiring = hiring
        self._write = write
        self._tracker = tracker
        self._seen = seen
        self._clock = clock
        self._stock = Stock(again=again)
        self._lost = _TWICE if again else _ONCE
        self._waiting: dict[Hand, str] = {}
        self._in_vain = 0
        self._serving = 0
        self._starting = True

    async def run(self, portions: AsyncIterator[Sequence[Row | BadRow]]) -> None:
        """Take all rows to their end.

        Raises:
            LLMException: A worker gave the provider up, or no worker lives.
            Exception: What the reader or `write` raised, or why there are no workers.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stock.fill(portions, self._refuse))
                if await self._stock.any():
                    self._tracker.waiting(_STARTING)
                    async with self._hiring() as hiring, asyncio.TaskGroup() as places:
                        for _ in range(hiring.size):
                            places.create_task(self._place(hiring))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _place(self, hiring: Hiring) -> None:
        """Have a worker, and another in its place where it is lost, until every row has ended."""
        while not self._stock.over:
            hand, worker = Hand(hiring.hand), hiring.hire()
            try:
                if await self._begin(worker):
                    await self._serve(worker, hand)
            except WorkerLostError as lost:
                await self._lose(hand, lost, hiring.size)
            finally:
                worker.dismiss()
                self._wait(hand, None)

    async def _begin(self, worker: Worker) -> bool:
        """Wait for a worker no longer than there are rows; return whether it came, for others may have the room."""
        beginning, over = asyncio.create_task(worker.begin()), asyncio.create_task(self._stock.ended())
        try:
            await asyncio.wait({beginning, over}, return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                beginning.result()
            return beginning.done()
        finally:
            beginning.cancel()
            over.cancel()

    async def _serve(self, worker: Worker, hand: Hand) -> None:
        self._serving += 1
        try:
            await self._exchange(worker, hand)
        except asyncio.CancelledError:
            await self._part(worker, hand, _LEAVE)
            raise
        finally:
            self._serving -= 1
        await self._part(worker, hand, _CLOSE)

    async def _exchange(self, worker: Worker, hand: Hand) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen(worker, hand))
                while rows := await self._stock.take(hand):
                    if not await _put(worker, rows):
                        return  # who listens hears that it is lost
                listening.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _part(self, worker: Worker, hand: Hand, seconds: float) -> None:
        with suppress(TimeoutError, WorkerLostError):
            async with self._clock.timeout(seconds):
                news = await worker.close()
            await self._hear(hand, news)

    async def _listen(self, worker: Worker, hand: Hand) -> None:
        while True:
            hearing = asyncio.create_task(self._hear(hand, await worker.news()))
            await outlast(hearing, lambda: None)  # what was answered is written, also where the run ends meanwhile

    async def _hear(self, hand: Hand, news: News) -> None:
        if self._starting:
            self._starting = False
            self._tracker.waiting(None)
        if news.view is not None:
            self._seen.note(hand, news.view)
        self._wait(hand, news.waiting)
        if mine := [outcome for outcome in news.outcomes if outcome.order in hand.rows]:
            self._in_vain = 0
            await self._keep(mine)
            self._stock.end(hand, [outcome.order for outcome in mine])
        self._tracker.running(self._stock.out)
        if news.reason is not None:
            raise news.reason

    async def _keep(self, outcomes: Sequence[Outcome]) -> None:
        try:
            async with asyncio.TaskGroup() as group:  # what waits together goes out in one write
                for outcome in outcomes:
                    group.create_task(self._kept(outcome))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _kept(self, outcome: Outcome) -> None:
        await self._write(outcome)
        if outcome.kind is None:
            self._tracker.answered(outcome.usage, outcome.cost, cached=outcome.cached)
        else:
            self._tracker.failed(outcome.kind)

    async def _refuse(self, row: BadRow) -> None:
        await self._kept(outcome_of(row, ResponseWrapper(row.custom_id or "", row.order), created=0))

    async def _lose(self, hand: Hand, lost: WorkerLostError, places: int) -> None:
        self._seen.lose(hand)
        self._in_vain += 1
        in_vain = self._in_vain > _IN_VAIN + places
        if in_vain and not self._serving:
            raise LLMConnectionError(f"no worker lives long enough to answer a row; the last: {lost}")
        error = LLMConnectionError(f"{self._lost}: {lost}", sent=True)
        ended = self._stock.lose(hand)
        await self._keep(
            [outcome_of(row, ResponseWrapper(row.custom_id, row.order, None, error), created=0) for row in ended]
        )
        if in_vain:
            with suppress(TimeoutError):
                async with self._clock.timeout(_REST):
                    await self._stock.ended()

    def _wait(self, hand: Hand, why: str | None) -> None:
        """Know why a worker waits; all is well once none does."""
        if why is None and self._waiting.pop(hand, None) is None:
            return
        if why is not None:
            self._waiting[hand] = why
        self._tracker.waiting(next(iter(self._waiting.values()), None))


async def _put(worker: Worker, rows: Sequence[Row]) -> bool:
    """Hand rows over; a worker that does not take them is ended."""
    try:
        await worker.put(rows)
    except WorkerLostError:
        worker.dismiss()
        return False
    return True


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first
