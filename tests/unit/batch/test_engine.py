"""Workers: how many at once, what they do about trouble, and how they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until

from llm import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    TokenUsage,
)
from llm.batch.engine import Workers
from llm.batch.trouble import FIRST_PATIENCE
from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES, BadRow, ResponseWrapper, Row
from llm.core.types import EmbeddingResponse
from llm.testing import FakeClock, FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from llm import CallNext, LLMManager, LLMResult

    Opened = Callable[..., AbstractAsyncContextManager[LLMManager]]

DOWN = LLMConnectionError("nobody is there")


class Heard:
    """What was told of a run, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.at_once: list[int] = []

    def answered(self, usage: TokenUsage, cost: float | None, *, cached: bool) -> None:
        self.events.append(("answered", usage.output_tokens, cost, cached))

    def failed(self, kind: str) -> None:
        self.events.append(("failed", kind))

    def waiting(self, why: str | None) -> None:
        self.events.append(("waiting", why))

    def running(self, rows: int) -> None:
        self.at_once.append(rows)


class Kept:
    """Where rows are delivered."""

    def __init__(self) -> None:
        self.rows: list[Row | BadRow] = []
        self.wrappers: list[ResponseWrapper] = []

    async def __call__(self, row: Row | BadRow, wrapper: ResponseWrapper) -> None:
        self.rows.append(row)
        self.wrappers.append(wrapper)

    @property
    def ids(self) -> list[str]:
        return [wrapper.request_id for wrapper in self.wrappers]


def chat(number: int, **body: object) -> Row:
    return Row(number, f"r{number}", CHAT, {"messages": [{"role": "user", "content": f"question {number}"}], **body})


