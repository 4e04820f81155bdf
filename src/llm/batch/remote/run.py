"""A file of requests through a vendor's own batch API into a file of answers, whatever ends the run in between."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

from llm.batch.dialect import error_line, may_pass
from llm.batch.engine import kind_of
from llm.batch.files import beside, repeated
from llm.batch.journal import Journal, Standing, errors_beside
from llm.batch.jsonl import count_rows, read_rows
from llm.batch.ordering import sort_output
from llm.batch.source import path_of
from llm.batch.summary import Summary, Tally
from llm.batch.values import BadRow, ResponseWrapper, Row
from llm.core.exceptions import LLMConfigurationError, LLMInvalidRequestError
from llm.progress import ProgressTracker

from .anthropic import AnthropicBatches
from .collect import Books, Ending
from .doors import Doors
from .intake import Intake, Reading
from .ledger import Ledger, Plan, left_beside
from .openai import OpenAIBatches
from .patience import Patience
from .prices import BatchPrices
from .spool import Spool
from .values import Engine, Pace
from .view import View
from .work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from llm.batch.files import Count, Portions, Rows
    from llm.batch.source import Source
    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager

    from .intake import Way
    from .spool import PartWriter
    from .vendor import BatchAPI

ENGINES: Final[Mapping[Engine, type[OpenAIBatches | AnthropicBatches]]] = {
    "openai-batch": OpenAIBatches,
    "anthropic-batch": AnthropicBatches,
}


async def run_remote(  # noqa: PLR0913 - all that a run can be told
    manager: LLMManager,
    source: Source,
    output: str | os.PathLike[str],
    *,
    engine: Engine,
    errors: str | os.PathLike[str] | None = None,
    rows: Rows = read_rows,
    count: Count = count_rows,
    provider: str | None = None,
    model: str | None = None,
    restart: bool = False,
    ordered: bool = False,
    tracker: ProgressTracker | None = None,
    tally: Tally | None = None,
    pace: Pace | None = None,
) -> Summary:
    """Answer every row of a file through a vendor's own batch API, at about half the price, within a day or so.

    The files are those of `run_file`, and so is what a rerun does with them. Beside the output a folder (`x.batches`
    for `x.jsonl`) notes what was submitted, until all of it is collected. A run that is cancelled or killed leaves its
    batches at the vendor; the next one collects them, and submits no row twice. Limits and cache are those of calls,
    and play no part.

    Args:
        manager: Whose keys.
        source: The input, by path or open for bytes.
        output: The file of answers, in order of completion.
        engine: Whose batch API: `openai-batch` or `anthropic-batch`.
        errors: The file of errors; by default beside the output.
        rows: Reads the input; JSON Lines by default.
        count: Counts its rows, beside the run.
        provider: Section of the configuration that rows go to which name none; None: the default one, or the first
            that is the engine's.
        model: Model of rows that name none.
        restart: Answer every row anew; what the files hold is kept beside them.
        ordered: Sort the output into the order of the input at the end; the input must be a path then.
        tracker: Hears how it goes.
        tally: Counts; for who wants to know what was done by a run that was cancelled or stopped.
        pace: How it takes its time.

    Returns:
        What the run came to.

    Raises:
        LLMConfigurationError: The input or a file cannot be used, no provider has such an API, or batches of an earlier
            run are in the way.
        LLMInvalidRequestError: `ordered` of an input that can be read only once.
        LLMException: The vendor was given up, or no key is left; what was submitted stays noted.
        OSError: A file cannot be written.
    """
    run = _Run(manager, output, engine, errors, provider, model, tracker, tally, pace or Pace(), cancel=False)
    path = await asyncio.to_thread(path_of, source)
    if ordered and path is None:
        raise LLMInvalidRequestError("ordered: the input is read twice for that; name a file, or leave it out")
    if restart:
        await asyncio.to_thread(run.refuse_what_is_left)
    async with run.timed():
        async with aclosing(rows(source)) as portions:
            first = await anext(portions, None)  # for an input that is none nothing is made, and nothing put aside
            async with run.opened(path, restart=restart) as work:
                counting = None if path is None else count(path)
                async with beside(counting, run.counted):
                    await run.plan(first or (), portions)
                await work.run()
        if ordered:
            async with aclosing(rows(source)) as portions:
                await sort_output(output, errors_beside(output) if errors is None else errors, portions)
    return run.tally.summary()


async def cancel_remote(  # noqa: PLR0913 - as above
    manager: LLMManager,
    output: str | os.PathLike[str],
    *,
    engine: Engine,
    errors: str | os.PathLike[str] | None = None,
    tracker: ProgressTracker | None = None,
    tally: Tally | None = None,
    pace: Pace | None = None,
) -> Summary:
    """End what an earlier run left at a vendor: collect what was answered, and write off the other rows.

    A row that was not answered has its line in the errors file, with the code `batch_cancelled`; the next run asks it
    again. Returns when the vendor has ended the batches, which may take minutes.

    Args:
        manager: Whose keys.
        output: The file of answers.
        engine: Whose batch API.
        errors: The file of errors; by default beside the output.
        tracker: Hears how it goes.
        tally: Counts.
        pace: How it takes its time.

    Raises:
        LLMConfigurationError: A file cannot be used, or the keys that the batches went over with are gone.
        LLMException: The vendor was given up.
        OSError: A file cannot be written.
    """
    run = _Run(manager, output, engine, errors, None, None, tracker, tally, pace or Pace(), cancel=True)
    if await asyncio.to_thread(left_beside, output) is not None:
        async with run.timed(), run.opened(None, restart=False) as work:
            run.tally.rows = sum(part.plan.rows for part in run.ledger.parts.values())
            run.tracker.begin(run.tally.rows)
            await work.run()
    return run.tally.summary()


class _Run:
    """One run, and what it is made of."""

    def __init__(  # noqa: PLR0913, PLR0917 - as above
        self,
        manager: LLMManager,
        output: str | os.PathLike[str],
        engine: Engine,
        errors: str | os.PathLike[str] | None,
        provider: str | None,
        model: str | None,
        tracker: ProgressTracker | None,
        tally: Tally | None,
        pace: Pace,
        *,
        cancel: bool,
    ) -> None:
        self._clock = manager.parts.clock
        self._output = output
        self._errors = errors_beside(output) if errors is None else errors
        self.tally = Tally() if tally is None else tally
        self.tracker = ProgressTracker(clock=self._clock) if tracker is None else tracker
        self._apis = apis_of(manager, engine, pace)
        self._reading = Reading(
            client_of(manager, self._apis, engine, provider, model), self._apis, ENGINES[engine].kind
        )
        self._manager = manager
        self._engine: Engine = engine
        self.ledger: Ledger
        self._pace = pace
        self._cancel = cancel
        self._finished = 0

    def refuse_what_is_left(self) -> None:
        """Refuse to begin anew where batches are still at the vendor.

        Raises:
            LLMConfigurationError: There are.
        """
        left = left_beside(self._output)
        if left is not None:
            raise LLMConfigurationError(
                f"{left.rows:,} rows of the last run are still in batches of {left.engine}; collect them first, "
                "without --restart, or give them up with --cancel"
            )

    @asynccontextmanager
    async def timed(self) -> AsyncGenerator[None]:
        """Count the time of what is done in the block."""
        self.tally.start(self._clock.now())
        try:
            yield
        finally:
            self.tally.tick(self._clock.now())
            self.tracker.finish()

    @asynccontextmanager
    async def opened(self, source: str | os.PathLike[str] | None, *, restart: bool) -> AsyncGenerator[Work]:
        """Open the files, and have what is to be done."""
        self._journal = Journal(
            self._output,
            errors=self._errors,
            source=source,
            may_pass=may_pass,
            restart=restart,
            clock=self._clock,
        )
        files = (os.fspath(self._output), os.fspath(self._errors))
        self._books = Books(
            self._journal, self.tally, self.tracker, self._clock, BatchPrices(self._manager.parts), files
        )
        self.ledger = await asyncio.to_thread(Ledger, self._output, self._engine)
        self._spool = Spool(self.ledger.folder)
        async with self._journal as journal:
            self._finished = journal.found.answers + journal.found.errors
            try:
                await asyncio.to_thread(self._go_on)
                self.tracker.begin(None, self._finished)
                yield self._work()
            finally:
                await asyncio.to_thread(self.ledger.close)

    def counted(self, total: int) -> None:
        """Know how many rows the input has."""
        self.tracker.begin(total, min(self._finished, total))

    async def plan(self, first: Sequence[Row | BadRow], others: Portions) -> None:
        """Put all rows that nobody has asked for yet into parts on the disk."""
        intake = Intake(self._reading, self._apis, self._begin)
        try:
            await self._take(intake, first)
            async for portion in others:
                await self._take(intake, portion)
            await self._planned(await intake.finish())
        finally:
            await asyncio.to_thread(intake.discard)
        self.tally.unmet = self._journal.unmet
        self.tracker.begin(self.tally.rows, self.tally.skipped)  # the files may hold rows that this input has not

    async def _take(self, intake: Intake, portion: Sequence[Row | BadRow]) -> None:
        fresh: list[Row] = []
        for given in portion:
            row = self._met(given)
            if isinstance(row, BadRow):
                wrapper = ResponseWrapper(row.custom_id or "", row.order)
                await self._journal.error(error_line(row))
                self.tally.finished(wrapper, row.code, self._clock.now())
                self.tracker.failed(row.code)
            elif row is not None:
                fresh.append(row)
        full, wrong = await intake.take(fresh)
        for row, error in wrong:
            wrapper = ResponseWrapper(row.custom_id, row.order, None, error)
            await self._books.end([(row, Ending(error_line(row, error), kind_of(row, wrapper), error))])
        await self._planned(full)

    def _met(self, row: Row | BadRow) -> Row | BadRow | None:
        self.tally.rows += 1
        if isinstance(row, BadRow):
            return row
        match self._journal.met(row.custom_id):
            case Standing.NEW:
                return row
            case Standing.REPEATED:
                return repeated(row)
            case Standing.FINISHED:
                self.tally.skipped += 1
            case Standing.HELD:
                pass
        return None

    async def _planned(self, plans: list[Plan]) -> None:
        if plans:
            await self.ledger.planned(plans)

    def _begin(self, way: Way) -> PartWriter:
        number = self.ledger.number()
        mark = self.ledger.mark(number)
        return self._spool.begin(self._apis[way.provider], mark, Plan(number, *way, rows=0))

    def _go_on(self) -> None:
        """Know again what earlier runs submitted."""
        self.ledger.open()
        self._spool.keep(set(self.ledger.parts))
        for number in self.ledger.parts:
            with self._spool.rows(number) as rows:
                for row in rows:
                    self._journal.hold(row.custom_id)

    def _work(self) -> Work:
        pools = {name: chain.pool for name, chain in self._manager.parts.chains.items() if name in self._apis}
        return Work(
            apis=self._apis,
            doors={name: Doors(name, pool, self._clock) for name, pool in pools.items()},
            ledger=self.ledger,
            spool=self._spool,
            books=self._books,
            patience=Patience(self._pace, self._clock, self.tracker),
            view=View(self.tracker),
            clock=self._clock,
            pace=self._pace,
            cancel=self._cancel,
        )


def apis_of(manager: LLMManager, engine: Engine, pace: Pace) -> dict[str, BatchAPI]:
    """Return the batch API of each provider that has this one.

    Raises:
        LLMConfigurationError: None has, or there is no such engine.
    """
    make = ENGINES.get(engine)
    if make is None:
        raise LLMConfigurationError(f"there is no engine {engine!r}; expected one of {', '.join(ENGINES)}")
    sections = manager.parts.config.providers
    able = {name: section for name, section in sections.items() if section.type == make.kind}
    if not able:
        raise LLMConfigurationError(f"--engine {engine} asks providers of type {make.kind}, and none is configured")
    direct = {name: section for name, section in able.items() if section.transport == "direct"}
    if not direct:
        raise LLMConfigurationError(
            f"--engine {engine} goes to the vendor directly, and {', '.join(able)} goes through an SDK; leave "
            "`transport: sdk` out of a section of its own"
        )
    return {name: make(name, section.address, pace) for name, section in direct.items()}


def client_of(
    manager: LLMManager, apis: Mapping[str, BatchAPI], engine: Engine, provider: str | None, model: str | None
) -> LLMClient:
    """Return the client whose provider rows have that name none.

    Raises:
        LLMConfigurationError: The provider is none of the engine's.
    """
    chosen = provider or manager.parts.default_provider
    if chosen not in apis:
        if provider is not None:
            raise LLMConfigurationError(
                f"provider {provider!r} is none that --engine {engine} can ask; expected one of {', '.join(apis)}"
            )
        chosen = next(iter(apis))
    return manager.get_client(chosen, model=model)
