"""A file of requests into a file of answers."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until

from llm import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    TokenUsage,
)
from llm.batch import Summary, Tally, count_records, read_table, run_file
from llm.progress import ProgressTracker
from llm.testing import FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llm import LLMManager
    from llm.utils.clock import Timeout, Timer

    Opened = Callable[..., AbstractAsyncContextManager[LLMManager]]


class HastyClock(SystemClock):
    """The machine's time, a hundred times as fast: files are read by threads, which no fake clock sees."""

    def now(self) -> float:
        return super().now() * 100.0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100.0)

    def timeout(self, seconds: float | None) -> Timeout:
        return super().timeout(None if seconds is None else seconds / 100.0)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(seconds / 100.0, callback)


def line(name: str, text: str = "hello", **body: object) -> str:
    asked = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": asked})


def written(folder: Path, *lines: str) -> Path:
    path = folder / "in.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(held) for held in path.read_text().splitlines()] if path.exists() else []


def names(path: Path) -> list[str]:
    return [row["custom_id"] for row in read(path)]


async def test_every_row_has_one_line_an_answer_or_an_error(manager_of: Opened, tmp_path: Path) -> None:
    def answer(request: LLMRequest) -> str | Exception:
        text = str(request.messages[0].content)
        return LLMInvalidRequestError("the model says no", status=400) if text == "bad" else f"to {text}"

    lines = [*(line(f"r{n}", f"question {n}") for n in range(5)), "{oops", line("b", "bad"), "", line("r2", "again")]
    source, out = written(tmp_path, *lines), tmp_path / "out.jsonl"
    async with manager_of(FakeProvider(answer)) as manager:
        summary = await run_file(manager, source, out, concurrency=3)
    answers = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in read(out)}
    assert answers == {f"r{n}": f"to question {n}" for n in range(5)}
    errors = read(tmp_path / "out.errors.jsonl")
    assert sorted(str(row["custom_id"]) for row in errors) == ["None", "b", "r2"]
    assert {row["error"]["code"] for row in errors if row["error"]} == {"invalid_json", "duplicate_custom_id"}
    assert (summary.rows, summary.answered, summary.failed, summary.skipped) == (8, 5, 3, 0)
    assert summary.errors == {"invalid_json": 1, "duplicate_custom_id": 1, "LLMInvalidRequestError": 1}


async def test_a_summary_has_tokens_cost_hits_and_seconds(manager_of: Opened, tmp_path: Path) -> None:
    clock = HastyClock()
    response = LLMResponse(content="yes", usage=TokenUsage(3, 2), cost=0.5)
    source = written(tmp_path, line("a"), line("b", "other"))
    async with manager_of(FakeProvider(lambda _: response, clock=clock, latency=4.0), clock=clock) as manager:
        summary = await run_file(manager, source, tmp_path / "out.jsonl", concurrency=1)
    assert replace(summary, seconds=8.0) == Summary(2, 2, 0, 0, TokenUsage(6, 4), 1.0, 0, 8.0, {})
    assert 8.0 <= summary.seconds < 80.0


async def test_the_cost_is_unknown_where_that_of_one_answer_is(manager_of: Opened, tmp_path: Path) -> None:
    source = written(tmp_path, line("a"), line("b", "other"))
    costs = iter([0.5, None])
    provider = FakeProvider(lambda _: LLMResponse(content="yes", cost=next(costs)))
    async with manager_of(provider) as manager:
        assert (await run_file(manager, source, tmp_path / "out.jsonl", concurrency=1)).cost is None


async def test_what_is_finished_is_not_asked_again_and_what_may_have_passed_is(
    manager_of: Opened, tmp_path: Path
) -> None:
    source, out, errors = written(tmp_path, line("a"), line("b"), line("c")), tmp_path / "o", "e"
    said: list[str | Exception] = ["yes", LLMServerError("down", status=500), LLMInvalidRequestError("no", status=400)]
    async with manager_of(FakeProvider(said)) as manager:
        first = await run_file(manager, source, out, errors=tmp_path / errors, concurrency=1)
    provider = FakeProvider("yes")
    async with manager_of(provider) as manager:
        second = await run_file(manager, source, out, errors=tmp_path / errors)
        third = await run_file(manager, source, out, errors=tmp_path / errors)
    assert (first.answered, first.failed, first.skipped) == (1, 2, 0)
    assert (second.answered, second.failed, second.skipped) == (1, 0, 2)
    assert (third.rows, third.answered, third.failed, third.skipped) == (3, 0, 0, 3)
    assert provider.calls == 1
    assert third.unmet == 0
    assert (names(out), names(tmp_path / errors)) == (["a", "b"], ["c"])


