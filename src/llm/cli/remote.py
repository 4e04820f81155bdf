"""A batch run by `manifold batch` through a vendor's own batch API: submitted, watched, collected, or ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llm.batch.journal import errors_beside
from llm.batch.remote.ledger import left_beside
from llm.batch.remote.run import cancel_remote, run_remote
from llm.batch.summary import Tally
from llm.core.manager import LLMManager

from .errors import ExitStatus
from .running import Ended, Hears, lines_in, to_its_end
from .signals import Signals
from .units import count_of

if TYPE_CHECKING:
    from llm.batch.remote.values import Engine

    from .job import Job

_AGAIN = "run the same command again to go on"


async def run(job: Job) -> int:
    """Run a batch, go on with it, or end it, and tell what came of it; returns the exit status.

    Raises:
        LLMException: It could not begin.
        OSError: It could not begin.
    """
    output = Path(job.output or "")
    errors = errors_beside(output) if job.errors is None else Path(job.errors)
    hears, tally = Hears(job.shell), Tally()
    if job.cancel and left_beside(output) is None:
        job.shell.remark(f"nothing for {output} is at a vendor")
    async with LLMManager.open(job.shell.config) as manager:
        with Signals() as signals:
            status, why = await to_its_end(_rows(job, manager, errors, hears, tally), tally, signals)
            unanswered = await asyncio.to_thread(lines_in, errors)
            how = await asyncio.to_thread(_how, output)
            Ended(tally.summary(), output, errors, unanswered, why, how).tell(job.shell)
    return status or (ExitStatus.FAILED if unanswered else ExitStatus.DONE)


async def _rows(job: Job, manager: LLMManager, errors: Path, hears: Hears, tally: Tally) -> None:
    engine, output = cast("Engine", job.engine), job.output or ""
    rows, count = job.reader()
    if job.cancel:
        async with hears:
            await cancel_remote(manager, output, engine=engine, errors=errors, tracker=hears, tally=tally)
        return
    if job.goes_on:
        hears.rows = await count(job.input)
    async with hears:
        await run_remote(
            manager,
            job.input,
            output,
            engine=engine,
            errors=errors,
            rows=rows,
            count=count,
            provider=job.provider,
            model=job.model,
            restart=job.restart,
            ordered=job.ordered,
            tracker=hears,
            tally=tally,
        )


def _how(output: Path) -> str:
    """Return what to do after a run that was ended early."""
    left = left_beside(output)
    if left is None or not left.submitted:
        return _AGAIN
    batches = "1 batch goes" if left.batches == 1 else f"{left.batches:,} batches go"
    rows = count_of(left.submitted, "row")
    return f"and {batches} on at the vendor with {rows}: run the same command again to collect, or with --cancel to end"
