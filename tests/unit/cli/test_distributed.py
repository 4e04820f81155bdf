"""`manifold batch --engine ray`, from its options to its exit status; its one worker is a double."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm.batch.dialect import answer_line
from llm.batch.ray.values import Duty, News, Team, View
from llm.batch.values import Outcome, Row
from llm.cli.distributed import run
from llm.cli.job import Job
from llm.cli.shell import Shell
from llm.core.types import LLMResponse, TokenUsage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from tests.forking import Ended

    Typed = Callable[..., Ended]

COUNTS = {"answered": 1, "failed": 0, "cancelled": 0, "cached": 0}
TOKENS = {"input": 3, "output": 2, "cached_input": 0}


class Echo:
    """Answers every row at once."""

    def __init__(self, duty: Duty) -> None:
        assert duty.concurrency == 7
        self._rows: asyncio.Queue[Row] = asyncio.Queue()
        self._answered = 0

    async def begin(self) -> None:
        pass

    async def put(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._rows.put_nowait(row)

    async def news(self) -> News:
        row = await self._rows.get()
        self._answered += 1
        line = answer_line(row, LLMResponse("r", "Hi"), created=0)
        return News([Outcome(row.order, line, None, TokenUsage(3, 2), 0.1)])

    async def close(self) -> News:
        counts = {name: count * self._answered for name, count in COUNTS.items()}
        tokens = {name: count * self._answered for name, count in TOKENS.items()}
        cost = 0.1 * self._answered
        models = {"openai/m": {"calls": counts, "tokens": tokens, "saved": {"tokens": 0, "cost": 0.0}, "cost": cost}}
        return News(view=View(models, {}))

    def dismiss(self) -> None:
        pass


class Cluster:
    def __init__(self, address: str | None) -> None:
        self._address = address

    @asynccontextmanager
    async def team(self, workers: int | None) -> AsyncGenerator[Team]:
        yield Team(self._address, workers or 4, 1, Echo)


def test_a_run_ends_with_its_counts_and_they_are_in_the_statistics(
    tmp_path: Path, configure: Callable[..., None], manifold: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    absent: dict[str, Any] = dict.fromkeys(("errors", "provider", "model", "prompt", "system", "id_column"))
    given: dict[str, Any] = {"source": "in.jsonl", "output": "out.jsonl", "engine": "ray", "concurrency": 7}
    switches: dict[str, Any] = {"restart": False, "ordered": False, "cancel": False}
    shell = Shell(tmp_path / "llm.yaml", json=False, quiet=False)
    job = Job(shell=shell, workers=1, ray_address="10.0.0.1:6379", **absent, **given, **switches)
    job.check(dry_run=False)
    assert asyncio.run(run(job, Cluster)) == 0
    told = capsys.readouterr().err
    assert "ray: joined the cluster at 10.0.0.1:6379; 1 worker\n" in told
    assert "rows: 10 answered\n30 tokens in, 20 out; $1.0000; " in told
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 10
    assert asyncio.run(run(job, Cluster)) == 0
    assert "10 of 10 rows done already\n" in capsys.readouterr().err
    assert manifold("stats", "--json").json["total"]["calls"] == 10


def test_without_the_extra_one_sentence_names_the_command_and_no_file_is_made(
    tmp_path: Path, configure: Callable[..., None], manifold: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    monkeypatch.setitem(sys.modules, "ray", None)
    done = manifold("batch", "in.jsonl", "-o", "out.jsonl", "--engine", "ray")
    said = "error: --engine ray needs ray, which is not installed; type: pip install 'llm-manifold[ray]'\n"
    assert (done.status, done.out, done.err) == (2, "", said)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "2"), "--workers are those of a cluster; put --engine ray beside it"),
        (("--engine", "ray", "--cancel"), "--cancel ends what is at a vendor; name whose"),
        (("--engine", "ray", "--ray-address", "ray://h:1"), "ray://h:1 is the address of a Ray Client server"),
    ],
)
def test_what_does_not_go_together_is_refused(
    configure: Callable[..., None], manifold: Typed, words: tuple[str, ...], said: str
) -> None:
    configure()
    done = manifold("batch", "in.jsonl", "-o", "out.jsonl", *words)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


def test_a_dry_run_counts_the_calls_of_all_workers(configure: Callable[..., None], manifold: Typed) -> None:
    configure()
    done = manifold("batch", "in.jsonl", "--engine", "ray", "--workers", "2", "--dry-run", "--json")
    assert (done.status, done.json["rows"]) == (0, 10)