async def test_what_was_never_sent_is_looked_at_anew_so_a_corrected_input_leaves_no_error_behind(
    manager_of: Opened, tmp_path: Path
) -> None:
    wrong = ["{oops", line("a"), line("b", temperature="hot"), line("a")]
    source, out, errors = written(tmp_path, *wrong), tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"
    async with manager_of(FakeProvider("yes")) as manager:
        first = await run_file(manager, source, out)
        again = await run_file(manager, source, out)
        told = sorted(map(str, names(errors)))
        written(tmp_path, line("c"), line("a"), line("b", temperature=1))
        last = await run_file(manager, source, out)
    assert (first.answered, first.failed, first.skipped) == (1, 3, 0)
    assert (again.answered, again.failed, again.skipped) == (0, 3, 1)
    assert told == ["None", "a", "b"]
    assert (last.answered, last.failed, last.skipped) == (2, 0, 1)
    assert sorted(names(out)) == ["a", "b", "c"]
    assert not errors.exists()


async def test_a_model_that_no_key_may_use_fails_its_rows_and_the_others_are_answered(
    manager_of: Opened, tmp_path: Path
) -> None:
    def answer(request: LLMRequest) -> str | Exception:
        return LLMAuthenticationError("not yours", status=403, model_only=True) if request.model == "m" else "yes"

    source = written(tmp_path, *[line(f"r{n}", model="mn"[n % 2]) for n in range(8)])
    async with manager_of(FakeProvider(answer)) as manager:
        summary = await run_file(manager, source, tmp_path / "out.jsonl", concurrency=1)
    assert (summary.answered, summary.failed) == (4, 4)


async def test_a_pipe_with_a_name_is_read_once(manager_of: Opened, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(f"{line(f'r{n}', 'x' * 2000)}\n" for n in range(500))
    async with manager_of(FakeProvider("yes")) as manager, asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(pipe.write_text, text))
        summary = await run_file(manager, pipe, tmp_path / "out.jsonl")
        with pytest.raises(LLMInvalidRequestError, match="ordered"):
            await run_file(manager, pipe, tmp_path / "out.jsonl", ordered=True)
    assert (summary.answered, summary.failed) == (500, 0)


async def test_a_restart_asks_everything_anew_and_keeps_what_was(manager_of: Opened, tmp_path: Path) -> None:
    source, out = written(tmp_path, line("a")), tmp_path / "out.jsonl"
    async with manager_of(FakeProvider(["old", "new"])) as manager:
        await run_file(manager, source, out)
        summary = await run_file(manager, source, out, restart=True)
    assert summary.answered == 1
    assert [row["response"]["body"]["choices"][0]["message"]["content"] for row in read(out)] == ["new"]
    assert "old" in (tmp_path / "out.jsonl.bak").read_text()