async def portions(*rows: Row | BadRow, size: int = 2) -> AsyncIterator[Sequence[Row | BadRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def workers(manager: LLMManager, keep: Kept, heard: Heard | None = None, **options: Any) -> Workers:  # noqa: ANN401 - as they are declared there
    given: dict[str, Any] = {"clock": SystemClock(), "concurrency": 4, "dice": lambda: 0.0, **options}
    return Workers(manager.get_client(), deliver=keep, tracker=heard or Heard(), **given)


async def test_every_row_is_delivered_once_with_its_own_answer(manager_of: Opened) -> None:
    provider, keep = FakeProvider(lambda request: f"to {request.messages[0].content}"), Kept()
    async with manager_of(provider) as manager:
        await workers(manager, keep).run(portions(*map(chat, range(9))))
    assert sorted((w.order, w.request_id, str(w.response)) for w in keep.wrappers) == [
        (number, f"r{number}", f"to question {number}") for number in range(9)
    ]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_are_in_flight_than_asked_for(manager_of: Opened, concurrency: int) -> None:
    provider, keep, heard = FakeProvider("yes", latency=0.005), Kept(), Heard()
    async with manager_of(provider) as manager:
        await workers(manager, keep, heard, concurrency=concurrency).run(portions(*map(chat, range(8))))
    assert (max(heard.at_once), heard.at_once[-1]) == (concurrency, 0)
    assert len(keep.ids) == 8
    assert provider.most_in_flight == concurrency


async def test_more_workers_than_rows_and_no_rows_at_all_are_fine(manager_of: Opened) -> None:
    provider, keep = FakeProvider("yes"), Kept()
    async with manager_of(provider) as manager:
        await workers(manager, keep, concurrency=50).run(portions(chat(0)))
        await workers(manager, keep, concurrency=50).run(portions())
    assert keep.ids == ["r0"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("concurrency", 0), ("concurrency", 1.5), ("concurrency", True), ("patience", -1.0), ("patience", "long"),
     ("patience", float("nan"))],
)  # fmt: skip
async def test_a_number_out_of_range_is_refused_by_name(manager_of: Opened, field: str, value: object) -> None:
    options: dict[str, Any] = {field: value}
    async with manager_of(FakeProvider()) as manager:
        with pytest.raises(LLMInvalidRequestError, match=rf"^{field} is .*expected"):
            Workers(manager.get_client(), deliver=Kept(), tracker=Heard(), clock=SystemClock(), **options)


async def test_a_row_is_taken_only_when_the_one_before_is_kept(manager_of: Opened) -> None:
    provider, released = FakeProvider("yes"), asyncio.Event()
    taken: list[str] = []

    async def deliver(row: Row | BadRow, _: ResponseWrapper) -> None:
        taken.append(str(row.custom_id))
        await released.wait()

    async with manager_of(provider) as manager:
        run = Workers(manager.get_client(), deliver=deliver, tracker=Heard(), clock=SystemClock(), concurrency=3)
        task = asyncio.create_task(run.run(portions(*map(chat, range(9)), size=9)))
        await until(lambda: len(taken) == 3)
        await SystemClock().sleep(0.02)
        assert (len(taken), provider.calls) == (3, 3)
        released.set()
        await task
    assert (len(taken), provider.calls) == (9, 9)


async def test_the_next_portion_is_read_by_one_and_when_it_is_needed(manager_of: Opened) -> None:
    reading = most = 0
    read: list[int] = []

    async def reader() -> AsyncIterator[Sequence[Row | BadRow]]:
        nonlocal reading, most
        for start in range(0, 12, 3):
            reading += 1
            most = max(most, reading)
            await SystemClock().sleep(0.001)
            reading -= 1
            read.append(start)
            yield [] if start == 6 else [chat(start + number) for number in range(3)]

    keep = Kept()
    async with manager_of(FakeProvider("yes", latency=0.001)) as manager:
        await workers(manager, keep, concurrency=8).run(reader())
    assert (read, most) == ([0, 3, 6, 9], 1)
    assert sorted(keep.ids, key=lambda name: int(name[1:])) == [f"r{n}" for n in (0, 1, 2, 3, 4, 5, 9, 10, 11)]


async def test_bad_rows_and_bodies_are_delivered_as_errors_and_nobody_is_asked(manager_of: Opened) -> None:
    provider, keep, heard = FakeProvider("yes"), Kept(), Heard()
    rows: list[Row | BadRow] = [
        BadRow(0, 1, None, "invalid_json", "line 1 is no JSON"),
        chat(1, temperature="hot"),
        chat(2),
    ]
    async with manager_of(provider) as manager:
        await workers(manager, keep, heard, concurrency=1).run(portions(*rows))
    first, second, third = keep.wrappers
    assert (first.request_id, first.order, str(first.error)) == ("", 0, "invalid_json: line 1 is no JSON")
    assert isinstance(second.error, LLMInvalidRequestError)
    assert "temperature" in str(second.error)
    assert third.response is not None
    assert provider.calls == 1
    assert heard.events[:2] == [("failed", "invalid_json"), ("failed", "LLMInvalidRequestError")]


async def test_a_rows_own_failure_is_its_end_and_the_others_go_on(manager_of: Opened) -> None:
    def answer(request: LLMRequest) -> str:
        if request.messages[0].content != "question 1":
            return "yes"
        try:
            return str(int("behind it"))
        except ValueError as error:
            raise LLMServerError("broken") from error

    provider, keep, heard = FakeProvider(answer), Kept(), Heard()
    async with manager_of(provider) as manager:
        await workers(manager, keep, heard, concurrency=1).run(portions(*map(chat, range(3))))
    assert [type(w.error).__name__ for w in keep.wrappers] == ["NoneType", "LLMServerError", "NoneType"]
    error = keep.wrappers[1].error
    assert error is not None
    assert error.__cause__ is not None
    assert error.__traceback__ is error.__cause__.__traceback__ is None  # which would hold all that the call held
    assert [event[0] for event in heard.events] == ["answered", "failed", "answered"]


async def test_a_failure_that_nobody_foresaw_is_the_rows_end_and_in_the_log_once(
    manager_of: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    keep = Kept()

    async def faulty(request: LLMRequest, call_next: CallNext) -> LLMResult:
        if request.messages[0].content != "question 2":
            raise KeyError("secret content")
        return await call_next(request)

    async with manager_of(FakeProvider("yes")) as manager:
        client = manager.get_client(middleware=[faulty])
        run = Workers(client, deliver=keep, tracker=Heard(), clock=SystemClock(), concurrency=1)
        await run.run(portions(*map(chat, range(3))))
    assert [wrapper.response is None for wrapper in keep.wrappers] == [True, True, False]
    error = keep.wrappers[0].error
    assert type(error) is LLMException
    assert "KeyError" in str(error)
    assert "secret content" not in str(error)
    assert [record.name for record in caplog.records] == ["llm.batch"]


async def test_embedding_and_responses_rows_are_answered_in_their_kind(manager_of: Opened) -> None:
    keep, heard = Kept(), Heard()
    rows = [
        Row(0, "v", EMBEDDINGS, {"input": ["a", "b"], "model": "m"}),
        Row(1, "w", RESPONSES, {"input": "hello", "model": "m"}),
    ]
    async with manager_of(FakeProvider()) as manager:
        await workers(manager, keep, heard, concurrency=1).run(portions(*rows))
    vectors, text = (wrapper.response for wrapper in keep.wrappers)
    assert isinstance(vectors, EmbeddingResponse)
    assert len(vectors.embeddings) == 2
    assert isinstance(text, LLMResponse)
    assert text.content


async def test_what_the_cache_answers_is_told_as_that_vectors_too(manager_of: Opened) -> None:
    heard = Heard()
    same = [chat(0), Row(1, "v", EMBEDDINGS, {"input": "a", "model": "m"})]
    async with manager_of(FakeProvider(), cache={"backend": "memory"}) as manager:
        for _ in range(2):
            await workers(manager, Kept(), heard, concurrency=1).run(portions(*same))
    assert [event[3] for event in heard.events] == [False, False, True, True]


async def test_a_row_without_a_model_gets_the_clients(manager_of: Opened) -> None:
    asked: list[str | None] = []

    def answer(request: LLMRequest) -> str:
        asked.append(request.model)
        return "yes"

    async with manager_of(FakeProvider(answer)) as manager:
        client = manager.get_client(model="m-default")
        run = Workers(client, deliver=Kept(), tracker=Heard(), clock=SystemClock(), concurrency=1)
        await run.run(portions(chat(0), chat(1, model="own")))
    assert asked == ["m-default", "own"]


async def test_in_trouble_a_row_is_asked_again_after_pauses_and_that_is_told(manager_of: Opened) -> None:
    clock, keep, heard = FakeClock(auto=True), Kept(), Heard()
    provider = FakeProvider([DOWN, DOWN, LLMPoolExhaustedError("full"), "yes"], clock=clock)
    async with manager_of(provider, clock=clock) as manager:
        await workers(manager, keep, heard, concurrency=1, clock=clock).run(portions(chat(0)))
        assert clock.now() == pytest.approx(3.0)
    assert str(keep.wrappers[0].response) == "yes"
    told = [event[1] for event in heard.events if event[0] == "waiting"]
    assert told == ["nobody is there", "nobody is there", "full", None]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_after_its_patience_without_one_answer_the_run_stops_and_those_rows_are_not_delivered(
    manager_of: Opened,
) -> None:
    clock, keep = FakeClock(auto=True), Kept()

    def answer(request: LLMRequest) -> str | Exception:
        return "yes" if "question 0" in str(request.messages[0].content) else LLMConnectionError("nobody is there")

    async with manager_of(FakeProvider(answer, clock=clock), clock=clock) as manager:
        run = workers(manager, keep, clock=clock, patience=100.0)
        with pytest.raises(LLMConnectionError, match="nobody"):
            await run.run(portions(*map(chat, range(9))))
        assert clock.now() == pytest.approx(100.0)
    assert keep.ids == ["r0"]


async def test_an_answer_to_anybody_begins_the_patience_anew(manager_of: Opened) -> None:
    clock, keep = FakeClock(auto=True), Kept()
    tries = 0

    def answer(request: LLMRequest) -> str | Exception:
        nonlocal tries
        content = str(request.messages[0].content)
        if content != "question 0":
            return LLMInvalidRequestError("never", status=400) if content == "question 3" else "yes"
        tries += 1
        return "at last" if clock.now() >= 150.0 else LLMConnectionError("nobody is there")

    async def slowly() -> AsyncIterator[Sequence[Row | BadRow]]:
        for portion in ((4, 0), (1,), (2,), (3,)):
            yield [chat(number) for number in portion]
            await clock.sleep(40.0)

    async with manager_of(FakeProvider(answer, clock=clock), clock=clock) as manager:
        await workers(manager, keep, clock=clock, patience=60.0, concurrency=2).run(slowly())
    assert sorted(keep.ids) == ["r0", "r1", "r2", "r3", "r4"]
    assert tries > 100


async def test_who_never_answered_is_given_up_before_the_patience_is_over(manager_of: Opened) -> None:
    clock, keep = FakeClock(auto=True), Kept()
    async with manager_of(FakeProvider(lambda _: LLMConnectionError("nobody is there")), clock=clock) as manager:
        with pytest.raises(LLMConnectionError, match="nobody"):
            await workers(manager, keep, clock=clock).run(portions(*map(chat, range(9))))
        assert clock.now() == pytest.approx(FIRST_PATIENCE)
    assert keep.ids == []


async def test_a_row_that_alone_kills_its_connection_fails_and_the_run_goes_on_to_its_end(manager_of: Opened) -> None:
    clock, keep, tries = FakeClock(auto=True), Kept(), 0

    def answer(request: LLMRequest) -> str | Exception:
        nonlocal tries
        tries += request.messages[0].content == "question 0"
        poison = request.messages[0].content == "question 0"
        return LLMConnectionError("cut off", sent=True) if poison else "yes"

    async def slowly() -> AsyncIterator[Sequence[Row | BadRow]]:
        for number in range(20):
            yield [chat(number)]
            await clock.sleep(0.5)

    async with manager_of(FakeProvider(answer, clock=clock), clock=clock) as manager:
        await workers(manager, keep, clock=clock, concurrency=2).run(slowly())
    assert len(keep.ids) == 20
    assert tries == 4  # the first before anybody was answered
    (failed,) = [wrapper for wrapper in keep.wrappers if wrapper.error is not None]
    assert (failed.request_id, type(failed.error)) == ("r0", LLMConnectionError)


async def test_where_no_key_is_left_the_run_stops_at_once_and_calls_in_flight_may_end(manager_of: Opened) -> None:
    clock, keep = FakeClock(auto=True), Kept()

    class Slow(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            seconds = {"question 0": 5.0, "question 1": 60.0}.get(str(request.messages[0].content))
            if seconds is None:
                await clock.sleep(1.0)
                raise LLMAuthenticationError("this key is refused")
            await clock.sleep(seconds)
            return LLMResponse(content="paid")

    async with manager_of(Slow(), clock=clock) as manager:
        with pytest.raises(LLMAuthenticationError, match="refused"):
            await workers(manager, keep, clock=clock, concurrency=4).run(portions(*map(chat, range(9))))
        assert clock.now() == pytest.approx(11.0)
    assert keep.ids == ["r0"]


async def test_who_pauses_when_the_run_stops_is_woken(manager_of: Opened) -> None:
    clock, keep = FakeClock(auto=True), Kept()

    class Half(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            if request.messages[0].content == "question 0":
                raise LLMConnectionError("later", retry_after=300.0)
            await clock.sleep(1.0)
            raise LLMAuthenticationError("this key is refused")

    async with manager_of(Half(), clock=clock) as manager:
        timers = clock.timers
        with pytest.raises(LLMAuthenticationError):
            await workers(manager, keep, clock=clock, concurrency=2).run(portions(*map(chat, range(9))))
        assert clock.now() == pytest.approx(1.0)
        assert clock.timers == timers
    assert keep.ids == []


async def test_where_the_run_does_not_stop_trouble_is_the_rows_end_after_patience(manager_of: Opened) -> None:
    clock, keep = FakeClock(auto=True), Kept()
    provider = FakeProvider(lambda _: LLMConnectionError("nobody is there"), clock=clock)
    async with manager_of(provider, clock=clock) as manager:
        run = workers(manager, keep, clock=clock, patience=10.0, stops=False)
        await run.run(portions(*map(chat, range(20))))
        assert clock.now() == pytest.approx(10.0)
    assert len(keep.ids) == 20
    assert {type(wrapper.error) for wrapper in keep.wrappers} == {LLMConnectionError}


@pytest.mark.parametrize("stops", [True, False])
async def test_a_manager_that_is_closed_is_not_waited_for(manager_of: Opened, *, stops: bool) -> None:
    clock, keep = FakeClock(auto=True), Kept()
    async with manager_of(FakeProvider("yes", clock=clock), clock=clock) as manager:
        await manager.close()
        run = workers(manager, keep, clock=clock, stops=stops, lasting=lambda: manager.closed)
        if stops:
            with pytest.raises(LLMPoolExhaustedError, match="closed"):
                await run.run(portions(*map(chat, range(3))))
        else:
            await run.run(portions(*map(chat, range(3))))
    assert len(keep.ids) == (0 if stops else 3)
    assert clock.now() == 0.0


async def test_what_deliver_raises_ends_the_run_and_the_calls_in_flight(manager_of: Opened) -> None:
    provider, keep = FakeProvider(latency=0.001), Kept()

    async def deliver(row: Row | BadRow, wrapper: ResponseWrapper) -> None:
        if row.order == 3:
            raise OSError(28, "No space left on device")
        await keep(row, wrapper)

    async with manager_of(provider) as manager:
        run = Workers(manager.get_client(), deliver=deliver, tracker=Heard(), clock=SystemClock(), concurrency=2)
        with pytest.raises(OSError, match="No space left"):
            await run.run(portions(*map(chat, range(50))))
        assert provider.in_flight == 0
    assert {"r0", "r1"} <= set(keep.ids)
    assert provider.calls <= 6


async def test_what_the_reader_raises_ends_the_run(manager_of: Opened) -> None:
    async def reader() -> AsyncIterator[Sequence[Row | BadRow]]:
        yield [chat(0)]
        raise OSError(5, "Input/output error")

    keep = Kept()
    async with manager_of(FakeProvider("yes")) as manager:
        with pytest.raises(OSError, match="Input/output"):
            await workers(manager, keep, concurrency=1).run(reader())
    assert keep.ids == ["r0"]


async def test_cancelling_ends_all_calls_at_once_and_leaves_nothing(manager_of: Opened) -> None:
    provider, keep = FakeProvider("yes", latency=60.0), Kept()
    async with manager_of(provider) as manager:
        task = asyncio.create_task(workers(manager, keep).run(portions(*map(chat, range(9)))))
        await until(lambda: provider.in_flight == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert provider.in_flight == 0
        assert manager.get_status()["pool"]["calls"] == 0
    assert keep.ids == []


async def test_a_worker_ends_also_where_the_provider_swallows_its_cancellation(manager_of: Opened) -> None:
    class Stubborn(FakeProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            self.requests.append(request)
            try:
                await SystemClock().sleep(60.0)
            except asyncio.CancelledError:
                if request.messages[0].content == "question 0":
                    return LLMResponse(content="paid")
                raise RuntimeError("on the way out") from None
            raise AssertionError

    provider, keep = Stubborn(), Kept()
    async with manager_of(provider) as manager:
        task = asyncio.create_task(workers(manager, keep, concurrency=2).run(portions(*map(chat, range(9)))))
        await until(lambda: provider.calls == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (keep.ids, provider.calls) == (["r0"], 2)


async def test_a_reload_in_the_middle_loses_no_row(manager_of: Opened) -> None:
    provider, keep = FakeProvider("yes", latency=0.002), Kept()
    async with manager_of(provider) as manager:
        task = asyncio.create_task(workers(manager, keep).run(portions(*map(chat, range(40)))))
        for _ in range(3):
            await SystemClock().sleep(0.005)
            await manager.reload()
        await task
    assert sorted(keep.ids) == sorted(f"r{number}" for number in range(40))
    assert all(wrapper.response is not None for wrapper in keep.wrappers)


async def test_where_it_is_given_up_nobody_waits_for_rows_that_are_long_in_coming(manager_of: Opened) -> None:
    async def slow() -> AsyncIterator[Sequence[Row | BadRow]]:
        yield [chat(1)]
        await asyncio.Event().wait()

    def refuse(_: LLMRequest) -> LLMAuthenticationError:
        return LLMAuthenticationError("this key is refused")

    provider, keep = FakeProvider(refuse, latency=0.01), Kept()
    async with manager_of(provider) as manager, SystemClock().timeout(PATIENCE):
        with pytest.raises(LLMAuthenticationError):
            await workers(manager, keep).run(slow())
    assert keep.ids == []
