"""Many requests from a program: all in order, or each as it comes, blocking or not."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

import llm.sync
from llm import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    TokenUsage,
)
from llm.batch import RequestBatch, RequestManager, ResponseWrapper
from llm.core.types import EmbeddingResponse
from llm.progress import ProgressTracker
from llm.testing import FakeClock, FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llm import LLMManager

    Opened = Callable[..., AbstractAsyncContextManager[LLMManager]]


def batch_of(count: int) -> RequestBatch:
    batch = RequestBatch()
    for number in range(count):
        messages = [{"role": "user", "content": str(number)}]
        batch.chat.completions.create(model="m", messages=messages, custom_id=f"r{number}")
    return batch


def asked(request: LLMRequest) -> int:
    return int(str(request.messages[0].content))


async def test_all_answers_come_in_order_whatever_order_they_ended_in(manager_of: Opened) -> None:
    clock = FakeClock(auto=True)

    class Uneven(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            await clock.sleep(10.0 - asked(request))
            return LLMResponse(content=f"to {asked(request)}")

    async with manager_of(Uneven(), clock=clock) as manager:
        wrappers = await RequestManager(manager, concurrency=10).run(batch_of(9))
    assert [(w.request_id, w.order, str(w.response), w.error) for w in wrappers] == [
        (f"r{n}", n, f"to {n}", None) for n in range(9)
    ]


async def test_a_stream_gives_each_as_it_ends(manager_of: Opened) -> None:
    clock = FakeClock(auto=True)

    class Uneven(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            await clock.sleep(10.0 - asked(request))
            return LLMResponse(content="yes")

    async with manager_of(Uneven(), clock=clock) as manager:
        names = [wrapper.request_id async for wrapper in RequestManager(manager).stream(batch_of(5))]
    assert names == ["r4", "r3", "r2", "r1", "r0"]


async def test_failures_are_values(manager_of: Opened) -> None:
    def answer(request: LLMRequest) -> str | Exception:
        return LLMServerError("broken", status=500) if asked(request) == 1 else "yes"

    async with manager_of(FakeProvider(answer)) as manager:
        wrappers = await RequestManager(manager).run(batch_of(3))
    assert [type(wrapper.error).__name__ for wrapper in wrappers] == ["NoneType", "LLMServerError", "NoneType"]
    assert wrappers[1].response is None


async def test_trouble_of_the_provider_is_waited_out_and_after_patience_it_is_the_rows_error(
    manager_of: Opened,
) -> None:
    clock = FakeClock(auto=True)

    def answer(request: LLMRequest) -> str | Exception:
        late = asked(request) == 0 and clock.now() > 5.0
        return "at last" if late else LLMConnectionError("nobody is there")

    async with manager_of(FakeProvider(answer, clock=clock), clock=clock) as manager:
        wrappers = await RequestManager(manager, patience=50.0).run(batch_of(3))
    assert str(wrappers[0].response) == "at last"
    assert [type(wrapper.error) for wrapper in wrappers[1:]] == [LLMConnectionError, LLMConnectionError]


@pytest.mark.parametrize(("after_send", "calls"), [(True, 2), (False, 1)])
async def test_without_after_send_a_row_that_may_have_arrived_is_not_asked_again(
    manager_of: Opened, *, after_send: bool, calls: int
) -> None:
    clock, retry = FakeClock(auto=True), {"max_attempts": 1, "after_send": after_send}
    provider = FakeProvider([LLMConnectionError("cut off", sent=True), "yes"], clock=clock)
    async with manager_of(provider, clock=clock, retry=retry) as manager:
        (wrapper,) = await RequestManager(manager).run(batch_of(1))
    assert provider.calls == calls
    assert (wrapper.error is None) == after_send


async def test_where_no_key_is_left_every_row_has_that_error_at_once(manager_of: Opened) -> None:
    provider = FakeProvider(lambda _: LLMAuthenticationError("this key is refused", status=401))
    async with manager_of(provider) as manager:
        wrappers = await RequestManager(manager, concurrency=2).run(batch_of(5))
    assert {type(wrapper.error) for wrapper in wrappers} == {LLMAuthenticationError}
    assert provider.calls <= 2


async def test_chats_vectors_and_responses_go_in_one_batch(manager_of: Opened) -> None:
    batch = RequestBatch()
    batch.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    batch.embeddings.create(model="m", input=["a", "b"])
    batch.responses.create(model="m", input="hello")
    async with manager_of(FakeProvider()) as manager:
        wrappers = await RequestManager(manager).run(batch)
    kinds = [type(wrapper.response) for wrapper in wrappers]
    assert kinds == [LLMResponse, EmbeddingResponse, LLMResponse]


async def test_a_file_is_streamed_its_bad_rows_and_repeated_ids_are_errors(manager_of: Opened, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(batch_of(3).to_jsonl() + "{oops\n" + batch_of(1).to_jsonl())
    tracker = ProgressTracker()
    async with manager_of(FakeProvider("yes", latency=0.02)) as manager:
        rm = RequestManager(manager, concurrency=1, progress=tracker)
        wrappers = [wrapper async for wrapper in rm.stream(path)]
    assert [(w.request_id, w.order, w.error is None) for w in wrappers] == [
        ("r0", 0, True), ("r1", 1, True), ("r2", 2, True), ("", 3, False), ("r0", 4, False)
    ]  # fmt: skip
    assert {type(wrapper.error) for wrapper in wrappers[3:]} == {LLMInvalidRequestError}
    assert "duplicate_custom_id" in str(wrappers[4].error)
    told = tracker.snapshot()
    assert (told.total, told.answered, told.failed, told.in_flight) == (5, 3, 2, 0)
    assert told.errors == {"invalid_json": 1, "duplicate_custom_id": 1}


async def test_an_open_file_and_an_empty_batch_are_fine(manager_of: Opened, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(batch_of(2).to_jsonl())
    async with manager_of(FakeProvider("yes")) as manager:
        with path.open("rb") as file:
            assert len(await RequestManager(manager).run(file)) == 2
        assert await RequestManager(manager).run(RequestBatch()) == []


async def test_a_file_that_cannot_be_read_is_raised_for_no_row_can_tell_it(manager_of: Opened) -> None:
    async with manager_of(FakeProvider()) as manager:
        with pytest.raises(LLMConfigurationError, match="no file"):
            await RequestManager(manager).run("nowhere.jsonl")
        with pytest.raises(LLMConfigurationError, match="no file"):
            _ = [wrapper async for wrapper in RequestManager(manager).stream("nowhere.jsonl")]


async def test_who_reads_slowly_slows_the_calls_down(manager_of: Opened) -> None:
    provider = FakeProvider("yes")

    async def until_called(times: int) -> None:
        await until(lambda: provider.calls >= times)

    async with (
        manager_of(provider) as manager,
        aclosing(RequestManager(manager, concurrency=4).stream(batch_of(100))) as stream,
    ):
        for taken in range(1, 4):
            await anext(stream)
            await until_called(taken + 8)
            await SystemClock().sleep(0.02)
            assert provider.calls == taken + 8  # four wait to be read, and four to be handed over


async def test_leaving_the_loop_early_ends_the_calls_at_once_and_leaves_nothing(manager_of: Opened) -> None:
    class Slow(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            self.in_flight += 1
            try:
                await SystemClock().sleep(60.0 if asked(request) else 0.0)
            finally:
                self.in_flight -= 1
            return LLMResponse(content="yes")

    provider = Slow()
    async with manager_of(provider) as manager:
        async for wrapper in RequestManager(manager, concurrency=4).stream(batch_of(100)):
            assert wrapper.request_id == "r0"
            await until(lambda: provider.in_flight == 4)
            break
        await until(lambda: provider.in_flight == 0)
        assert manager.get_status()["pool"]["calls"] == 0


async def test_who_is_cancelled_while_reading_leaves_nothing(manager_of: Opened) -> None:
    provider = FakeProvider("yes", latency=60.0)

    async def read(rm: RequestManager) -> None:
        async for _ in rm.stream(batch_of(9)):
            raise AssertionError

    async with manager_of(provider) as manager:
        task = asyncio.create_task(read(RequestManager(manager, concurrency=3)))
        await until(lambda: provider.in_flight == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert provider.in_flight == 0


async def test_a_failure_that_nobody_stayed_for_is_not_warned_of(manager_of: Opened) -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read1(size)

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    source = Broken(batch_of(5).to_jsonl().encode())
    async with manager_of(FakeProvider("yes")) as manager:
        async for _ in RequestManager(manager).stream(source):
            await SystemClock().sleep(0.05)
            break
        await SystemClock().sleep(0.01)
        gc.collect()
        with pytest.raises(LLMConfigurationError, match="cannot be read on"):
            await RequestManager(manager).run(Broken(batch_of(5).to_jsonl().encode()))
    assert told == []


def test_a_batch_is_processed_inside_a_running_loop_by_a_manager_of_that_loop(manager_of: Opened) -> None:
    async def cell() -> None:
        async with manager_of(FakeProvider("yes")) as manager:
            wrappers = _blocking(RequestManager(manager), batch_of(5))
            assert [str(wrapper.response) for wrapper in wrappers] == ["yes"] * 5
            assert manager.get_status()["metrics"]["total_requests"] == 5

    asyncio.run(cell())


def _blocking(rm: RequestManager, batch: RequestBatch) -> list[ResponseWrapper]:
    return rm.process_batch(batch)


def test_a_script_without_a_loop_processes_with_a_blocking_manager() -> None:
    section = {"type": "batch-script", "api_keys": ["k1"], "models": ["m"]}
    llm.register_provider("batch-script", lambda _: FakeProvider("yes"))
    with llm.sync.LLMManager.open({"providers": {"fake": section}}) as manager:
        rm = RequestManager(manager)
        assert [str(wrapper.response) for wrapper in rm.process_batch(batch_of(3))] == ["yes"] * 3
        assert rm.stats.requests == 3
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        rm.process_batch(batch_of(1))


async def test_batches_of_several_threads_go_side_by_side(manager_of: Opened) -> None:
    async with manager_of(FakeProvider("yes", latency=0.001)) as manager:
        rm = RequestManager(manager, concurrency=4)
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(len(_blocking(rm, batch_of(20))))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert counts == [20, 20, 20]
    assert rm.stats.requests == 60


async def test_a_manager_that_is_closed_in_the_middle_is_the_error_of_the_rest(manager_of: Opened) -> None:
    provider = FakeProvider("yes", latency=0.002)
    async with manager_of(provider) as manager:
        task = asyncio.create_task(RequestManager(manager, concurrency=2).run(batch_of(30)))
        while provider.calls < 6:
            await SystemClock().sleep(0.001)
        await manager.close()
        wrappers = await task
    answered = [wrapper for wrapper in wrappers if wrapper.response is not None]
    assert 0 < len(answered) < 30
    assert {type(w.error) for w in wrappers if w.response is None} == {LLMPoolExhaustedError}


async def test_the_stats_are_of_all_batches(manager_of: Opened) -> None:
    clock = FakeClock(auto=True)
    said = LLMResponse(content="yes", usage=TokenUsage(30, 20), cost=0.25)
    provider = FakeProvider([said, LLMServerError("broken", status=500), said], clock=clock, latency=5.0)
    async with manager_of(provider, clock=clock) as manager:
        rm = RequestManager(manager, concurrency=1)
        assert (rm.stats.requests, rm.stats.cost, rm.stats.seconds) == (0, 0.0, 0.0)
        await rm.run(batch_of(2))
        await clock.sleep(1000.0)
        await rm.run(batch_of(1))
    stats = rm.stats
    assert (stats.requests, stats.usage, stats.cost, stats.cache_hits) == (3, TokenUsage(60, 40), 0.5, 0)
    assert stats.seconds == pytest.approx(15.0)
    assert stats.tokens_per_second == pytest.approx(100 / 15)
    assert stats.saturation == 0.0


async def test_hits_count_and_saturation_is_of_the_fullest_key() -> None:
    llm.register_provider("batch-limited", lambda _: FakeProvider("yes"))
    section: dict[str, Any] = {"type": "batch-limited", "api_keys": ["k1", "k2"], "models": ["m"]}
    section["rate_limits"] = [{"requests_per_day": 4}, {"requests_per_day": 100}]
    config = {"providers": {"fake": section, "other": section}, "cache": {"backend": "memory"}}
    async with llm.LLMManager.open(config) as manager:
        rm = RequestManager(manager, concurrency=1)
        await rm.run(batch_of(4))
        await rm.run(batch_of(4))
    assert rm.stats.cache_hits == 4
    assert rm.stats.cache_hit_ratio == 0.5
    assert rm.stats.saturation == pytest.approx(0.5, abs=0.01)


async def test_progress_is_shown_when_asked_for_and_quiet_else(
    manager_of: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    async with manager_of(FakeProvider("yes")) as manager:
        await RequestManager(manager).run(batch_of(2))
        assert capsys.readouterr() == ("", "")
        await RequestManager(manager, progress=True).run(batch_of(2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "2" in err


async def test_one_tracker_hears_of_one_batch_after_the_other_each_with_its_own_keys(manager_of: Opened) -> None:
    heard: list[tuple[int, int | None, float | None]] = []
    tracker = ProgressTracker(lambda told: heard.append((told.done, told.total, told.share)), every=60.0)
    async with manager_of(FakeProvider("yes")) as first, manager_of(FakeProvider("no")) as second:
        await RequestManager(first, progress=tracker).run(batch_of(4))
        assert tracker.saturation is None  # else the next batch would be shown the keys of this one
        await RequestManager(second, progress=tracker).run(batch_of(2))
    assert heard[-1] == (2, 2, 1.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"concurrency": 0}, "concurrency is 0; expected"),
        ({"patience": -1}, "patience is -1; expected"),
        ({"progress": "yes"}, "progress is a str; pass True, False or a ProgressTracker"),
    ],
)
def test_an_argument_that_is_wrong_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=told):
        RequestManager(**options)


async def test_what_is_no_batch_and_no_file_is_refused(manager_of: Opened) -> None:
    given: Any = [json.loads("{}")]
    async with manager_of(FakeProvider()) as manager:
        with pytest.raises(LLMConfigurationError, match="list"):
            await RequestManager(manager).run(given)


async def test_what_a_batch_would_take_is_told_without_sending_it(manager_of: Opened, tmp_path: Path) -> None:
    provider, batch = FakeProvider("yes"), RequestBatch()
    for number in range(3):
        batch.chat.completions.create(model="m", messages=[{"role": "user", "content": str(number)}], max_tokens=7)
    await asyncio.to_thread(batch.to_jsonl, tmp_path / "in.jsonl")
    async with manager_of(provider) as manager:
        forecasts = [await RequestManager(manager).forecast(given) for given in (batch, tmp_path / "in.jsonl")]
    assert [(told.rows, told.invalid_rows, told.output_tokens) for told in forecasts] == [(3, 0, 21)] * 2
    assert provider.calls == 0
