"""Many requests from a program: all answers in order, or each as it comes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.stats import TokenStats
from llm.progress import ProgressTracker, show
from llm.sync import portal
from llm.sync.here import manager_here

from .engine import Workers, check_range, kind_of
from .files import beside, repeated
from .forecast import forecast
from .index import IdIndex
from .jsonl import count_rows, read_rows
from .request import RequestBatch
from .run import CONCURRENCY
from .saturation import saturation_of
from .source import path_of
from .summary import Tally
from .trouble import PATIENCE
from .values import BadRow, ResponseWrapper, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from llm.core.manager import LLMManager
    from llm.progress.show import Show
    from llm.sync import LLMManager as BlockingManager

    from .files import Portions
    from .foretold import Forecast
    from .source import Source

_PORTION: Final = 256


class RequestManager:
    """Takes batches through a manager, so many requests at once.

    A request that fails is a `ResponseWrapper` with its `error`, and is never raised. A provider that cannot serve
    anybody is asked again, after pauses, for `patience` seconds without one answer; then, or at once where no key is
    left, that is the error of the requests that need it. What is to survive a crash goes from a file to a file, by
    `run_file` or `manifold batch`, which asks for such rows again in its next run.
    """

    def __init__(
        self,
        manager: LLMManager | BlockingManager | None = None,
        *,
        concurrency: int = CONCURRENCY,
        progress: bool | ProgressTracker = False,
        patience: float = PATIENCE,
    ) -> None:
        """Take batches through `manager`.

        Args:
            manager: One of any event loop, or of `llm.sync`; None: the process's one.
            concurrency: Requests in flight at once, at most.
            progress: Whether to show how far a batch is; or what is to hear of it instead.
            patience: Seconds without one answer after which a provider in trouble is given up.

        Raises:
            LLMInvalidRequestError: A number is out of range, or `progress` is something else.
        """
        check_range(concurrency, patience)
        if not _is_progress(progress):
            raise LLMInvalidRequestError(
                f"progress is a {type(progress).__name__}; pass True, False or a ProgressTracker"
            )
        self._manager = manager
        self._concurrency = concurrency
        self._progress = progress
        self._patience = patience
        self._tally = Tally()
        self._seconds = 0.0
        self._saturation = 0.0

    @property
    def stats(self) -> TokenStats:
        """What all batches came to so far; of their time that of each from its start to its last answer.

        `saturation` is that of the fullest limit of any key, when the last batch ended.
        """
        tally = self._tally
        return TokenStats(
            requests=tally.answered + tally.failed,
            usage=tally.usage,
            cost=tally.cost,
            seconds=self._seconds,
            cache_hits=tally.cache_hits,
            saturation=self._saturation,
        )

    def process_batch(self, batch: RequestBatch | Source) -> list[ResponseWrapper]:
        """Return what became of each request, in order; blocks, and works in notebooks and inside a running loop, too.

        Ctrl-C ends the calls in flight.

        Raises:
            LLMConfigurationError: A file cannot be read, or there is no manager yet and the configuration is wrong.
            LLMPoolExhaustedError: The manager is closed.
        """
        tracker = self._tracker()
        with self._shown(tracker):
            return portal.run(self._all(batch, tracker))

    async def run(self, batch: RequestBatch | Source) -> list[ResponseWrapper]:
        """Return what became of each request, in order.

        Raises:
            LLMConfigurationError: A file cannot be read, or there is no manager yet and the configuration is wrong.
            LLMPoolExhaustedError: The manager is closed.
        """
        tracker = self._tracker()
        async with self._shown(tracker):
            return await self._all(batch, tracker)

    async def stream(self, batch: RequestBatch | Source) -> AsyncGenerator[ResponseWrapper, None]:
        """Yield what became of each request, as they end; memory stays flat, however many there are.

        Who reads slowly slows the calls down: at most `concurrency` answers wait. Leaving the loop ends the calls in
        flight; `aclosing` does so at once also where an exception keeps the iterator alive.

        Args:
            batch: Requests; or a file in JSON Lines, by path or open for bytes, whose bad rows and repeated ids are
                errors of their own.

        Raises:
            LLMConfigurationError: A file cannot be read, or there is no manager yet and the configuration is wrong.
            LLMPoolExhaustedError: The manager is closed.
        """
        tracker, room = self._tracker(), asyncio.Semaphore(self._concurrency)
        ended: asyncio.Queue[ResponseWrapper | None] = asyncio.Queue()

        async def deliver(wrapper: ResponseWrapper) -> None:
            await room.acquire()
            ended.put_nowait(wrapper)

        async with self._shown(tracker):
            task = asyncio.create_task(self._take(batch, tracker, deliver))
            task.add_done_callback(lambda _: ended.put_nowait(None))
            try:
                while (wrapper := await ended.get()) is not None:
                    room.release()
                    yield wrapper
                await task
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def forecast(self, batch: RequestBatch | Source) -> Forecast:
        """Return what a batch would take if it ran now; sends nothing, and takes nothing from the limits.

        Raises:
            LLMConfigurationError: A file cannot be read, or there is no manager yet and the configuration is wrong.
            LLMPoolExhaustedError: The manager is closed.
        """
        async with manager_here(self._manager) as manager, aclosing(_portions(batch)) as portions:
            return await forecast(manager, portions, concurrency=self._concurrency, clock=manager.parts.clock)

    async def _all(self, batch: RequestBatch | Source, tracker: ProgressTracker) -> list[ResponseWrapper]:
        found: list[ResponseWrapper] = []

        async def deliver(wrapper: ResponseWrapper) -> None:
            found.append(wrapper)

        await self._take(batch, tracker, deliver)
        return sorted(found, key=attrgetter("order"))

    async def _take(
        self,
        batch: RequestBatch | Source,
        tracker: ProgressTracker,
        deliver: Callable[[ResponseWrapper], Awaitable[None]],
    ) -> None:
        async with manager_here(self._manager) as manager:
            clock = manager.parts.clock

            async def ended(row: Row | BadRow, wrapper: ResponseWrapper) -> None:
                await deliver(wrapper)
                self._tally.finished(wrapper, kind_of(row, wrapper), clock.now())

            workers = Workers(
                manager.get_client(),
                deliver=ended,
                tracker=tracker,
                clock=clock,
                concurrency=self._concurrency,
                patience=self._patience,
                lasting=lambda: manager.closed,
                after_send=lambda: manager.config.retry.after_send,
                stops=False,
            )
            saturation = tracker.saturation
            tracker.saturation = saturation or partial(saturation_of, manager)
            path = None if isinstance(batch, RequestBatch) else await asyncio.to_thread(path_of, batch)
            counting = None if path is None else count_rows(path)
            tracker.begin(len(batch) if isinstance(batch, RequestBatch) else None)
            began = clock.now()
            try:
                async with beside(counting, tracker.begin), aclosing(_portions(batch)) as portions:
                    await workers.run(portions)
            finally:
                self._seconds += clock.now() - began
                self._saturation = max(saturation_of(manager).values(), default=0.0)
                tracker.finish()
                tracker.saturation = saturation  # the next batch may go through another manager

    def _tracker(self) -> ProgressTracker:
        return ProgressTracker() if isinstance(self._progress, bool) else self._progress

    def _shown(self, tracker: ProgressTracker) -> Show:
        return show(tracker, quiet=self._progress is not True)


def _is_progress(value: object) -> bool:
    return isinstance(value, (bool, ProgressTracker))


async def _portions(batch: RequestBatch | Source) -> Portions:
    if isinstance(batch, RequestBatch):
        rows = batch.rows()
        for start in range(0, len(rows), _PORTION):
            yield rows[start : start + _PORTION]
        return
    seen = IdIndex()
    async with aclosing(read_rows(batch)) as portions:
        async for portion in portions:
            yield [repeated(row) if isinstance(row, Row) and not seen.add(row.custom_id) else row for row in portion]
