"""A file of requests into a file of answers: what was finished before is passed over, whatever ended the last run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from llm.progress import ProgressTracker

from .engine import Workers
from .files import take_file
from .jsonl import count_rows, read_rows
from .saturation import saturation_of
from .summary import Summary, Tally
from .trouble import PATIENCE

if TYPE_CHECKING:
    import os

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager

    from .files import Count, Keeping, Rows
    from .source import Source

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

    def crew(keep: Keeping) -> Workers:
        return Workers(
            manager.get_client() if client is None else client,
            deliver=keep,
            tracker=hears,
            clock=clock,
            concurrency=concurrency,
            patience=patience,
            lasting=lambda: manager.closed,
            after_send=lambda: manager.config.retry.after_send,
        )

    await take_file(
        source,
        output,
        crew,
        tally=counts,
        tracker=hears,
        clock=clock,
        errors=errors,
        rows=rows,
        count=count,
        restart=restart,
        ordered=ordered,
    )
    return counts.summary()