async def test_an_empty_input_is_a_run_without_rows(manager_of: Opened, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.touch()
    async with manager_of(FakeProvider()) as manager:
        summary = await run_file(manager, source, tmp_path / "out.jsonl")
    assert (summary.rows, summary.answered) == (0, 0)


@pytest.mark.parametrize("restart", [False, True])
async def test_an_input_that_is_not_there_is_said_and_nothing_is_changed(
    manager_of: Opened, tmp_path: Path, *, restart: bool
) -> None:
    out, nowhere = tmp_path / "out.jsonl", tmp_path / "nowhere.jsonl"
    async with manager_of(FakeProvider("yes")) as manager:
        with pytest.raises(LLMConfigurationError, match=r"no file .*nowhere\.jsonl"):
            await run_file(manager, nowhere, out, restart=restart)
        assert not out.exists()
        await run_file(manager, written(tmp_path, line("a")), out)
        with pytest.raises(LLMConfigurationError, match=r"no file .*nowhere\.jsonl"):
            await run_file(manager, nowhere, out, restart=restart)
    assert names(out) == ["a"]


async def test_ordered_puts_the_output_into_the_inputs_order(manager_of: Opened, tmp_path: Path) -> None:
    clock = HastyClock()

    class Uneven(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            await clock.sleep(10.0 - 2.0 * float(str(request.messages[0].content)))
            return LLMResponse(content="yes")

    source, out = written(tmp_path, *(line(f"r{n}", str(n)) for n in range(5))), tmp_path / "out.jsonl"
    async with manager_of(Uneven(), clock=clock) as manager:
        await run_file(manager, source, out)
        assert names(out) == ["r4", "r3", "r2", "r1", "r0"]
        await run_file(manager, source, out, ordered=True)
    assert names(out) == ["r0", "r1", "r2", "r3", "r4"]


async def test_an_open_file_is_read_once_so_not_ordered(manager_of: Opened, tmp_path: Path) -> None:
    async with manager_of(FakeProvider("yes")) as manager:
        with pytest.raises(LLMInvalidRequestError, match=r"^ordered: .*name a file"):
            await run_file(manager, io.BytesIO(), tmp_path / "out.jsonl", ordered=True)
        summary = await run_file(manager, io.BytesIO(line("a").encode()), tmp_path / "out.jsonl")
    assert summary.answered == 1


async def test_a_table_is_run_by_its_own_reader(manager_of: Opened, tmp_path: Path) -> None:
    table, out, tracker = tmp_path / "in.csv", tmp_path / "out.jsonl", ProgressTracker()
    table.write_text("id,word\nx,one\ny,two\n")
    provider = FakeProvider(lambda request: str(request.messages[0].content))
    rows = partial(read_table, prompt="Say {word}", id_column="id")
    async with manager_of(provider) as manager:
        await run_file(manager, table, out, rows=rows, count=count_records, concurrency=1, tracker=tracker)
    answers = [row["response"]["body"]["choices"][0]["message"]["content"] for row in read(out)]
    assert (names(out), answers) == (["x", "y"], ["Say one", "Say two"])


async def test_a_client_of_ones_own_gives_its_model_to_rows_that_have_none(manager_of: Opened, tmp_path: Path) -> None:
    provider = FakeProvider("yes")
    async with manager_of(provider) as manager:
        client = manager.get_client(model="special", user="alice")
        await run_file(manager, written(tmp_path, line("a", model=None)), tmp_path / "out.jsonl", client=client)
    assert [(request.model, request.user) for request in provider.requests] == [("special", "alice")]


async def test_a_tracker_knows_all_rows_those_of_earlier_runs_and_how_full_keys_are(
    manager_of: Opened, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    async with manager_of(FakeProvider("yes", latency=0.02)) as manager:
        await run_file(manager, written(tmp_path, line("r0"), line("r1")), out)
        tracker = ProgressTracker()
        await run_file(manager, written(tmp_path, *(line(f"r{n}") for n in range(4)), "{oops"), out, tracker=tracker)
    told = tracker.snapshot()
    assert (told.total, told.skipped, told.answered, told.failed) == (5, 2, 2, 1)
    assert (told.in_flight, told.waiting) == (0, None)
    await SystemClock().sleep(0.002)
    assert tracker.snapshot().elapsed == told.elapsed  # it is over


async def test_rows_that_the_input_lost_are_in_the_files_and_not_in_the_progress(
    manager_of: Opened, tmp_path: Path
) -> None:
    out, tracker = tmp_path / "out.jsonl", ProgressTracker()
    async with manager_of(FakeProvider("yes")) as manager:
        await run_file(manager, written(tmp_path, *(line(f"r{n}") for n in range(9))), out)
        await run_file(manager, written(tmp_path, line("r0"), line("r1"), line("new")), out, tracker=tracker)
    told = tracker.snapshot()
    assert (told.total, told.skipped, told.answered) == (3, 2, 1)


async def test_the_run_does_not_wait_for_who_counts_its_rows(manager_of: Opened, tmp_path: Path) -> None:
    async def endless(_: object) -> int:
        await SystemClock().sleep(3600.0)
        raise AssertionError

    tracker = ProgressTracker()
    async with manager_of(FakeProvider("yes")) as manager:
        source, out = written(tmp_path, line("a")), tmp_path / "out.jsonl"
        assert (await run_file(manager, source, out, count=endless, tracker=tracker)).answered == 1
    assert tracker.snapshot().total == 1  # those that were met


async def test_cancelled_it_ends_long_before_its_calls_with_all_that_was_finished_on_disk_and_known(
    manager_of: Opened, tmp_path: Path
) -> None:
    source, out = written(tmp_path, *(line(f"r{n}", str(n)) for n in range(50))), tmp_path / "out.jsonl"
    clock, tally = SystemClock(), Tally()

    class Stuck(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            self.in_flight += 1
            try:
                await clock.sleep(0.001 if int(str(request.messages[0].content)) < 20 else 60.0)
            finally:
                self.in_flight -= 1
            return LLMResponse(content="yes")

    provider = Stuck()
    async with manager_of(provider) as manager:
        task = asyncio.create_task(run_file(manager, source, out, concurrency=5, tally=tally))
        while tally.answered < 20:
            await clock.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with clock.timeout(PATIENCE):  # what is asked would take a minute
                await task
        assert provider.in_flight == 0
    assert len(names(out)) == len(set(names(out))) == 20
    assert (tally.summary().answered, tally.summary().failed) == (20, 0)
    async with manager_of(FakeProvider("yes")) as manager:
        summary = await run_file(manager, source, out)
    assert (summary.answered, summary.skipped) == (30, 20)
    assert len(names(out)) == len(set(names(out))) == 50


async def test_rows_that_are_being_written_when_it_is_cancelled_are_written_and_counted(
    manager_of: Opened, tmp_path: Path
) -> None:
    source, out = written(tmp_path, *(line(f"r{n}") for n in range(8))), tmp_path / "out.jsonl"
    provider, tally = FakeProvider("yes"), Tally()
    async with manager_of(provider) as manager:
        task = asyncio.create_task(run_file(manager, source, out, concurrency=8, tally=tally))
        while provider.calls < 8:
            await SystemClock().sleep(0.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(names(out)) == tally.answered


async def test_in_trouble_nothing_is_written_and_the_next_run_asks_those_rows(
    manager_of: Opened, tmp_path: Path
) -> None:
    source, out, clock = written(tmp_path, line("a"), line("b")), tmp_path / "out.jsonl", HastyClock()
    tally = Tally()
    down = FakeProvider(lambda _: LLMConnectionError("nobody is there"), clock=clock)
    async with manager_of(down, clock=clock) as manager:
        with pytest.raises(LLMConnectionError, match="nobody"):
            await run_file(manager, source, out, patience=10.0, tally=tally)
    assert (tally.rows, tally.answered, tally.failed) == (2, 0, 0)
    assert 10.0 <= tally.seconds < 500.0  # where it has 600, if not told otherwise
    assert read(out) == read(tmp_path / "out.errors.jsonl") == []
    async with manager_of(FakeProvider("yes")) as manager:
        assert (await run_file(manager, source, out)).answered == 2


@pytest.mark.parametrize(("after_send", "calls"), [(True, 2), (False, 1)])
async def test_without_after_send_a_row_that_may_have_arrived_is_not_asked_again(
    manager_of: Opened, tmp_path: Path, *, after_send: bool, calls: int
) -> None:
    clock, retry = HastyClock(), {"max_attempts": 1, "after_send": after_send}
    provider = FakeProvider([LLMConnectionError("cut off", sent=True), "yes"], clock=clock)
    async with manager_of(provider, clock=clock, retry=retry) as manager:
        await run_file(manager, written(tmp_path, line("a")), tmp_path / "out.jsonl")
    assert provider.calls == calls
    assert (names(tmp_path / "out.jsonl") == ["a"]) == after_send


async def test_where_no_key_is_left_it_stops_at_once(manager_of: Opened, tmp_path: Path) -> None:
    source, out, clock = written(tmp_path, line("a"), line("b")), tmp_path / "out.jsonl", HastyClock()
    provider = FakeProvider(lambda _: LLMAuthenticationError("this key is refused", status=401), clock=clock)
    async with manager_of(provider, clock=clock) as manager:
        with pytest.raises(LLMAuthenticationError):
            await run_file(manager, source, out)
    assert provider.calls <= 2


async def test_a_manager_that_is_closed_in_the_middle_stops_the_run_and_the_next_goes_on(
    manager_of: Opened, tmp_path: Path
) -> None:
    source, out = written(tmp_path, *(line(f"r{n}", str(n)) for n in range(30))), tmp_path / "out.jsonl"
    async with manager_of(FakeProvider("yes", latency=0.005)) as manager:
        task = asyncio.create_task(run_file(manager, source, out, concurrency=2))
        await until(lambda: out.exists() and names(out))
        await manager.close()
        with pytest.raises(LLMException, match="closed"):
            await task
    before = len(names(out))
    assert 0 < before < 30
    async with manager_of(FakeProvider("yes")) as manager:
        assert (await run_file(manager, source, out)).answered == 30 - before


async def test_a_full_disk_stops_the_run_and_loses_nothing_that_was_finished(
    manager_of: Opened, tmp_path: Path, small_disk: Callable[[int], Any]
) -> None:
    source, out = written(tmp_path, *(line(f"r{n}", str(n)) for n in range(40))), tmp_path / "out.jsonl"
    async with manager_of(FakeProvider("yes")) as manager:
        tally = Tally()
        with small_disk(4_000), pytest.raises(OSError, match="File too large") as raised:
            await run_file(manager, source, out, concurrency=4, tally=tally)
        assert raised.value.errno == errno.EFBIG
        before = names(out)
        assert tally.answered == len(before)
        assert 0 < len(before) < 40
        assert (await run_file(manager, source, out)).answered == 40 - len(before)
    assert len(names(out)) == len(set(names(out))) == 40
