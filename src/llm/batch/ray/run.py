"""A file of requests through a cluster of Ray into a file of answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.batch.engine import check_range
from llm.batch.files import take_file
from llm.batch.jsonl import count_rows, read_rows
from llm.batch.run import CONCURRENCY
from llm.batch.summary import Summary, Tally
from llm.batch.trouble import PATIENCE
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.sealed import SealedSource
from llm.progress import ProgressTracker
from llm.utils.clock import SystemClock

from .crew import Hiring, RemoteCrew
from .seen import Seen
from .shares import check_reach, shared
from .values import Duty

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable

    from llm.batch.files import Count, Keeping, Rows
    from llm.batch.source import Source
    from llm.core.sealed import ConfigSource

    from .values import Place, Team

_PAUSE: Final = 0.02  # seconds
_PAUSE_EACH: Final = 0.0005
"""Seconds more for each worker, so that many do not tell more often than one process can hear."""


async def run_ray(  # noqa: PLR0913 - all that a run can be told
    place: Place,
    config: ConfigSource,
    source: Source,
    output: str | os.PathLike[str],
    *,
    workers: int | None = None,
    say: Callable[[str], object] = lambda _: None,
    errors: str | os.PathLike[str] | None = None,
    rows: Rows = read_rows,
    count: Count = count_rows,
    provider: str | None = None,
    model: str | None = None,
    concurrency: int = CONCURRENCY,
    patience: float = PATIENCE,
    restart: bool = False,
    ordered: bool = False,
    tracker: ProgressTracker | None = None,
    tally: Tally | None = None,
    seen: Seen | None = None,
) -> Summary:
    """Answer every row of a file on many machines; run again, it goes on where it ended.

    The files are those of `run_file`, and so is what a rerun does with them: this process reads and writes, and nobody
    else needs to see the files. A worker that is lost costs the rows that it had a second try; a row whose second try
    ends so, too, has its line in the errors file, and is asked again by the next run.

    Args:
        place: The cluster, as a `RayCluster`; joined or started once there is a row to answer.
        config: Every worker's, as for `LLMManager.open`. It is read here, variables and files of secrets included.
        source: The input, by path or open for bytes.
        output: The file of answers, in order of completion.
        workers: How many; None: one for each processor of the cluster.
        say: Hears, in a line each, where the workers are and what they do not share.
        errors: The file of errors; by default beside the output.
        rows: Reads the input; JSON Lines by default.
        count: Counts its rows, beside the run.
        provider: Who is asked; None: the configured one.
        model: Model of rows that name none.
        concurrency: Rows in flight at once, at most, of each worker.
        patience: Seconds without one answer after which a worker gives up a provider in trouble, and the run with it.
        restart: Answer every row anew; what the files hold is kept beside them.
        ordered: Sort the output into the order of the input at the end; the input must be a path then.
        tracker: Hears how it goes.
        tally: Counts; for who wants to know what was done by a run that was cancelled or stopped.
        seen: Hears what the workers' calls came to.

    Returns:
        What the run came to.

    Raises:
        LLMConfigurationError: The input, a file or the configuration cannot be used.
        LLMInvalidRequestError: An argument is out of range.
        LLMConnectionError: There is no such cluster, or no worker lives in it.
        LLMException: The provider was given up, by what it failed with last.
        OSError: A line cannot be written.
    """
    check_range(concurrency, patience)
    if workers is not None and workers < 1:
        raise LLMInvalidRequestError(f"workers is {workers}; expected how many, 1 or more")
    loaded = await asyncio.to_thread(SealedSource(config).load)
    del config
    clock = SystemClock()
    counts = Tally() if tally is None else tally
    hears = ProgressTracker(clock=clock) if tracker is None else tracker
    views = Seen() if seen is None else seen
    if hears.saturation is None:
        hears.saturation = views.saturation

    @asynccontextmanager
    async def hiring() -> AsyncGenerator[Hiring]:
        async with place.team(workers) as team:
            size = workers or max(1, team.processors)
            if team.machines > 1:
                check_reach(loaded)
            own, remarks = shared(loaded, size)
            for said in (where(team, size), *remarks):
                say(said)
            duty = Duty(own, provider, model, concurrency, patience, _PAUSE + size * _PAUSE_EACH)
            yield Hiring(partial(team.hire, duty), size, hand_of(concurrency))

    def crew(keep: Keeping) -> RemoteCrew:
        return RemoteCrew(hiring, keep.write, tracker=hears, seen=views, clock=clock, again=loaded.retry.after_send)

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


def hand_of(concurrency: int) -> int:
    """Return how many rows a worker has: those in flight, and as many more as may end until it is heard."""
    return concurrency + concurrency // 4 + 16


def where(team: Team, size: int) -> str:
    """Return the line that says where the workers are."""
    workers = "1 worker" if size == 1 else f"{size:,} workers"
    if team.address is None:
        return f"ray: started a cluster on this machine; {workers}"
    return f"ray: joined the cluster at {team.address}; {workers}"
