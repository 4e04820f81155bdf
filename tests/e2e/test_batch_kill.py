"""A batch that is killed, or interrupted, again and again: every row is answered once, and hardly any asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event
from typing import TYPE_CHECKING, Final

import pytest
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


# Answers each request after a moment, but some of the batch that is interrupted not before that; each line on stdin is
# answered with the questions that came so far.
UPSTREAM: Final = """
import asyncio, itertools, json, sys
from llm.testing import MockUpstream

number = itertools.count()

def seconds(request):
    interrupted = request.messages[0].text.startswith("interrupted")
    return 60.0 if interrupted and next(number) in (30, 40, 100, 140) else 0.01

async def main():
    async with MockUpstream("openai", service=seconds) as up:
        print(up.base_url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            asked = [request.body["messages"][0]["content"] for request in up.requests]
            print(json.dumps(asked), flush=True)

asyncio.run(main())
"""

# As a program does that lets SIGTERM end what it does.
RUN: Final = """
import asyncio, signal, sys
from llm import LLMManager
from llm.batch import Tally, run_file

async def main(base_url, source, output, concurrency):
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    section = {"base_url": base_url, "api_keys": ["sk-test"], "models": ["m"]}
    tally = Tally()
    try:
        async with LLMManager.open({"providers": {"openai": section}}) as manager:
            await run_file(manager, source, output, concurrency=int(concurrency), tally=tally)
    finally:
        print(tally.answered)

try:
    asyncio.run(main(*sys.argv[1:]))
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
"""
_PATIENCE: Final = 60.0
"""Seconds until a run that does not go on fails the test."""
_LOOK: Final = 0.002
CONCURRENCY: Final = 16


@dataclass(frozen=True, slots=True)
class Upstream:
    """The vendor's server, in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def asked(self, batch: Batch) -> Counter[str]:
        """Return how often each question of a batch came."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Counter(asked for asked in json.loads(self.process.stdout.readline()) if asked in batch.questions)


@pytest.fixture(scope="module")
def upstream(root: Path) -> Generator[Upstream]:
    with _python(root, UPSTREAM) as process:
        assert process.stdout is not None
        yield Upstream(process.stdout.readline().strip(), process)


@dataclass(frozen=True, slots=True)
class Batch:
    """An input of so many rows, and runs over it."""

    root: Path
    folder: Path
    url: str
    questions: frozenset[str]

    def write(self) -> None:
        with self.source.open("w") as file:
            for question in self.questions:
                body = {"model": "m", "messages": [{"role": "user", "content": question}]}
                row = {"custom_id": f"id of {question}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(row) + "\n")

    @property
    def source(self) -> Path:
        return self.folder / "in.jsonl"

    @property
    def output(self) -> Path:
        return self.folder / "out.jsonl"

    def run(self, *, until: int | None = None, end: signal.Signals = signal.SIGKILL) -> tuple[int, str, float]:
        """Run until so many rows are finished, then send a signal; returns status, stdout and seconds from then."""
        with _python(self.root, RUN, self.url, str(self.source), str(self.output), str(CONCURRENCY)) as process:
            if until is not None:
                self._wait(process, until)
                process.send_signal(end)
            began = time.perf_counter()
            told, _ = process.communicate(timeout=_PATIENCE)
            return process.returncode, told, time.perf_counter() - began

    def _wait(self, process: subprocess.Popen[str], until: int) -> None:
        for _ in range(round(_PATIENCE / _LOOK)):
            if process.poll() is not None or self.lines() >= until:
                return
            Event().wait(_LOOK)
        raise AssertionError(f"the run does not go on: {self.lines()} of {len(self.questions)}")

    def lines(self) -> int:
        return self.output.read_bytes().count(b"\n") if self.output.exists() else 0

    def answers(self) -> dict[str, str]:
        """Return the question's echo of each row by its id; every line must be whole, and no row there twice."""
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        found = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
        assert len(found) == len(rows)
        return found


@contextmanager
def _python(root: Path, code: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def batch_of(root: Path, tmp_path: Path, upstream: Upstream) -> Callable[[str, int], Batch]:
    def make(name: str, rows: int) -> Batch:
        batch = Batch(root, tmp_path, upstream.url, frozenset(f"{name} {number}" for number in range(rows)))
        batch.write()
        return batch

    return make


@pytest.mark.parametrize(
    ("rows", "kills"),
    [pytest.param(300, 2, id="small"), pytest.param(10_000, 20, id="whole", marks=pytest.mark.soak)],
)
def test_killed_at_random_moments_and_run_again_every_row_is_answered_once_and_no_more_asked_than_were_in_flight(
    batch_of: Callable[[str, int], Batch], upstream: Upstream, rows: int, kills: int
) -> None:
    batch = batch_of("killed", rows)
    for moment in sorted(Random(8).sample(range(rows - 4 * CONCURRENCY), kills)):  # noqa: S311 - no secret
        status, _, _ = batch.run(until=moment)
        assert status == -signal.SIGKILL
    status, told, _ = batch.run()
    assert (status, 0 < int(told) < rows) == (0, True)
    assert batch.answers() == {f"id of {question}": question for question in batch.questions}
    asked = upstream.asked(batch)
    assert set(asked) == batch.questions
    assert asked.total() <= rows + CONCURRENCY * kills


def test_interrupted_it_keeps_all_that_was_finished_ends_long_before_its_answers_and_the_next_run_completes_the_rest(
    batch_of: Callable[[str, int], Batch], upstream: Upstream
) -> None:
    batch, kept = batch_of("interrupted", 300), 0
    for end, until in ((signal.SIGINT, 50), (signal.SIGTERM, 150)):
        status, told, seconds = batch.run(until=until, end=end)
        assert (status, seconds < PATIENCE) == (130, True)  # it waits for none of the answers that take a minute
        assert len(batch.answers()) == kept + int(told)
        kept = len(batch.answers())
        assert until <= kept < 300
    assert batch.run()[:2] == (0, f"{300 - kept}\n")
    assert batch.answers() == {f"id of {question}": question for question in batch.questions}
    assert upstream.asked(batch).total() <= 300 + 2 * CONCURRENCY
