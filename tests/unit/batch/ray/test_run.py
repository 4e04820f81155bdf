"""A file through workers: its files are those of a run without them, and a lost worker costs a second try."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE

from llm import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMManager,
    LLMRequest,
    LLMServerError,
)
from llm.batch import Summary, Tally, run_file
from llm.batch.ray import run_ray
from llm.batch.ray.seen import Seen
from llm.progress import ProgressTracker
from llm.testing import FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.batch.ray.conftest import Bench

    from llm.batch.ray.stock import Hand


def text_of(request: LLMRequest) -> str:
    return str(request.messages[-1].content)


async def through(bench: Bench, config: dict[str, Any], **options: Any) -> Summary:  # noqa: ANN401 - those of `run_ray`
    return await run_ray(bench.place, config, bench.folder / "in.jsonl", bench.folder / "out.jsonl", **options)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_the_files_are_those_of_a_run_without_workers(bench: Bench, tmp_path: Path) -> None:
    def answer(request: LLMRequest) -> str | Exception:
        return LLMServerError("no", status=500) if text_of(request) == "r5" else text_of(request)

    config = bench.configure(FakeProvider(answer))
    source = bench.write(*(f"r{number}" for number in range(300)), "{no json", bench.row("r7", "again"))
    async with LLMManager.open(config) as manager:
        alone = await run_file(manager, source, tmp_path / "alone.jsonl")
    tracker = ProgressTracker()
    summary = await through(bench, config, tracker=tracker)
    for ours, theirs in (("out", "alone"), ("out.errors", "alone.errors")):
        assert sorted(map(plain, bench.read(f"{ours}.jsonl"))) == sorted(map(plain, bench.read(f"{theirs}.jsonl")))
    assert (summary.rows, summary.answered, summary.failed) == (302, 299, 3)
    assert (summary.usage, summary.errors) == (alone.usage, alone.errors)
    progress = tracker.snapshot()
    assert (progress.answered, progress.failed, progress.total, progress.in_flight) == (299, 3, 302, 0)
    assert progress.waiting is None
    assert [worker.dismissed for worker in bench.place.hired] == [True, True]


def plain(line: dict[str, Any]) -> str:
    response: dict[str, Any] = line.get("response") or {}
    response.pop("request_id", None)
    body: dict[str, Any] = response.get("body") or {}
    for name in ("id", "created"):
        body.pop(name, None)
    return str(line)


async def test_a_second_run_has_nothing_to_do_and_needs_no_cluster(bench: Bench) -> None:
    config = bench.configure(FakeProvider(text_of))
    bench.write("a", "b", "c")
    assert (await through(bench, config, ordered=True)).answered == 3
    assert bench.ids() == ["a", "b", "c"]
    assert (await through(bench, config)).skipped == 3
    assert bench.place.joined == 1


async def test_rows_of_a_lost_worker_are_asked_once_more_and_written_once(bench: Bench) -> None:
    asked: Counter[str] = Counter()

    def answer(request: LLMRequest) -> str:
        text = text_of(request)
        asked[text] += 1
        if sum(asked.values()) == 100:
            bench.place.kill_who_has(text)
        return text

    class Watching(Seen):
        lost = 0

        def lose(self, hand: Hand) -> None:
            self.lost += 1
            super().lose(hand)

    names, seen = [f"r{number}" for number in range(300)], Watching()
    bench.write(*names)
    summary = await through(bench, bench.configure(FakeProvider(answer, latency=0.005)), concurrency=8, seen=seen)
    assert seen.lost == 1
    assert sorted(bench.ids()) == sorted(names)
    assert (summary.answered, summary.failed) == (300, 0)
    assert len(bench.place.hired) == 3
    assert max(asked.values()) == 2
    assert asked.total() <= 300 + 8 + 2 + 16


async def test_a_row_that_costs_two_workers_is_an_error_that_the_next_run_asks_again(bench: Bench) -> None:
    def answer(request: LLMRequest) -> str:
        text = text_of(request)
        if text == "deadly" and bench.place.joined == 1:
            bench.place.kill_who_has(text)
        return text

    config = bench.configure(FakeProvider(answer, latency=0.001))
    bench.write(*(f"r{number}" for number in range(40)), "deadly", *(f"s{number}" for number in range(40)))
    summary = await through(bench, config, concurrency=8)
    failures = {line["custom_id"]: line["error"]["message"] for line in bench.read("out.errors.jsonl")}
    assert "deadly" in failures
    assert len(failures) <= 4
    assert failures["deadly"].startswith("two workers were lost while they had this row; the last: the process was k")
    assert summary.errors == {"LLMConnectionError": len(failures)}
    assert summary.answered + len(failures) == 81
    assert (await through(bench, config)).answered == len(failures)
    assert len(bench.ids()) == len(set(bench.ids())) == 81


async def test_without_a_second_send_the_rows_of_a_lost_worker_are_errors(bench: Bench) -> None:
    asked: Counter[str] = Counter()

    def answer(request: LLMRequest) -> str:
        text = text_of(request)
        asked[text] += 1
        if asked.total() == 50:
            bench.place.kill_who_has(text)
        return text

    config = bench.configure(FakeProvider(answer, latency=0.005), retry={"max_attempts": 1, "after_send": False})
    bench.write(*(f"r{number}" for number in range(100)))
    summary = await through(bench, config, concurrency=8)
    assert max(asked.values()) == 1
    assert (summary.answered + summary.failed, summary.failed > 0) == (100, True)
    [said] = {line["error"]["message"] for line in bench.read("out.errors.jsonl")}
    assert said.startswith("its worker was lost, may have sent it, and retry.after_send is off: the process was killed")


async def test_where_no_worker_lives_the_run_ends_and_says_why(bench: Bench) -> None:
    bench.write("a", "b")
    bench.place.stillborn = True
    with pytest.raises(LLMConnectionError, match=r"no worker lives long enough .* the process was killed"):
        await through(bench, bench.configure(FakeProvider(text_of)))
    assert len(bench.place.hired) <= 7


async def test_where_one_worker_lives_it_answers_all_though_no_other_does(bench: Bench) -> None:
    bench.write("a", "b", "c")
    bench.place.stillborn, bench.place.healthy = True, 1
    config = bench.configure(FakeProvider(text_of, latency=0.1))
    assert (await through(bench, config, concurrency=1)).answered == 3
    assert len(bench.place.hired) <= 7


async def test_a_worker_that_never_comes_holds_nobody_up(bench: Bench) -> None:
    bench.write(*(f"r{number}" for number in range(30)))
    bench.place.absent = 1
    async with SystemClock().timeout(PATIENCE):
        assert (await through(bench, bench.configure(FakeProvider(text_of)))).answered == 30
    assert [len(worker.rows) for worker in bench.place.hired] == [0, 30]


async def test_a_provider_that_no_key_opens_ends_the_run_as_without_workers(bench: Bench) -> None:
    bench.write("a", "b")
    provider = FakeProvider(lambda _: LLMAuthenticationError("no such key", status=401))
    with pytest.raises(LLMAuthenticationError, match="no such key"):
        await through(bench, bench.configure(provider))
    assert bench.read() == bench.read("out.errors.jsonl") == []


async def test_what_is_wrong_with_a_worker_itself_ends_the_run(bench: Bench) -> None:
    bench.write("a")
    config = bench.configure(FakeProvider(text_of))
    with pytest.raises(LLMConfigurationError, match="nobody"):
        await through(bench, config, provider="nobody")


async def test_cancelled_it_keeps_what_was_answered_and_the_next_run_asks_the_rest(bench: Bench) -> None:
    asked: Counter[str] = Counter()

    def answer(request: LLMRequest) -> str:
        asked[text_of(request)] += 1
        if asked.total() == 100:
            running.cancel()
        return text_of(request)

    config, tally = bench.configure(FakeProvider(answer, latency=0.005)), Tally()
    names = [f"r{number}" for number in range(200)]
    bench.write(*names)
    running = asyncio.create_task(through(bench, config, concurrency=8, tally=tally))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 0 < tally.answered == len(bench.ids()) < 200
    assert (await through(bench, config)).skipped == tally.answered
    assert sorted(bench.ids()) == sorted(names)
    assert asked.total() <= 200 + 2 * 8


async def test_what_workers_calls_came_to_is_known_of_all_of_them(bench: Bench) -> None:
    config = bench.configure(FakeProvider(text_of), cache={"backend": "memory"})
    config["providers"]["fake"]["rate_limits"] = [{"requests_per_minute": 1000}]
    bench.write(*(f"r{number}" for number in range(60)))
    seen, said = Seen(), list[str]()
    tracker = ProgressTracker()
    await through(bench, config, seen=seen, say=said.append, tracker=tracker)
    [model] = seen.status()["models"].values()
    assert (model["calls"]["answered"], model["tokens"]["input"] > 0) == (60, True)
    assert max(tracker.snapshot().saturation.values()) > 0.0
    assert said == [
        "ray: started a cluster on this machine; 2 workers",
        "each worker takes 1/2 of every limit; with `limits.store: redis` they share all of it",
        "each worker has a cache of its own; with `cache.backend: redis` they share one",
    ]


async def test_on_several_machines_a_store_on_this_one_is_refused(bench: Bench) -> None:
    bench.place.machines = 2
    bench.write("a")
    config = bench.configure(FakeProvider(text_of), limits={"store": "redis", "url": "redis://localhost:6379/0"})
    said: list[str] = []
    with pytest.raises(LLMConfigurationError, match=r"limits.url: localhost is another machine for each worker"):
        await through(bench, config, say=said.append)
    del config["limits"]
    await through(bench, config, say=said.append, workers=1)
    assert said == ["ray: joined the cluster at 10.0.0.1:6379; 1 worker"]


@pytest.mark.parametrize("options", [{"workers": 0}, {"concurrency": 0}, {"patience": -1.0}])
async def test_arguments_out_of_range_are_refused(bench: Bench, options: dict[str, Any]) -> None:
    with pytest.raises(LLMInvalidRequestError, match=next(iter(options))):
        await through(bench, {}, **options)
