"""A cluster that is this process: its workers are the real ones, and die when a test says so."""

# ruff: noqa: ANN401 - configurations as they come

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from llm import register_provider
from llm.batch.ray.answering import Answering
from llm.batch.ray.values import Duty, News, Team, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
    from pathlib import Path

    from llm.batch.values import Row
    from llm.testing import FakeProvider

_T = TypeVar("_T")
_numbers = count()


class Inside:
    """A worker in this process."""

    def __init__(self, duty: Duty, *, comes: bool) -> None:
        self._duty = duty
        self._comes = comes
        self._lost = asyncio.Event()
        self._why = "the process was killed"
        self.answering = Answering()
        self.rows: list[str] = []
        self.ending: asyncio.Task[News] | None = None

    @property
    def dismissed(self) -> bool:
        return self._lost.is_set()

    async def begin(self) -> None:
        if not self._comes:
            await self._alive(asyncio.Event().wait())
        await self._alive(self.answering.begin(*self._duty.parts()))

    async def put(self, rows: Sequence[Row]) -> None:
        self.rows.extend(row.custom_id for row in rows)
        await self._alive(self.answering.put(rows))

    async def news(self) -> News:
        return await self._alive(self.answering.news())

    async def close(self) -> News:
        if not self._comes:
            await self._alive(asyncio.Event().wait())
        return await self._alive(self.answering.close())

    def dismiss(self) -> None:
        if not self._lost.is_set():
            self.ending = asyncio.create_task(self.answering.close())  # as its process ends
        self._lost.set()

    async def _alive(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self.dismissed:
            work.close()
            raise WorkerLostError(self._why)
        doing, lost = asyncio.create_task(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.is_set():
                raise WorkerLostError(self._why)
            return doing.result()
        finally:
            doing.cancel()
            lost.cancel()


class Rehearsal:
    """A cluster of two processors.

    Attributes:
        hired: The workers, dead ones too.
        joined: How often it was joined.
        stillborn: Whether workers, but for the first `healthy`, die as they begin.
        absent: How many of the first workers never come.
    """

    def __init__(self) -> None:
        self.hired: list[Inside] = []
        self.joined = 0
        self.machines = 1
        self.stillborn = False
        self.healthy = 0
        self.absent = 0

    @asynccontextmanager
    async def team(self, workers: int | None) -> AsyncGenerator[Team]:
        self.joined += 1
        try:
            yield Team("10.0.0.1:6379" if self.machines > 1 else None, workers or 2, self.machines, self.hire)
        finally:
            for worker in self.hired:
                if worker.ending is not None:
                    await worker.ending

    def hire(self, duty: Duty) -> Inside:
        worker = Inside(duty, comes=len(self.hired) >= self.absent)
        self.hired.append(worker)
        if self.stillborn and len(self.hired) > self.healthy:
            worker.dismiss()
        return worker

    def kill_who_has(self, name: str) -> None:
        """Kill the worker that was given a row last."""
        [*_, worker] = [worker for worker in self.hired if name in worker.rows]
        worker.dismiss()


class Bench:
    """A folder, a provider that is a double, and a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = Rehearsal()

    def configure(self, provider: FakeProvider, **sections: Any) -> dict[str, Any]:
        kind = f"ray-double-{next(_numbers)}"
        register_provider(kind, lambda _: provider)
        section = {"type": kind, "api_keys": ["sk-a-long-secret-key"], "models": ["m"]}
        return {"providers": {"fake": section}, "retry": {"max_attempts": 1}, **sections}

    def write(self, *texts: str) -> Path:
        rows = [text if text[:1] == "{" else self.row(text) for text in texts]
        path = self.folder / "in.jsonl"
        path.write_text("".join(f"{row}\n" for row in rows))
        return path

    def row(self, name: str, text: str | None = None) -> str:
        body = {"messages": [{"role": "user", "content": text or name}]}
        return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})

    def read(self, name: str = "out.jsonl") -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ids(self, name: str = "out.jsonl") -> list[str]:
        return [line["custom_id"] for line in self.read(name)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def duty_of() -> Callable[..., Duty]:
    """Makes a duty of a configuration."""
    from llm.core.config import load_config  # noqa: PLC0415 - beside what it is for

    def made(config: dict[str, Any], **options: Any) -> Duty:
        return Duty(load_config(config), pause=0.0, **options)

    return made
