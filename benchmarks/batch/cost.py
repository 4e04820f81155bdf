"""CPU time of a row of `run_file`, of the same call by a client, and of a bare one, in turns on the same machine."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.calls.shape import KEY, MODELS, Shape
from benchmarks.calls.ways.bare import bare
from benchmarks.programs import first_line, program
from llm import LLMManager
from llm.batch import run_file
from llm.batch.dialect import request_of
from llm.batch.jsonl import read_rows
from llm.batch.values import Row

from .memory import write_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm import LLMRequest

AT_ONCE: Final = 32
_SHAPE: Final = Shape("openai", streamed=False, at_once=AT_ONCE)


@dataclass(slots=True)
class Costs:
    """Microseconds of CPU time, a figure a round.

    Attributes:
        bare: Of a call by aiohttp and orjson.
        call: Of a call by a client of ours, its request made beforehand.
        row: Of a row of a file.
    """

    bare: list[float] = field(default_factory=list[float])
    call: list[float] = field(default_factory=list[float])
    row: list[float] = field(default_factory=list[float])

    @property
    def beside(self) -> float:
        """What a row takes beside its call, in multiples of a bare call: the median over the rounds."""
        rounds = zip(self.bare, self.call, self.row, strict=True)
        return median((row - call) / alone for alone, call, row in rounds)


def measure(rows: int, rounds: int) -> Costs:
    """Return what so many rows cost in each round; a first round, which opens connections, is thrown away."""
    found = Costs()
    with TemporaryDirectory() as folder, program(sys.executable, "benchmarks.calls.server") as process:
        source = Path(folder) / "in.jsonl"
        write_rows(source, rows, MODELS["openai"])
        asyncio.run(_rounds(found, f"http://127.0.0.1:{first_line(process)}", source, rows, rounds))
    return found


async def _rounds(found: Costs, root: str, source: Path, rows: int, rounds: int) -> None:
    section = {"base_url": root, "api_keys": [KEY], "models": [MODELS["openai"]]}
    requests = [request_of(row) async for portion in read_rows(source) for row in portion if isinstance(row, Row)]
    async with (
        LLMManager.open({"providers": {"openai": section}}) as manager,
        bare(root, _SHAPE) as call,
    ):
        client = manager.get_client()

        async def ask(request: LLMRequest) -> object:
            return await client.request(request)

        async def ask_bare(_: LLMRequest) -> object:
            return await call()

        for number in range(rounds + 1):
            alone = await _each(ask_bare, requests)
            ours = await _each(ask, requests)
            gc.collect()
            start = time.process_time()
            summary = await run_file(manager, source, source.with_name(f"out{number}.jsonl"), concurrency=AT_ONCE)
            row = (time.process_time() - start) / rows * 1e6
            if summary.answered != rows:
                raise RuntimeError(f"{summary.answered} of {rows} rows were answered: {dict(summary.errors)}")
            if number:
                found.bare.append(alone)
                found.call.append(ours)
                found.row.append(row)


async def _each(ask: Callable[[LLMRequest], Awaitable[object]], requests: Sequence[LLMRequest]) -> float:
    left = iter(requests)

    async def work() -> None:
        for request in left:
            await ask(request)

    gc.collect()
    start = time.process_time()
    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(work())
    return (time.process_time() - start) / len(requests) * 1e6
