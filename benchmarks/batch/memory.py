"""Peak memory of a run over so many rows, each run in a process of its own, by a provider inside it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.programs import first_line, program
from llm import HealthStatus, LLMManager, LLMRequest, LLMResponse, TokenUsage, register_provider
from llm.batch import run_file

if TYPE_CHECKING:
    from llm import LLMStream

MODEL: Final = "benchmark"
CONCURRENCY: Final = 64
_ANSWER: Final = LLMResponse(
    id="chatcmpl-1",
    content="It is a language that reads nearly as plain words do. " * 4,
    model=MODEL,
    usage=TokenUsage(30, 50),
    finish_reason="stop",
)


def write_rows(path: Path, count: int, model: str = MODEL) -> None:
    """Write so many requests, each of about 250 bytes, into a file."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            messages = [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": f"What is Python, in a sentence? This is question number {number}."},
            ]
            body = {"model": model, "messages": messages, "max_tokens": 100}
            row = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(row) + "\n")


def peak(rows: int) -> int:
    """Return the most resident bytes of a process that runs so many rows."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        write_rows(source, rows)
        with program(sys.executable, __name__, str(source), str(rows)) as process:
            return int(first_line(process))


class Answering:
    """A provider that answers in the process, and remembers nothing."""

    name = MODEL

    async def initialize(self) -> None:
        """Do nothing."""

    async def complete(self, request: LLMRequest) -> LLMResponse:  # noqa: ARG002 - a provider's signature
        """Answer once others have had their turn."""
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn
        return _ANSWER

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Refuse: rows of a batch are answered whole."""
        raise NotImplementedError(f"streams of {request.model}")

    async def health_check(self) -> HealthStatus:
        """Be healthy."""
        return HealthStatus(healthy=True)

    async def close(self) -> None:
        """Do nothing."""


async def _run(source: Path, rows: int) -> None:
    register_provider(MODEL, lambda _: Answering())
    section = {"type": MODEL, "api_keys": ["k1"], "models": [MODEL]}
    async with LLMManager.open({"providers": {MODEL: section}}) as manager:
        summary = await run_file(manager, source, source.with_name("out.jsonl"), concurrency=CONCURRENCY)
    if summary.answered != rows:
        raise RuntimeError(f"{summary.answered} of {rows} rows were answered")


def _peak_of_this_process() -> int:
    told = Path("/proc/self/status").read_text(encoding="ascii")
    return int(told.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2])))
    print(_peak_of_this_process(), flush=True)  # noqa: T201 - the way to tell it
