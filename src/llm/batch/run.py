"""A file of requests into a file of answers: what was finished before is passed over, whatever ended the last run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError
from llm.progress import ProgressTracker

from .dialect import answer_line, error_line, may_pass
from .engine import Workers, kind_of
from .journal import Journal, Standing, errors_beside
from .jsonl import count_rows, read_rows
from .ordering import sort_output
from .saturation import saturation_of
from .source import Source, path_of
from .summary import Summary, Tally
from .trouble import PATIENCE
from .values import BadRow, Row

if TYPE_CHECKING:
    import os

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager
    from llm.core.types import EmbeddingResponse, LLMResponse
    from llm.utils.clock import Clock

    from .values import ResponseWrapper

Portions: TypeAlias = AsyncGenerator[Sequence[Row | BadRow], None]
Rows: TypeAlias = Callable[[Source], Portions]
"""Reads a source's rows in portions; closes it when it is left."""
Count: TypeAlias = Callable[[Source], Awaitable[int]]
"""Counts a source's rows."""

CONCURRENCY: Final = 64
"""Rows in flight, where nobody says how many."""


async def run_file(  # noqa: PLR0913 - all that a run can be told
    manager: LLMManager,
    source: Source,
    output: str | os.PathLike[str],
    *,
    errors: str | os.PathLike[str] | None = None,
    rows: Rows = read_rows,
    count: Count = count_rows,
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
    the rest, and again for rows whose failure may have passed, such as a server's, or that were never sent, as the
    input or the configuration may be right by now. A provider that cannot serve anybody
    is no failure of a row: the row is asked again after a pause, and after `patience` seconds without one answer, or at
    once where no key is left, the run stops.

    Args:
        manager: Whose limits, cache and keys the calls go through.
        source: The input, by path or open for bytes.
        output: The file of answers, in order of completion.
        errors: The file of errors; by default beside the output, `x.errors.jsonl` for `x.jsonl`.
        rows: Reads the input; JSON Lines by default. `partial(read_table, prompt=…)` reads CSV and Parquet.
        count: Counts its rows, beside the run; `count_records` for a table.
        client: Whose provider, model, user and priority the calls have; None: the manager's default one.
        concurrency: Rows in flight at once, at most.
        patience: Seconds without one answer after which a provider in trouble is given up.
        restart: Answer every row anew; what the files hold is kept beside them.
        ordered: Sort the output into the order of the input, once all rows are finished; the input must be a path then.
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
    counts = Tally() if tally is None else tally
    hears = ProgressTracker(clock=clock) if tracker is None else tracker
    if hears.saturation is None:
        hears.saturation = partial(saturation_of, manager)
    path = await asyncio.to_thread(path_of, source)
    if ordered and path is None:
        raise LLMInvalidRequestError("ordered: the input is read twice for that; name a file, or leave it out")
    journal = Journal(output, errors=errors, source=path, may_pass=may_pass, restart=restart, clock=clock)
    keep = _Keeping(journal, counts, clock)
    workers = Workers(
        manager.get_client() if client is None else client,
        deliver=keep,
        tracker=hears,
        clock=clock,
        concurrency=concurrency,
        patience=patience,
        lasting=lambda: manager.closed,
    )
    counts.start(clock.now())
    try:
        async with aclosing(rows(source)) as portions:
            first = await anext(portions, None)  # for an input that is none nothing is made, and nothing put aside
            async with journal:
                finished = journal.found.answers + journal.found.errors
                hears.begin(None, finished)
                async with (
                    beside(
                        None if path is None else count(path), lambda total: hears.begin(total, min(finished, total))
                    ),
                    aclosing(keep.fresh(first or (), portions)) as fresh,  # ends before what it reads from
                ):
                    await workers.run(fresh)
                counts.unmet = journal.unmet
                hears.begin(counts.rows, counts.skipped)  # the files may hold rows that this input has not
        if ordered:
            async with aclosing(rows(source)) as portions:
                await sort_output(output, errors_beside(output) if errors is None else errors, portions)
    finally:
        counts.tick(clock.now())
        hears.finish()
    return counts.summary()


class _Keeping:
    """Knows which rows are new, and writes what became of each."""

    def __init__(self, journal: Journal, tally: Tally, clock: Clock) -> None:
        self._journal = journal
        self._tally = tally
        self._clock = clock

    async def fresh(self, first: Sequence[Row | BadRow], others: Portions) -> Portions:
        """Yield the rows that are not finished; of a repeated id all but the first are bad rows."""
        yield self._unfinished(first)
        async for portion in others:
            yield self._unfinished(portion)

    def _unfinished(self, portion: Sequence[Row | BadRow]) -> Sequence[Row | BadRow]:
        return [row for given in portion if (row := self._new(given)) is not None]

    def _new(self, row: Row | BadRow) -> Row | BadRow | None:
        self._tally.rows += 1
        if isinstance(row, Row):
            standing = self._journal.met(row.custom_id)
            if standing is Standing.NEW:
                return row
            if standing is Standing.REPEATED:
                return repeated(row)
        else:
            return row
        self._tally.skipped += 1
        return None

    async def __call__(self, row: Row | BadRow, wrapper: ResponseWrapper) -> None:
        """Write the row's line, and count the row."""
        journal, error = self._journal, wrapper.error
        try:
            if isinstance(row, BadRow):
                await journal.error(error_line(row))
            elif error is not None:
                await journal.error(error_line(row, error))
            else:
                response = cast("LLMResponse | EmbeddingResponse", wrapper.response)
                await journal.answer(answer_line(row, response, created=int(self._clock.wall())))
        except asyncio.CancelledError:  # the journal writes it all the same, as long as it can
            if not journal.failed:
                self._tally.finished(wrapper, kind_of(row, wrapper), self._clock.now())
            raise
        self._tally.finished(wrapper, kind_of(row, wrapper), self._clock.now())


def repeated(row: Row) -> BadRow:
    """Return the bad row that a row is whose id was there before."""
    said = f"line {row.line or row.order + 1} repeats the custom_id of a line before it; give each row its own"
    return BadRow(row.order, row.line or row.order + 1, row.custom_id, "duplicate_custom_id", said)


@asynccontextmanager
async def beside(counting: Awaitable[int] | None, told: Callable[[int], None]) -> AsyncGenerator[None]:
    """Count beside what is done in the block, and tell; None counts nothing."""
    if counting is None:
        yield
        return

    async def count() -> None:
        with suppress(LLMConfigurationError):  # who reads the rows meets it, too
            told(await counting)

    task = asyncio.create_task(count())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
