"""A folder with an input, a server that speaks a vendor's batch API, and runs between them, in milliseconds."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.batch import Tally, cancel_remote, run_remote
from llm.batch.remote.values import Pace
from llm.progress import ProgressTracker
from llm.testing import BatchScript, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from llm.batch import Summary
    from llm.batch.remote.values import Engine
    from llm.core.protocols import Transport
    from llm.testing import Fault

PACE = Pace(first=0.002, most=0.01, settle=0.05, queue=0.005, queue_most=0.02, control=5.0, quiet=5.0, patience=5.0)
CHAT = "/v1/chat/completions"


class Told(ProgressTracker):
    """Remembers the words of why nothing goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def waiting(self, why: str | None) -> None:
        super().waiting(why)
        if why is not None:
            self.words.append(why)


@dataclass
class Bench:
    """One vendor's."""

    dialect: Any
    folder: Path
    pace: Pace = PACE
    keys: list[str] = field(default_factory=lambda: ["k1", "k2"])
    script: BatchScript = field(default_factory=BatchScript)
    up: MockUpstream = field(init=False)
    tally: Tally = field(default_factory=Tally)
    tracker: Told = field(default_factory=Told)

    @property
    def engine(self) -> Engine:
        return "openai-batch" if self.dialect == "openai" else "anthropic-batch"

    @property
    def model(self) -> str:
        return "gpt-4o-mini" if self.dialect == "openai" else "claude-sonnet-4-5"

    @property
    def submit(self) -> str:
        """The route of a submission."""
        return "POST */batches"

    @property
    def output(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def notes(self) -> Path:
        return self.folder / "out.batches"

    def config(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - a configuration
        section = {"base_url": self.up.base_url, "api_keys": self.keys, "models": [self.model] * len(self.keys), **more}
        return {"providers": {self.dialect: section}}

    def write(self, names: Iterable[str], **body: Any) -> None:  # noqa: ANN401 - JSON
        lines = [self.row(name, **body) for name in names]
        (self.folder / "in.jsonl").write_text("".join(lines), encoding="utf-8")

    def row(self, name: str, url: str = CHAT, **body: Any) -> str:  # noqa: ANN401 - JSON
        asked = {"messages": [{"role": "user", "content": f"text of {name}"}], "max_tokens": 99, **body}
        return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": asked}) + "\n"

    @asynccontextmanager
    async def serving(self, *faults: Fault, **options: Any) -> AsyncGenerator[MockUpstream]:  # noqa: ANN401 - as above
        async with MockUpstream(self.dialect, faults=faults, batches=self.script, **options) as up:
            self.up = up
            yield up

    async def run(self, *, transport: Transport | None = None, **options: Any) -> Summary:  # noqa: ANN401 - as above
        self.tally, self.tracker = Tally(), Told()
        async with LLMManager.open(self.config(), transport=transport) as manager:
            given: dict[str, Any] = {"engine": self.engine, "pace": self.pace, "tally": self.tally, **options}
            source = self.folder / "in.jsonl"
            return await run_remote(manager, source, self.output, tracker=self.tracker, **given)

    async def cancel(self) -> Summary:
        async with LLMManager.open(self.config()) as manager:
            return await cancel_remote(manager, self.output, engine=self.engine, pace=self.pace)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def texts(self) -> dict[str, str]:
        """Return the answer of each row; no row may be there twice."""
        lines = self.lines("out.jsonl")
        told = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
        assert len(told) == len(lines)
        return told

    def failures(self) -> dict[str, str | int]:
        """Return the code or the status of each row in the errors file."""
        lines = self.lines("out.errors.jsonl")
        told = {line["custom_id"]: _why(line) for line in lines}
        assert len(told) == len(lines)
        return told

    def submitted(self) -> Counter[str]:
        """Return how often each row was submitted, by its text."""
        bodies = [row.body for batch in self.up.batches for row in batch.rows]
        return Counter(body["messages"][0]["content"].removeprefix("text of ") for body in bodies)


def _why(line: dict[str, Any]) -> str | int:
    why: str | int = line["response"]["status_code"] if line["error"] is None else line["error"]["code"]
    return why


@pytest.fixture(params=["openai", "anthropic"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each vendor in turn, with an input of six rows."""
    bench = Bench(request.param, tmp_path)
    bench.write([f"r {number}" for number in range(6)])
    return bench


@pytest.fixture
def openai(tmp_path: Path) -> Bench:
    """OpenAI."""
    bench = Bench("openai", tmp_path)
    bench.write([f"r {number}" for number in range(6)])
    return bench


@pytest.fixture
def anthropic(tmp_path: Path) -> Bench:
    """Anthropic."""
    bench = Bench("anthropic", tmp_path)
    bench.write([f"r {number}" for number in range(6)])
    return bench
