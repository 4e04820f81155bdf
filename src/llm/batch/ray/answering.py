"""What runs on a worker: a manager, and the same engine that runs without Ray."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from llm.batch.engine import Workers
from llm.batch.outcome import outcome_of
from llm.batch.saturation import saturation_of
from llm.core.exceptions import LLMException
from llm.core.manager import LLMManager
from llm.utils.clock import SystemClock

from .values import Duty, News, View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from llm.batch.values import BadRow, Outcome, ResponseWrapper, Row
    from llm.core.types import TokenUsage
    from llm.utils.clock import Clock

_logger = logging.getLogger("llm.batch")

_LOOK: Final = 1.0
"""Seconds between two looks at what the calls came to, and between two news of a worker where nothing happens."""
_COUNTS: Final = ("calls", "tokens", "saved", "cost")


class Answering:
    """Answers rows that it is given, and tells what became of them; its methods are called from afar.

    Each is called by one at a time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Wait for its duty."""
        self._clock = clock or SystemClock()
        self._given: asyncio.Queue[Sequence[Row]] = asyncio.Queue()
        self._ended: list[Outcome] = []
        self._unheard: list[Outcome] = []
        self._happened = asyncio.Event()
        self._waiting: str | None = None
        self._reason: LLMException | None = None
        self._manager: LLMManager | None = None
        self._task: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._pause = 0.0

    async def begin(self, *parts: bytes) -> None:
        """Begin with its duty, of which these are the parts; what is wrong with that is told as news."""
        duty = Duty.of(parts)
        self._pause = duty.pause
        self._task = asyncio.create_task(self._work(duty))

    async def put(self, rows: Sequence[Row]) -> None:
        """Take rows."""
        self._given.put_nowait(rows)

    async def news(self) -> News:
        """Return what happened since the last time: soon after something did, and at the latest in a second."""
        self._unheard = []  # who asks again has heard it
        try:
            async with self._clock.timeout(_LOOK):
                await self._happened.wait()
        except TimeoutError:
            return self._told()
        await self._clock.sleep(self._pause)
        return self._told()

    async def close(self) -> News:
        """End the calls that run, close the manager, and return the last news, and those that may not have come."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._looked = float("-inf")
        told = self._told()
        if self._manager is not None:
            await self._manager.close(drain=0.0)
        return told

    def _told(self) -> News:
        self._happened.clear()
        self._unheard, self._ended = [*self._unheard, *self._ended], []
        return News(self._unheard, self._waiting, self._view(), self._reason)

    def _view(self) -> View | None:
        now = self._clock.now()
        if self._manager is None or now < self._looked + _LOOK:
            return None
        self._looked = now
        models = self._manager.get_status()["models"]
        counts = {name: {what: shown[what] for what in _COUNTS} for name, shown in models.items()}
        return View(counts, saturation_of(self._manager))

    async def _work(self, duty: Duty) -> None:
        try:
            await self._answer(duty)
        except LLMException as error:
            self._reason = error
        except Exception as error:
            _logger.exception("a worker of a batch failed")
            self._reason = LLMException(f"a worker ended with a {type(error).__name__}; its log in Ray says more")
        self._happened.set()

    async def _answer(self, duty: Duty) -> None:
        manager = self._manager = await LLMManager.open(duty.config)
        workers = Workers(
            manager.get_client(duty.provider, model=duty.model),
            deliver=self._deliver,
            tracker=self,
            clock=self._clock,
            concurrency=duty.concurrency,
            patience=duty.patience,
            lasting=lambda: manager.closed,
            after_send=lambda: manager.config.retry.after_send,
        )
        async with aclosing(self._portions()) as portions:
            await workers.run(portions)

    async def _portions(self) -> AsyncGenerator[Sequence[Row | BadRow], None]:
        while True:
            yield await self._given.get()

    async def _deliver(self, row: Row | BadRow, wrapper: ResponseWrapper) -> None:
        self._ended.append(outcome_of(row, wrapper, created=int(self._clock.wall())))
        self._happened.set()

    # What the engine tells; the process that runs the batch counts by outcomes.

    def answered(self, usage: TokenUsage, cost: float | None, *, cached: bool) -> None:
        """Hear of a row that was answered."""

    def failed(self, kind: str) -> None:
        """Hear of a row that failed."""

    def waiting(self, why: str | None) -> None:
        """Hear why nothing goes on."""
        self._waiting = why
        self._happened.set()

    def running(self, rows: int) -> None:
        """Hear how many rows it takes at once."""
