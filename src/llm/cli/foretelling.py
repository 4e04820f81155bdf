"""`manifold batch --dry-run`: what a batch would take, told before a cent is spent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, cast

from llm.batch.dialect import may_pass
from llm.batch.finished import record_of
from llm.batch.forecast import forecast
from llm.batch.index import IdIndex
from llm.batch.journal import errors_beside
from llm.batch.lines import read_line
from llm.batch.remote.forecast import forecast_remote
from llm.batch.remote.ledger import left_beside
from llm.batch.values import Row
from llm.core.manager import LLMManager
from llm.utils.clock import SystemClock

from .units import count_of, dollars_of, span_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from llm.batch.foretold import Forecast
    from llm.batch.remote.values import Engine

    from .job import Job
    from .shell import Shell


async def foretell(job: Job) -> int:
    """Tell what a batch would take; returns the exit status.

    Raises:
        LLMException: The input, the configuration or an earlier run's output cannot be read.
    """
    done = IdIndex()
    rows, _ = job.reader()
    parts: int | None = None
    with _looking(job.shell):
        if job.output is not None and not job.restart:
            output = Path(job.output)
            errors = errors_beside(output) if job.errors is None else Path(job.errors)
            await asyncio.to_thread(_read_back, done, output, errors)
            await asyncio.to_thread(_read_held, done, output)
        async with LLMManager.open(job.shell.config) as manager, aclosing(rows(job.input)) as portions:
            start = process_time()  # the run will take as long to begin
            if job.engine in {"local", "ray"}:
                told = await forecast(
                    manager,
                    portions,
                    concurrency=job.concurrency * (job.workers or 1),
                    provider=job.provider,
                    default_model=job.model,
                    finished=done.__contains__,
                    clock=SystemClock(),
                )
            else:
                told, parts = await forecast_remote(
                    manager,
                    portions,
                    engine=cast("Engine", job.engine),
                    provider=job.provider,
                    default_model=job.model,
                    finished=done.__contains__,
                )
    if parts is None and told.rows > told.invalid_rows:
        told = replace(told, seconds=told.seconds + start, seconds_at_most=told.seconds_at_most + start)
    if job.shell.json:
        job.shell.put_json(told.as_json() if parts is None else {**told.as_json(), "parts": parts})
    else:
        _tell(job.shell, told)
        if parts:
            noun = "1 batch" if parts == 1 else f"{parts:,} batches"
            job.shell.remark(
                f"It goes over in {noun}, at the price of batches; the vendor takes up to 24 hours for each."
            )
    return 0


def _looking(shell: Shell) -> AbstractContextManager[object]:
    """Show on a terminal that something goes on; a large file takes a while to be read."""
    if not shell.drawing:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("reading the rows")


def _read_back(done: IdIndex, output: Path, errors: Path) -> None:
    """Note what earlier runs have finished; nothing is changed, and nothing locked."""
    for path in (output, errors):
        with suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                record = record_of(line)
                if record is None:
                    continue
                if path is output or (isinstance(record[0], str) and not may_pass(record[1])):
                    done.add(record[0])


def _read_held(done: IdIndex, output: Path) -> None:
    """Note what earlier runs have submitted and not collected."""
    left = left_beside(output)
    if left is None:
        return
    for path in left.folder.glob("*[0-9].jsonl"):
        with path.open("rb") as file:
            for line in file:
                row = read_line(line, 0, 1)
                if isinstance(row, Row):
                    done.add(row.custom_id)


def _tell(shell: Shell, told: Forecast) -> None:
    if told.finished_rows:
        shell.remark(f"Done already: {count_of(told.finished_rows, 'row')}.")
    if told.models:
        _put_models(shell, told)
    for line in _beside(told):
        shell.remark(line)


def _put_models(shell: Shell, told: Forecast) -> None:
    sent = (told.rows - told.invalid_rows - told.cache_hits, told.input_tokens, told.output_tokens)
    shell.put_rows(
        ("model", "rows", "input", "output", "cost"),
        [
            (name, f"{model.rows:,}", f"{model.input_tokens:,}", f"{model.output_tokens:,}", dollars_of(model.cost))
            for name, model in told.models.items()
        ],
        numbers={"rows", "input", "output", "cost"},
        total=("to send", *[f"{number:,}" for number in sent], dollars_of(told.cost)),
    )


def _beside(told: Forecast) -> Iterator[str]:
    if not told.rows:
        yield "There is nothing left to do." if told.finished_rows else "There are no rows."
    if told.invalid_rows:
        yield f"{count_of(told.invalid_rows, 'row')} cannot be sent: {_counted(told.invalid)}."
    if told.cache_hits:
        saved = told.saved
        tokens = saved.input_tokens + saved.output_tokens
        rows, saving = count_of(told.cache_hits, "row"), f"{count_of(tokens, 'token')} and {dollars_of(saved.cost)}"
        yield f"The cache answers {rows} and saves {saving}."
    if told.seconds:
        yield f"It takes {span_of(told.seconds)} at best."
    yield from told.notes()


def _counted(numbers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in numbers.items())
