"""`manifold batch --dry-run`: what a batch would take, told before a cent is spent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llm.batch.dialect import may_pass
from llm.batch.finished import record_of
from llm.batch.forecast import forecast
from llm.batch.index import IdIndex
from llm.batch.journal import errors_beside
from llm.core.manager import LLMManager

from .units import dollars_of, span_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from llm.batch.foretold import Forecast

    from .job import Job
    from .shell import Shell


async def foretell(job: Job) -> int:
    """Tell what a batch would take; returns the exit status.

    Raises:
        LLMException: The input, the configuration or an earlier run's output cannot be read.
    """
    done = IdIndex()
    with _looking(job.shell):
        if job.output is not None and not job.restart:
            output = Path(job.output)
            errors = errors_beside(output) if job.errors is None else Path(job.errors)
            await asyncio.to_thread(_read_back, done, output, errors)
        async with LLMManager.open(job.shell.config) as manager, aclosing(job.portions()) as portions:
            told = await forecast(
                manager,
                portions,
                concurrency=job.concurrency,
                client=manager.get_client(job.provider, model=job.model),
                finished=done.__contains__,
            )
    if job.shell.json:
        job.shell.put_json(told.as_json())
    else:
        _tell(job.shell, told)
    return 0
