"""A stream as a result: one outcome, told once, however it is read, left, broken or forgotten."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

from llm import (
    LLMConnectionError,
    LLMResponse,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    StreamChunk,
    TokenUsage,
    ToolCall,
)
from llm.core.messages import ThinkingPart
from llm.core.source import Replay
from llm.core.stream import LLMStream, as_stream, at_end
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.outcome import EndHook
    from llm.core.stream import LLMResult


class Pieces:
    """A source that a test plays by hand: chunks, exceptions to raise, and `...` to wait until it is closed."""

    id = "answer-1"
    model = "m"

    def __init__(self, *pieces: object, data_waits: bool = False) -> None:
        self.pieces = list(pieces)
        self.closed = 0
        self.data_waits = data_waits
        self.read = asyncio.Event()
        self._broken: asyncio.Future[StreamChunk] | None = None

    async def __anext__(self) -> StreamChunk:
        self.read.set()
        piece = self.pieces.pop(0) if self.pieces else StopAsyncIteration()
        if piece is ...:
            self._broken = asyncio.get_running_loop().create_future()
            return await self._broken
        if isinstance(piece, BaseException):
            raise piece
        return StreamChunk(str(piece))

    def waiting(self) -> bool:
        return self.data_waits

    def close(self) -> None:
        self.closed += 1
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(LLMConnectionError("closed while it was read", sent=True))

    def come(self, text: str) -> None:
        assert self._broken is not None
        self._broken.set_result(StreamChunk(text))


async def tick() -> None:
    await SystemClock().sleep(0)


class Ends:
    """Hears outcomes."""

    def __init__(self) -> None:
        self.heard: list[tuple[LLMResponse | None, BaseException | None]] = []

    def __call__(self, response: LLMResponse | None, error: BaseException | None) -> None:
        self.heard.append((response, error))


def observed(*pieces: object, data_waits: bool = False) -> tuple[LLMStream, Pieces, Ends]:
    source, ends = Pieces(*pieces, data_waits=data_waits), Ends()
    stream = LLMStream(source, provider="p", key="key-1")
    stream.on_end(ends)
    return stream, source, ends


def lazily(opened: LLMResult) -> LLMStream:
    async def opener() -> LLMResult:
        return opened

    return LLMStream.lazy(opener)


async def texts(stream: LLMStream) -> list[str]:
    return [str(chunk) async for chunk in stream]


async def test_a_whole_stream_gives_its_chunks_and_then_the_whole_response() -> None:
    stream, source, ends = observed("a", "b")
    assert await texts(stream) == ["a", "b"]
    response = await stream.response()
    assert (response.content, response.id, response.model, response.provider, response.key) == (
        "ab", "answer-1", "m", "p", "key-1",
    )  # fmt: skip
    assert ends.heard == [(response, None)]
    assert source.closed == 1
    assert await texts(stream) == []


async def test_response_after_a_part_was_read_is_whole() -> None:
    stream, _, _ = observed("a", "b", "c")
    assert str(await anext(stream)) == "a"
    assert (await stream.response()).content == "abc"


async def test_it_opens_on_first_use_only() -> None:
    opened: list[str] = []

    async def opener() -> LLMResult:
        opened.append("opened")
        return LLMStream(Pieces("a"))

    stream = LLMStream.lazy(opener)
    assert opened == []
    assert await texts(stream) == ["a"]
    assert opened == ["opened"]


async def test_begin_keeps_the_first_chunk_for_its_reader() -> None:
    stream, _, _ = observed("a", "b")
    assert await stream.begin() is stream
    assert await stream.begin() is stream
    assert stream.text == "a"
    assert await texts(stream) == ["a", "b"]


async def test_an_answer_without_a_chunk_is_whole_too() -> None:
    stream, _, ends = observed()
    assert (await (await stream.begin()).response()).content == ""
    assert len(ends.heard) == 1


async def test_leaving_by_async_with_closes_the_source_and_is_told_as_left() -> None:
    outer_stream, source, ends = observed("a", "b")
    async with lazily(outer_stream) as stream:
        assert str(await anext(stream)) == "a"
    assert source.closed == 1
    assert [type(error) for _, error in ends.heard] == [GeneratorExit]


async def test_aclose_before_the_first_use_never_opens_it() -> None:
    stream = lazily(LLMResponse(content="never"))
    await stream.aclose()
    assert await texts(stream) == []
    with pytest.raises(LLMStreamInterruptedError, match="closed before its end"):
        await stream.response()


async def test_response_after_leaving_raises_and_holds_what_came() -> None:
    stream, _, _ = observed("a", "b")
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(LLMStreamInterruptedError) as failure:
        await stream.response()
    assert failure.value.partial == "a"


async def test_after_leaving_not_even_the_chunk_in_hand_comes() -> None:
    stream, _, _ = observed("a", "b")
    await stream.begin()
    await stream.aclose()
    assert await texts(stream) == []


async def test_break_and_a_freed_reference_close_the_source() -> None:
    inner, source, ends = observed("a", "b")
    stream = lazily(inner)
    del inner
    async for _ in stream:
        break
    del stream
    assert source.closed == 1
    assert [type(error) for _, error in ends.heard] == [GeneratorExit]


async def test_a_stream_in_a_cycle_is_closed_when_the_collector_frees_it() -> None:
    stream, source, ends = observed("a", "b")
    await stream.begin()
    ring: list[object] = [stream]
    ring.append(ring)
    del stream, ring
    gc.collect()
    assert source.closed == 1
    assert len(ends.heard) == 1


async def test_freed_by_another_thread_it_is_closed_in_its_own_loop() -> None:
    where: list[threading.Thread] = []
    inner, source, ends = observed("a", "b")
    inner.watch(FakeClock(), idle=5, deadline=None)
    inner.on_end(lambda _response, _error: where.append(threading.current_thread()))
    box = [lazily(inner)]
    await anext(box[0])
    del inner
    await asyncio.to_thread(box.clear)
    await tick()
    assert where == [threading.current_thread()]
    assert source.closed == 1
    assert isinstance(ends.heard[0][1], GeneratorExit)


def test_freed_after_its_loop_was_closed_it_touches_nothing_of_it() -> None:
    async def opened() -> tuple[LLMStream, Pieces, Ends]:
        stream, source, ends = observed("a", "b")
        stream.watch(FakeClock(), idle=5, deadline=None)
        await anext(stream)
        return stream, source, ends

    stream, source, ends = asyncio.run(opened())
    del stream
    assert (source.closed, ends.heard) == (0, [])


async def test_two_readers_are_refused_while_it_is_read_and_while_it_opens() -> None:
    stream, source, _ = observed(...)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(texts(stream))
        await source.read.wait()
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(stream)
        source.come("a")
    assert first.result() == ["a"]

    gate = asyncio.Event()

    async def opener() -> LLMResult:
        await gate.wait()
        return LLMResponse(content="a")

    late = LLMStream.lazy(opener)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(texts(late))
        await tick()
        with pytest.raises(RuntimeError, match="one reader"):
            await late.response()
        gate.set()
    assert task.result() == ["a"]


async def test_an_error_in_the_middle_is_the_same_on_every_further_read_and_holds_what_came() -> None:
    broken = LLMStreamInterruptedError("cut")
    stream, source, ends = observed("a", "b", broken)
    with pytest.raises(LLMStreamInterruptedError) as first:
        await texts(stream)
    for read in (stream.__anext__, stream.response):
        with pytest.raises(LLMStreamInterruptedError) as again:
            await read()
        assert again.value is first.value is broken
    assert broken.partial == "ab"
    assert ends.heard == [(None, broken)]
    assert source.closed == 1


async def test_an_opening_that_failed_fails_on_every_further_read() -> None:
    async def opener() -> LLMResult:
        raise LLMServerError("down")

    stream = LLMStream.lazy(opener)
    for _ in range(2):
        with pytest.raises(LLMServerError, match="down"):
            await anext(stream)
    with pytest.raises(LLMServerError, match="down"):
        await stream.response()


async def test_a_cancelled_read_closes_it_and_a_further_read_is_no_cancellation() -> None:
    stream, source, ends = observed("a", ...)
    await anext(stream)
    task = asyncio.create_task(anext(stream))
    source.read.clear()
    await source.read.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 1
    assert [type(error) for _, error in ends.heard] == [asyncio.CancelledError]
    with pytest.raises(LLMStreamInterruptedError, match="cancelled") as failure:
        await anext(stream)
    assert failure.value.partial == "a"


async def test_who_is_left_behind_in_a_read_gets_an_error_and_not_an_end() -> None:
    stream, source, ends = observed("a", ...)
    await anext(stream)
    task = asyncio.create_task(anext(stream))
    source.read.clear()
    await source.read.wait()
    await stream.aclose()
    with pytest.raises(LLMStreamInterruptedError, match="left while it was read"):
        await task
    assert len(ends.heard) == 1


async def test_left_while_it_opens_it_is_closed_as_soon_as_it_is_open_and_its_reader_is_told() -> None:
    gate = asyncio.Event()
    inner, source, ends = observed("a")

    async def opener() -> LLMResult:
        await gate.wait()
        return inner

    stream = LLMStream.lazy(opener)
    task = asyncio.create_task(texts(stream))
    await tick()
    await stream.aclose()
    gate.set()
    with pytest.raises(LLMStreamInterruptedError, match="left while it opened"):
        await task
    assert source.closed == 1
    assert len(ends.heard) == 1


@pytest.mark.parametrize("interrupted", [False, True])
async def test_ended_while_it_opens_it_stops_the_opener_and_its_reader_is_told(*, interrupted: bool) -> None:
    stops: asyncio.Queue[BaseException] = asyncio.Queue()

    async def opener() -> LLMResult:
        raise await stops.get()

    stream, ends = LLMStream.lazy(opener, stop=stops.put_nowait), Ends()
    stream.on_end(ends)
    task = asyncio.create_task(texts(stream))
    await tick()
    if interrupted:
        stream.interrupt(LLMServerError("enough"))
    else:
        await stream.aclose()
    await tick()
    await tick()
    assert task.done()
    with pytest.raises(LLMServerError if interrupted else LLMStreamInterruptedError, match=r"enough|while it opened"):
        await task
    assert len(ends.heard) == 1
    assert isinstance(ends.heard[0][1], LLMServerError if interrupted else GeneratorExit)


async def test_an_open_stream_stops_no_opener() -> None:
    stops: list[BaseException] = []

    async def opener() -> LLMResult:
        return LLMStream(Pieces("a", "b"))

    stream = LLMStream.lazy(opener, stop=stops.append)
    await anext(stream)
    await stream.aclose()
    assert stops == []


@pytest.mark.parametrize("lazy", [False, True])
async def test_an_interruption_reaches_whoever_reads_also_through_the_stream_that_was_opened(*, lazy: bool) -> None:
    inner, source, ends = observed("a", ...)
    stream = await lazily(inner).begin() if lazy else inner
    assert str(await anext(stream)) == "a"
    task = asyncio.create_task(anext(stream))
    source.read.clear()
    await source.read.wait()
    reason = LLMConnectionError("the manager was closed", sent=True)
    inner.interrupt(reason)
    with pytest.raises(LLMConnectionError) as failure:
        await task
    assert failure.value is reason
    assert ends.heard == [(None, reason)]
    assert task.cancelling() == 0


@pytest.mark.parametrize("lazy", [False, True])
async def test_an_interruption_between_two_reads_is_told_at_once_and_by_the_next_read(*, lazy: bool) -> None:
    inner, source, ends = observed("a", "b")
    stream = await lazily(inner).begin() if lazy else inner
    await anext(stream)
    reason = LLMConnectionError("the manager was closed", sent=True)
    inner.interrupt(reason)
    inner.interrupt(LLMConnectionError("and again", sent=True))
    assert ends.heard == [(None, reason)]
    assert source.closed == 1
    with pytest.raises(LLMConnectionError) as failure:
        await anext(stream)
    assert failure.value is reason


async def test_an_interruption_in_the_moment_a_chunk_comes_loses_neither() -> None:
    stream, source, ends = observed(...)
    task = asyncio.create_task(anext(stream))
    await source.read.wait()
    source.come("a")
    reason = LLMConnectionError("the manager was closed", sent=True)
    stream.interrupt(reason)
    assert str(await task) == "a"
    assert ends.heard == [(None, reason)]
    with pytest.raises(LLMConnectionError):
        await anext(stream)


async def test_hooks_are_told_once_innermost_first_and_late_ones_at_once() -> None:
    stream, _, _ = observed("a")
    order: list[str] = []

    def named(name: str) -> EndHook:
        return lambda _response, _error: order.append(name)

    at_end(stream, named("inner"))
    at_end(stream, named("outer"))
    await stream.response()
    await stream.aclose()
    assert order == ["inner", "outer"]
    at_end(stream, named("late"))
    assert order == ["inner", "outer", "late"]


async def test_an_observers_failure_fails_neither_the_call_nor_the_other_observers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream, _, _ = observed("a")

    def bad(_response: LLMResponse | None, _error: BaseException | None) -> None:
        raise ZeroDivisionError

    after = Ends()
    stream.on_end(bad)
    stream.on_end(after)
    assert (await stream.response()).content == "a"
    assert len(after.heard) == 1
    assert at_end(LLMResponse(content="b"), bad) == LLMResponse(content="b")
    assert [record.name for record in caplog.records] == ["llm.stream", "llm.stream"]


async def test_a_response_that_cannot_be_completed_is_a_failure_that_all_hear_of() -> None:
    stream, source, ends = observed("a")

    def finish(_: LLMResponse) -> LLMResponse:
        raise LLMServerError("no sense")

    stream.finish_with(finish)
    with pytest.raises(LLMServerError, match="no sense"):
        await stream.response()
    assert [type(error) for _, error in ends.heard] == [LLMServerError]
    assert source.closed == 1


async def test_a_source_that_fails_as_it_is_closed_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Sticky(Pieces):
        def close(self) -> None:
            raise ZeroDivisionError

    ends = Ends()
    stream = LLMStream(Sticky("a", "b"))
    stream.on_end(ends)
    await anext(stream)
    await stream.aclose()
    assert len(ends.heard) == 1
    assert [record.name for record in caplog.records] == ["llm.stream"]


# --- time ---------------------------------------------------------------------------------------------------------


async def test_nothing_for_idle_seconds_ends_a_read_as_idle() -> None:
    clock = FakeClock()
    stream, source, ends = observed("a", ...)
    stream.watch(clock, idle=10.0, deadline=None)
    await anext(stream)
    task = asyncio.create_task(anext(stream))
    await clock.advance(9.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(LLMTimeoutError) as failure:
        await task
    assert failure.value.phase == "idle"
    assert source.closed >= 1
    assert len(ends.heard) == 1
    assert clock.timers == 0


async def test_a_stream_that_is_left_in_the_turn_in_which_it_was_interrupted_ends_as_that() -> None:
    stream, _, ends = observed(...)
    task = asyncio.create_task(anext(stream))
    await tick()
    reason = LLMTimeoutError("nothing came", phase="idle")
    stream.interrupt(reason)
    stream.leave()
    with pytest.raises(LLMTimeoutError):
        await task
    assert ends.heard == [(None, reason)]


async def test_idle_seconds_are_over_when_their_timer_says_so_whatever_their_difference_is_rounded_to() -> None:
    clock = FakeClock(0.03)
    assert (0.03 + 0.3) - 0.03 < 0.3
    stream, _, _ = observed(...)
    stream.watch(clock, idle=0.3, deadline=None)
    task = asyncio.create_task(anext(stream))
    await clock.advance(0.3)
    with pytest.raises(LLMTimeoutError):
        await task


async def test_a_stream_that_is_not_read_with_data_waiting_is_closed_as_abandoned() -> None:
    clock = FakeClock()
    stream, source, ends = observed("a", "b", data_waits=True)
    stream.watch(clock, idle=10.0, deadline=None)
    await anext(stream)
    await clock.advance(10.1)
    assert source.closed == 1
    assert len(ends.heard) == 1
    with pytest.raises(LLMTimeoutError, match="not read"):
        await anext(stream)
    assert clock.timers == 0


async def test_a_stream_that_is_not_read_with_nothing_waiting_stays_open() -> None:
    clock = FakeClock()
    stream, source, _ = observed("a", "b")
    stream.watch(clock, idle=10.0, deadline=None)
    await anext(stream)
    await clock.advance(100.0)
    assert source.closed == 0
    assert await texts(stream) == ["b"]


async def test_a_stream_that_is_read_now_and_then_lives_on() -> None:
    clock = FakeClock()
    stream, _, _ = observed(*"abcdef", data_waits=True)
    stream.watch(clock, idle=10.0, deadline=None)
    got = ""
    for _ in range(6):
        got += str(await anext(stream))
        await clock.advance(8.0)
    assert got == "abcdef"


@pytest.mark.parametrize("reading", [False, True])
async def test_the_deadline_ends_it_whether_it_is_read_or_not(*, reading: bool) -> None:
    clock = FakeClock()
    stream, source, ends = observed("a", ...)
    stream.watch(clock, idle=60.0, deadline=20.0)
    await anext(stream)
    task = asyncio.create_task(anext(stream)) if reading else None
    await clock.advance(20.1)
    if task is None:
        task = asyncio.create_task(anext(stream))
    with pytest.raises(LLMTimeoutError) as failure:
        await task
    assert failure.value.phase == "total"
    assert source.closed >= 1
    assert len(ends.heard) == 1
    assert clock.timers == 0


async def test_a_lazy_stream_keeps_the_times_of_the_one_it_opened() -> None:
    clock = FakeClock()
    inner, _, _ = observed("a", ...)
    inner.watch(clock, idle=5.0, deadline=None)
    stream = await lazily(inner).begin()
    assert clock.timers == 1
    await anext(stream)
    task = asyncio.create_task(anext(stream))
    await clock.advance(5.1)
    with pytest.raises(LLMTimeoutError):
        await task


async def test_a_deadline_is_set_where_the_source_has_none_and_kept_where_it_has() -> None:
    clock = FakeClock()
    stored = LLMStream(Replay([StreamChunk("a"), StreamChunk("b")]))
    stored.limit(clock, 5.0)
    stored.limit(clock, 50.0)
    await anext(stored)
    await clock.advance(5.1)
    with pytest.raises(LLMTimeoutError):
        await anext(stored)


async def test_a_watched_stream_that_nobody_holds_is_freed_and_closed() -> None:
    clock = FakeClock()
    stream, source, _ = observed("a", "b")
    stream.watch(clock, idle=5.0, deadline=None)
    await stream.begin()
    del stream
    assert source.closed == 1
    await clock.advance(6.0)
    assert clock.timers == 0


# --- a response as a stream ------------------------------------------------------------------------------------------


async def test_a_response_as_a_stream_ends_as_that_very_response() -> None:
    call = ToolCall("t1", "look", '{"at": 1}')
    response = LLMResponse(
        "id", "text", "m", "p", TokenUsage(3, 4), "tool_calls", (call,), thinking=(ThinkingPart("hm", "sig"),)
    )
    stream = as_stream(response)
    assert as_stream(stream) is stream
    chunks: list[StreamChunk] = [chunk async for chunk in stream]
    assert [chunk.content for chunk in chunks] == ["", "text"]
    assert chunks[-1].tool_calls[0].arguments == '{"at": 1}'
    assert await stream.response() is response
    assert stream.usage == TokenUsage(3, 4)


async def test_its_text_is_the_first_choices_and_all_text_is_every_choices() -> None:
    stream = LLMStream(Replay([StreamChunk("a"), StreamChunk("A", index=1), StreamChunk("b")]))
    assert str(await stream.response()) == stream.text == "ab"
    assert stream.all_text == "aAb"


async def test_what_a_source_knows_beside_its_chunks_is_in_the_response() -> None:
    class Knowing(Replay):
        def __init__(self) -> None:
            super().__init__([StreamChunk("a")])
            self.raw = {"service_tier": "flex"}

    assert (await LLMStream(Knowing()).response()).raw == {"service_tier": "flex"}
    assert (await LLMStream(Replay([StreamChunk("a")])).response()).raw is None


async def test_a_replay_that_is_left_has_nothing_more() -> None:
    replay = Replay([StreamChunk("a"), StreamChunk("b")])
    assert not replay.waiting()
    stream = LLMStream(replay)
    await anext(stream)
    await stream.aclose()
    assert await _rest(replay) == []


async def _rest(replay: Replay) -> Iterable[StreamChunk]:
    try:
        return [await replay.__anext__()]
    except StopAsyncIteration:
        return []
