"""A batch run by `manifold batch` on a cluster of Ray: begun, watched, ended in good order, and told of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from llm.batch.journal import errors_beside
from llm.batch.ray.cluster import RayCluster
from llm.batch.ray.run import run_ray
from llm.batch.ray.seen import Seen
from llm.batch.summary import Tally

from .counting import Counting
from .errors import ExitStatus
from .running import Ended, Hears, again, lines_in, to_its_end
from .signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.batch.ray.values import Place

    from .job import Job


async def run(job: Job, cluster: Callable[[str | None], Place] = RayCluster) -> int:
    """Run a batch, or go on with it, and tell what came of it; returns the exit status.

    Args:
        job: What to do.
        cluster: Knows the cluster at an address; None: one that is started.

    Raises:
        LLMException: It could not begin.
        OSError: It could not begin.
    """
    output = Path(job.output or "")
    errors = errors_beside(output) if job.errors is None else Path(job.errors)
    hears, tally, place = Hears(job.shell), Tally(), cluster(job.ray_address)
    with Signals() as signals:
        status, why = await to_its_end(_rows(job, place, errors, hears, tally), tally, signals)
        unanswered = await asyncio.to_thread(lines_in, errors)
        Ended(tally.summary(), output, errors, unanswered, why, again(job)).tell(job.shell)
    return status or (ExitStatus.FAILED if unanswered else ExitStatus.DONE)


async def _rows(job: Job, place: Place, errors: Path, hears: Hears, tally: Tally) -> None:
    seen = Seen()
    rows, count = job.reader()
    if job.goes_on:
        hears.rows = await count(job.input)
    async with Counting(job.shell, "batch", seen.status), hears:
        await run_ray(
            place,
            job.shell.config,
            job.input,
            job.output or "",
            workers=job.workers,
            say=job.shell.remark,
            errors=errors,
            rows=rows,
            count=count,
            provider=job.provider,
            model=job.model,
            concurrency=job.concurrency,
            restart=job.restart,
            ordered=job.ordered,
            tracker=hears,
            tally=tally,
            seen=seen,
        )
