"""A file of requests into a file of answers: what was finished before is passed over, whatever ended the last run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from llm.core.exceptions import LLMConfigurationError
from llm.progress import ProgressTracker

from .dialect import answer_line, error_line, may_pass
from .engine import Workers, kind_of
from .journal import Journal, Standing
from .jsonl import count_rows, read_rows
from .ordering import sort_output
from .saturation import saturation_of
from .summary import Summary, Tally
from .trouble import PATIENCE
from .values import BadRow, Row

if TYPE_CHECKING:
    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .source import Source
    from .values import ResponseWrapper

Portions: TypeAlias = AsyncGenerator[Sequence[Row | BadRow], None]
"""Rows in portions, as `read_rows` yields them."""

CONCURRENCY: Final = 64
"""Rows in flight, where nobody says how many."""


async def run_file(  # noqa: PLR0913 - all that a run can be told
    manager: LLMManager,
    source: Source | Portions,
    output: str | os.PathLike[str],
    *,
    errors: str | os.PathLike[str] | None = None,
    client: LLMClient | None = None,
    concurrency: int = CONCURRENCY,
    patience: float = PATIENCE,
    restart: bool = False,
    ordered: bool = False,
    tracker: ProgressTracker | None = None,
    tally: Tally | None = None,
) -> Summary:
    """Answer every row of a file; run again, it goes on where it ended.

    Each row that comes to its end is at once one line in the output or in the errors file, in the format of OpenAI's
    Batch API, and is finished. A run that is cancelled or killed leaves all that was finished; the next one asks for
    the rest, and again for rows whose failure may have passed, such as a server's. A provider that cannot serve anybody
    is no failure of a row: the row is asked again after a pause, and after `patience` seconds without one answer, or at
    once where no key is left, the run stops.

    Args:
        manager: Whose limits, cache and keys the calls go through.
        source: A file in JSON Lines, by path or open for bytes; or rows of another kind, in portions.
        output: The file of answers, in order of completion.
        errors: The file of errors; by default beside the output, `x.errors.jsonl` for `x.jsonl`.
        client: Whose provider, model, user and priority the calls have; None: the manager's default one.
        concurrency: Rows in flight at once, at most.
        patience: Seconds without one answer after which a provider in trouble is given up.
        restart: Answer every row anew; what the files hold is kept beside them.
        ordered: Sort the output into the order of the input, once all rows are finished.
        tracker: Hears how it goes.
        tally: Counts; for who wants to know what was done by a run that was cancelled or stopped.

    Returns:
        What the run came to.

    Raises:
        LLMConfigurationError: The input or a file cannot be used, or the configuration cannot serve a row any more.
        LLMInvalidRequestError: An argument is out of range.
        LLMException: The provider was given up, by what it failed with last.
        OSError: A line cannot be written, as where the disk is full. What was written stays, and the next run goes on.
    """
    clock = manager.parts.clock
    count = Tally() if tally is None else tally
    hears = ProgressTracker(clock=clock) if tracker is None else tracker
    if hears.saturation is None:
        hears.saturation = partial(saturation_of, manager)
    path = source if isinstance(source, (str, os.PathLike)) else None
    journal = Journal(output, errors=errors, source=path, may_pass=may_pass, restart=restart, clock=clock)
    keep = _Keeping(journal, count, clock)
    workers = Workers(
        manager.get_client() if client is None else client,
        deliver=keep,
        tracker=hears,
        clock=clock,
        concurrency=concurrency,
        patience=patience,
        lasting=lambda: manager.closed,
    )
    count.start(clock.now())
    try:
        async with journal:
            hears.begin(None, journal.found.answers + journal.found.errors)
            async with _counted(path, hears, journal), aclosing(_portions(source)) as portions:
                async with aclosing(keep.fresh(portions)) as fresh:  # ends before what it reads from
                    await workers.run(fresh)
        if ordered and path is not None:
            await sort_output(output, path)
    finally:
        count.tick(clock.now())
        hears.finish()
    return count.summary()


class _Keeping:
    """Knows which rows are new, and writes what became of each."""

    def __init__(self, journal: Journal, tally: Tally, clock: Clock) -> None:
        self._journal = journal
        self._tally = tally
        self._clock = clock

    async def fresh(self, portions: Portions) -> Portions:
        """Yield the rows that are not finished; of a repeated id all but the first are bad rows."""
        async for portion in portions:
            yield [row for given in portion if (row := self._new(given)) is not None]

    def _new(self, row: Row | BadRow) -> Row | BadRow | None:
        self._tally.rows += 1
        if isinstance(row, Row):
            standing = self._journal.met(row.custom_id)
            if standing is Standing.NEW:
                return row
            if standing is Standing.REPEATED:
                return self._bad(_repeated(row))
        else:
            return self._bad(row)
        self._tally.skipped += 1
        return None

    def _bad(self, row: BadRow) -> BadRow | None:
        if self._journal.told(_number(row)):
            self._tally.skipped += 1
            return None
        return row

    async def __call__(self, row: Row | BadRow, wrapper: ResponseWrapper) -> None:
        """Write the row's line, and count the row."""
        journal, response = self._journal, wrapper.response
        try:
            if isinstance(row, BadRow):
                await journal.error(error_line(row))
            elif response is not None:
                await journal.answer(answer_line(row, response, created=int(self._clock.wall())))
            elif wrapper.error is not None:
                await journal.error(error_line(row, wrapper.error))
        except asyncio.CancelledError:  # the journal writes it all the same
            self._tally.finished(wrapper, kind_of(row, wrapper), self._clock.now())
            raise
        self._tally.finished(wrapper, kind_of(row, wrapper), self._clock.now())


def _repeated(row: Row) -> BadRow:
    said = f"line {row.line or row.order + 1} repeats the custom_id of a line before it; give each row its own"
    return BadRow(row.order, row.line or row.order + 1, row.custom_id, "duplicate_custom_id", said)


def _number(row: BadRow) -> int:
    return row.order + 1 if row.line is None else row.line


def _portions(source: Source | Portions) -> Portions:
    return source if isinstance(source, AsyncGenerator) else read_rows(source)


@asynccontextmanager
async def _counted(
    path: str | os.PathLike[str] | None, tracker: ProgressTracker, journal: Journal
) -> AsyncGenerator[None]:
    """Count the rows of a file beside what is done, and tell the tracker."""

    async def count(path: str | os.PathLike[str]) -> None:
        with suppress(LLMConfigurationError):  # who reads the rows meets it, too
            total = await count_rows(path)
            tracker.begin(total, journal.found.answers + journal.found.errors)

    if path is None:
        yield
        return
    counting = asyncio.create_task(count(path))
    try:
        yield
    finally:
        counting.cancel()
        await asyncio.wait([counting])
