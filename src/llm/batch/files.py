"""A file of rows into two files of lines, whoever answers the rows: what was finished before is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError

from .dialect import may_pass
from .journal import Journal, Standing, errors_beside
from .jsonl import count_rows, read_rows
from .ordering import sort_output
from .outcome import outcome_of
from .source import Source, path_of
from .values import BadRow, Row

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from llm.progress import ProgressTracker
    from llm.utils.clock import Clock

    from .summary import Tally
    from .values import Outcome, ResponseWrapper

Portions: TypeAlias = AsyncGenerator[Sequence[Row | BadRow], None]
Rows: TypeAlias = Callable[[Source], Portions]
"""Reads a source's rows in portions; closes it when it is left."""
Count: TypeAlias = Callable[[Source], Awaitable[int]]
"""Counts a source's rows."""


class Crew(Protocol):
    """Takes rows to their end, and has each kept."""

    async def run(self, portions: AsyncIterator[Sequence[Row | BadRow]]) -> None:
        """Return once all have ended."""
        ...


async def take_file(  # noqa: PLR0913 - all that a run can be told
    source: Source,
    output: str | os.PathLike[str],
    crew: Callable[[Keeping], Crew],
    *,
    tally: Tally,
    tracker: ProgressTracker,
    clock: Clock,
    errors: str | os.PathLike[str] | None = None,
    rows: Rows = read_rows,
    count: Count = count_rows,
    restart: bool = False,
    ordered: bool = False,
) -> None:
    """Have a crew take every row of a file to its end; run again, it goes on where it ended.

    Args:
        source: The input, by path or open for bytes.
        output: The file of answers, in order of completion.
        crew: Returns who takes the rows, which is to hand each outcome to the `Keeping`.
        tally: Counts.
        tracker: Hears how it goes.
        clock: The time.
        errors: The file of errors; by default beside the output.
        rows: Reads the input.
        count: Counts its rows, beside the run.
        restart: Answer every row anew; what the files hold is kept beside them.
        ordered: Sort the output into the order of the input, once all rows are finished; the input must be a path then.

    Raises:
        LLMConfigurationError: The input or a file cannot be used.
        LLMInvalidRequestError: `ordered` of an input that can be read only once.
        OSError: A line cannot be written.
        Exception: What the crew raised.
    """
    path = await asyncio.to_thread(path_of, source)
    if ordered and path is None:
        raise LLMInvalidRequestError("ordered: the input is read twice for that; name a file, or leave it out")
    journal = Journal(output, errors=errors, source=path, may_pass=may_pass, restart=restart, clock=clock)
    keep = Keeping(journal, tally, clock)
    hired = crew(keep)
    tally.start(clock.now())
    try:
        async with aclosing(rows(source)) as portions:
            first = await anext(portions, None)  # for an input that is none nothing is made, and nothing put aside
            async with journal:
                finished = journal.found.answers + journal.found.errors
                tracker.begin(None, finished)
                async with (
                    beside(
                        None if path is None else count(path), lambda total: tracker.begin(total, min(finished, total))
                    ),
                    aclosing(keep.fresh(first or (), portions)) as fresh,  # ends before what it reads from
                ):
                    await hired.run(fresh)
                tally.unmet = journal.unmet
                tracker.begin(tally.rows, tally.skipped)  # the files may hold rows that this input has not
        if ordered:
            async with aclosing(rows(source)) as portions:
                await sort_output(output, errors_beside(output) if errors is None else errors, portions)
    finally:
        tally.tick(clock.now())
        tracker.finish()


class Keeping:
    """Knows which rows are new, and writes what became of each."""

    def __init__(self, journal: Journal, tally: Tally, clock: Clock) -> None:
        """Write into `journal`, and count in `tally`."""
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
        """Write the line of a row that has come to its end, and count the row."""
        await self.write(outcome_of(row, wrapper, created=int(self._clock.wall())))

    async def write(self, outcome: Outcome) -> None:
        """Write an outcome's line, and count its row."""
        journal = self._journal
        try:
            await (journal.answer(outcome.line) if outcome.kind is None else journal.error(outcome.line))
        except asyncio.CancelledError:  # the journal writes it all the same, as long as it can
            if not journal.failed:
                self._tally.ended(outcome, self._clock.now())
            raise
        self._tally.ended(outcome, self._clock.now())


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
