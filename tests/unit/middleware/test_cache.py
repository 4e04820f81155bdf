from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from llm.cache.key import cache_key
from llm.cache.memory import InMemoryCache
from llm.core.call import Call
from llm.core.choices import TokenLogprob
from llm.core.exceptions import (
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.stream import LLMStream, at_end
from llm.core.types import CachePolicy, LLMRequest, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta
from llm.middleware.cache import CacheMiddleware
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from llm.cache.base import CacheBackend, CacheEntry
    from llm.core.exceptions import TimeoutPhase
    from llm.core.stream import LLMResult
    from llm.core.types import CacheScope

KINDS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


Said: TypeAlias = "str | Sequence[Any] | Callable[[LLMRequest], LLMResponse | Exception] | None"


class Rig:
    """The layer between what stands for the client with its retries, and a scripted provider."""

    def __init__(  # noqa: PLR0913 - what a test may vary
        self,
        answers: Said = None,
        *,
        backend: CacheBackend | None = None,
        scope: CacheScope = "shared",
        single_flight: bool = True,
        streams: bool = True,
        idle: float | None = None,
        latency: float = 1.0,
        interval: float = 0.0,
        slow: bool = False,
    ) -> None:
        self.clock = FakeClock(auto=True)
        self.provider = FakeProvider(
            answers, name="fake", latency=latency, interval=interval, clock=self.clock, chunk_size=4, key="key-0"
        )
        own = Slow(clock=self.clock) if slow else InMemoryCache(clock=self.clock)
        self.backend = own if backend is None else backend
        self.outbox: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []
        self.layer = CacheMiddleware(
            self.backend,
            provider="fake",
            clock=self.clock,
            ttl=60,
            scope=scope,
            single_flight=single_flight,
            streams=streams,
            spawn=self.spawn,
            idle=idle,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.outbox.add(task)
        task.add_done_callback(self.outbox.discard)

    async def dispatch(self, request: LLMRequest) -> LLMResult:
        if not request.stream:
            return await self.provider.complete(request)
        stream = await self.provider.stream(request)
        stream.watch(
            self.clock, idle=None, deadline=request.call.deadline if request.call else None
        )  # as the pool does
        return stream

    async def ask(
        self,
        text: str = "What is it?",
        *,
        tries: int = 1,
        timeout: float | None = None,  # noqa: ASYNC109 - the call's own
        priority: int = 0,
        recorded: bool = True,
        **options: Any,  # noqa: ANN401 - a request's
    ) -> Any:  # noqa: ANN401 - a response, or a stream, as was asked for
        now = self.clock.now()
        deadline = None if timeout is None else now + timeout
        call = Call(now, deadline=deadline, user=options.get("user"), priority=priority)
        self.calls.append(call)
        request = LLMRequest(text, call=call if recorded else None, **options)
        try:
            result = await self.in_time(request, call, tries, timeout)
        except BaseException as error:
            call.ended(self.clock.now(), error)
            raise
        return at_end(result, lambda _, error: call.ended(self.clock.now(), error))

    async def in_time(self, request: LLMRequest, call: Call, tries: int, seconds: float | None) -> LLMResult:
        try:
            async with self.clock.timeout(seconds):
                return await self.repeat(request, call, tries)
        except TimeoutError:
            raise LLMTimeoutError("the call's time is over", phase="total") from None

    async def repeat(self, request: LLMRequest, call: Call, tries: int) -> LLMResult:
        for left in reversed(range(tries)):
            try:
                return await self.layer(request, self.dispatch)
            except LLMException as error:
                if not left or not error.retryable or not call.retryable:
                    raise
                await self.clock.sleep(1)
        raise AssertionError

    def start(self, text: str = "What is it?", **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - a request's
        return asyncio.create_task(self.ask(text, **options))

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            await self.clock.sleep(0)

    async def rest(self) -> None:
        """Let everything that can go on go on."""
        await self.tick(30)

    async def assert_nothing_left(self) -> None:
        await self.rest()
        gc.collect()
        await self.rest()
        assert self.layer.flights == 0
        assert self.provider.in_flight == 0
        assert not self.outbox


async def whole(result: object) -> LLMResponse:
    response = await result.response() if isinstance(result, LLMStream) else result
    assert isinstance(response, LLMResponse)
    return response


async def answers_of(tasks: Iterable[asyncio.Task[Any]]) -> list[LLMResponse]:
    return [await whole(await task) for task in tasks]


@dataclass
class Broken:
    """A backend of which every call raises."""

    asked: int = 0

    async def fail(self, *_: object, **__: object) -> Any:  # noqa: ANN401 - it never returns
        self.asked += 1
        raise ConnectionResetError("gone")

    get = get_many = put = exists = delete = clear = remove = usage = close = fail

    async def scan(self, *_: object, **__: object) -> AsyncIterator[tuple[str, CacheEntry]]:
        yield await self.fail()


class Slow(InMemoryCache):
    """A backend that lets others run before it answers."""

    async def get(self, key: str) -> CacheEntry | None:
        await self.turns()
        return await super().get(key)

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        await self.turns()
        await super().put(key, value, ttl=ttl, tags=tags)
        await self.turns()

    async def turns(self) -> None:
        for _ in range(3):
            await FakeClock().sleep(0)


# --- hits and misses


@KINDS
async def test_a_second_call_is_answered_from_the_cache_free_and_unsent(*, stream: bool) -> None:
    rig = Rig()
    first = await whole(await rig.ask(stream=stream))
    second = await whole(await rig.ask(stream=stream))
    assert rig.provider.calls == 1
    assert (first.cached, first.key) == (False, "key-0")
    assert second == replace(first, cached=True, cost=0.0, attempts=0, key=None, original_latency=1.0)
    assert rig.layer.stats.hits == 1
    await rig.assert_nothing_left()


@pytest.mark.parametrize("first", [False, True], ids=["unary first", "stream first"])
async def test_streams_and_unary_calls_serve_each_other(*, first: bool) -> None:
    rig = Rig(answers="a longer answer, of several chunks")
    told = await whole(await rig.ask(stream=first))
    again = await rig.ask(stream=not first)
    assert isinstance(again, LLMStream) is not first
    response = await whole(again)
    assert (response.content, response.usage, response.finish_reason) == (told.content, told.usage, told.finish_reason)
    assert rig.provider.calls == 1


async def test_a_stream_is_replayed_without_loss() -> None:
    pieces = [
        StreamChunk(thinking=ThinkingPart("hm", None)),
        StreamChunk(thinking=ThinkingPart("", "signed")),
        StreamChunk("Straße "),
        StreamChunk("", (ToolCallDelta(0, "c1", "look", '{"a"'), ToolCallDelta(1, "c2", "find", ""))),
        StreamChunk("", (ToolCallDelta(1, None, None, "{}"), ToolCallDelta(0, None, None, ":1}"))),
        StreamChunk(finish_reason="tool_calls"),
        StreamChunk(usage=TokenUsage(5, 7, 2, 1)),
    ]
    rig = Rig([pieces])
    first = [chunk async for chunk in await rig.ask(stream=True)]
    await rig.rest()
    again = await rig.ask(stream=True)
    assert [chunk async for chunk in again] == first == pieces
    assert (await again.response()).tool_calls == (ToolCall("c1", "look", '{"a":1}'), ToolCall("c2", "find", "{}"))
    unary = await rig.ask()
    assert unary == await again.response()


async def test_choices_probabilities_and_refusals_are_replayed_without_loss() -> None:
    pieces = [
        StreamChunk("one", logprobs=(TokenLogprob("one", -0.5, b"one", (TokenLogprob("two", -1.5),)),)),
        StreamChunk("zwei", index=1),
        StreamChunk("no", refused=True, index=1),
        StreamChunk(" more"),
        StreamChunk(finish_reason="length", index=1),
        StreamChunk(finish_reason="stop"),
        StreamChunk(usage=TokenUsage(5, 7, 2, 1)),
    ]
    rig = Rig([pieces])
    first = await rig.ask(stream=True)
    assert [chunk async for chunk in first] == pieces
    await rig.rest()
    again = await rig.ask(stream=True)
    assert [chunk async for chunk in again] == pieces
    assert (await again.response()).choices == (await first.response()).choices
    unary = await rig.ask()
    assert [choice.finish_reason for choice in unary.choices] == ["stop", "length"]
    assert unary == await again.response()
    assert rig.provider.calls == 1


async def test_a_stream_that_fails_after_its_last_word_is_never_kept() -> None:
    broken = [StreamChunk("all"), StreamChunk(finish_reason="stop"), LLMStreamInterruptedError("no closing event")]
    rig = Rig([broken, "whole"])
    with pytest.raises(LLMStreamInterruptedError):
        await whole(await rig.ask(stream=True))
    await rig.rest()
    assert (await whole(await rig.ask(stream=True))).content == "whole"
    await rig.rest()
    assert rig.layer.stats.stored == 1


@KINDS
async def test_what_the_provider_took_is_told_of_hits_and_of_followers(*, stream: bool) -> None:
    rig = Rig(latency=3.0)
    leader = rig.start(stream=stream)
    await rig.clock.sleep(1)
    first, follower = await answers_of([leader, rig.start(stream=stream)])
    await rig.rest()
    hit = await whole(await rig.ask(stream=stream))
    assert (first.original_latency, first.cached) == (None, False)
    assert (follower.original_latency, hit.original_latency) == (3.0, 3.0)
    assert (await whole(await rig.ask(stream=not stream))).original_latency == 3.0


async def test_the_pause_of_a_reader_is_no_time_that_the_provider_took() -> None:
    rig = Rig("x" * 400, latency=1.0)
    stream = await rig.ask(stream=True)
    await anext(stream)
    await rig.clock.sleep(100)
    await stream.response()
    await rig.rest()
    assert (await rig.ask()).original_latency == 1.0


async def test_an_entry_ends_with_its_time_to_live() -> None:
    rig = Rig(latency=0)
    await rig.ask()
    await rig.clock.advance(59.9)
    assert (await rig.ask()).cached
    await rig.clock.advance(0.2)
    assert not (await rig.ask()).cached


async def test_a_call_says_how_long_its_answer_may_be_used() -> None:
    rig = Rig(latency=0)
    await rig.ask(cache=CachePolicy(ttl=5))
    await rig.clock.advance(6)
    assert not (await rig.ask()).cached


async def test_a_call_refuses_answers_older_than_it_says() -> None:
    rig = Rig(latency=0)
    await rig.ask()
    await rig.clock.advance(6)
    assert not (await rig.ask(cache=CachePolicy(ttl=5))).cached


@KINDS
async def test_who_waits_for_a_look_up_is_not_given_what_is_too_old_for_itself(*, stream: bool) -> None:
    rig = Rig(latency=0, slow=True)
    await whole(await rig.ask(stream=stream))
    await rig.clock.advance(6)
    tasks = [rig.start(stream=stream), rig.start(stream=stream, cache=CachePolicy(ttl=5))]
    assert [response.cached for response in await answers_of(tasks)] == [True, False]


async def test_refresh_asks_again_and_keeps_the_new_answer() -> None:
    rig = Rig(["old", "new"])
    await rig.ask()
    assert str(await rig.ask(cache=CachePolicy(refresh=True))) == "new"
    assert str(await rig.ask()) == "new"


@pytest.mark.parametrize("cache", [False, CachePolicy(ttl=0)])
async def test_a_call_that_wants_no_cache_gets_none(*, cache: CachePolicy | bool) -> None:
    rig = Rig()
    await rig.ask()
    assert not (await rig.ask(cache=cache)).cached
    assert rig.provider.calls == 2


async def test_streams_pass_by_where_they_are_switched_off() -> None:
    rig = Rig(streams=False)
    for _ in range(2):
        assert not (await whole(await rig.ask(stream=True))).cached
    assert rig.provider.calls == 2


async def test_what_has_no_key_passes_by() -> None:
    rig = Rig()
    for _ in range(2):
        assert not (await rig.ask(extra={"odd": object()})).cached


async def test_another_provider_or_model_never_answers() -> None:
    rig = Rig()
    other = CacheMiddleware(
        rig.backend, provider="other", clock=rig.clock, ttl=60, scope="shared", single_flight=True, streams=True,
        spawn=rig.spawn,
    )  # fmt: skip
    await rig.ask(model="m1")
    assert not (await rig.ask(model="m2")).cached
    result = await other(LLMRequest("What is it?", model="m1"), rig.dispatch)
    assert not (await whole(result)).cached
    assert not (await whole(await other(LLMRequest("What is it?", model="m1"), rig.dispatch))).cached  # not its own


async def test_with_tenant_scope_users_never_see_each_others_entries() -> None:
    rig = Rig(scope="user")
    await rig.ask(user="alice")
    assert not (await rig.ask(user="bob")).cached
    assert not (await rig.ask()).cached
    assert (await rig.ask(user="alice")).cached
    tasks = [rig.start("at once", user=user) for user in ("alice", "bob")]
    assert [response.cached for response in await answers_of(tasks)] == [False, False]


async def test_a_call_can_keep_its_answer_to_its_tenant() -> None:
    rig = Rig()
    await rig.ask(user="alice", cache=CachePolicy(scope="user"))
    assert not (await rig.ask(user="bob")).cached


async def test_without_single_flight_each_asks_for_itself_and_answers_are_kept() -> None:
    rig = Rig(single_flight=False)
    tasks = [rig.start(stream=stream) for stream in (False, True, False, True)]
    await answers_of(tasks)
    assert rig.provider.calls == 4
    await rig.rest()
    assert (await rig.ask()).cached


async def test_an_answer_that_is_forgotten_is_asked_for_again() -> None:
    rig = Rig(backend=Slow())
    for turns in (0, 1, 2, 20):  # also before it has reached the backend, and while it is on its way
        await rig.ask()
        await rig.tick(turns)
        await rig.layer.forget(LLMRequest("What is it?"))
        await rig.rest()
    assert not (await rig.ask()).cached
    assert rig.provider.calls == 5


# --- what is never kept


@KINDS
async def test_an_answer_that_stopped_for_its_content_is_never_kept(*, stream: bool) -> None:
    rig = Rig([LLMResponse(content="no", finish_reason="content_filter")] * 2)
    for _ in range(2):
        assert not (await whole(await rig.ask(stream=stream))).cached
        await rig.rest()


async def test_of_several_choices_none_may_have_stopped_for_its_content() -> None:
    pieces = [
        StreamChunk("one"),
        StreamChunk("zwei", index=1),
        StreamChunk(finish_reason="stop"),
        StreamChunk(finish_reason="content_filter", index=1),
    ]
    rig = Rig([pieces, pieces])
    for _ in range(2):
        assert not (await whole(await rig.ask(stream=True))).cached
        await rig.rest()


@KINDS
async def test_a_failure_is_never_kept(*, stream: bool) -> None:
    rig = Rig([LLMServerError("down"), "hello"])
    with pytest.raises(LLMServerError):
        await rig.ask(stream=stream)
    assert str(await whole(await rig.ask(stream=stream))) == "hello"
    await rig.rest()
    assert rig.layer.stats.stored == 1


async def test_a_partial_stream_is_never_kept() -> None:
    rig = Rig([["Hel", "lo", LLMStreamInterruptedError("cut")], "whole"])
    with pytest.raises(LLMStreamInterruptedError) as caught:
        await whole(await rig.ask(stream=True))
    assert caught.value.partial == "Hello"
    await rig.assert_nothing_left()
    assert str(await rig.ask()) == "whole"


async def test_a_stream_left_early_is_never_kept_and_closes_upstream() -> None:
    rig = Rig([["Hel", "lo", ...], "whole"])
    async with await rig.ask(stream=True) as stream:
        await anext(stream)
    await rig.tick(2)
    assert rig.provider.open_streams == 0
    await rig.assert_nothing_left()
    assert str(await rig.ask()) == "whole"


async def test_a_stream_that_nobody_holds_closes_upstream() -> None:
    rig = Rig([["Hel", "lo", ...]])
    stream = await rig.ask(stream=True)
    assert rig.provider.open_streams == 1
    del stream
    await rig.assert_nothing_left()
    assert rig.provider.open_streams == 0


# --- a backend that fails


@KINDS
async def test_a_broken_backend_makes_no_call_wrong(*, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    rig = Rig(backend=broken)
    with caplog.at_level(logging.WARNING, "llm.cache"):
        for _ in range(3):
            assert str(await whole(await rig.ask(stream=stream))) == "What is it?"
            await rig.rest()
    await rig.layer.forget(LLMRequest("What is it?"))
    assert rig.provider.calls == 3
    await rig.rest()
    assert rig.layer.stats.errors == broken.asked == 7
    assert len(caplog.records) == 1
    await rig.assert_nothing_left()


@pytest.mark.parametrize("value", [b"", b"garbage", b"\x80\x04K\x01.", b'{"v":99}', b'{"v":1}', b"[]", b"null"])
async def test_what_cannot_be_read_is_a_miss_and_is_repaired(value: bytes) -> None:
    rig = Rig()
    await rig.ask()
    await rig.rest()
    key = cache_key(LLMRequest("What is it?"), provider="fake", scope="shared", user=None)
    assert await rig.backend.exists(key)
    await rig.backend.put(key, value, ttl=60)
    assert str(await rig.ask()) == "What is it?"
    assert rig.provider.calls == 2
    assert (await rig.ask()).cached
    assert rig.layer.stats.errors == 1


async def test_an_answer_without_a_json_form_is_given_and_not_kept() -> None:
    rig = Rig([LLMResponse(content="half \ud83d", finish_reason="stop")] * 2)
    assert (await rig.ask()).content == "half \ud83d"
    await rig.rest()
    assert not (await rig.ask()).cached


# --- single flight


@KINDS
@pytest.mark.parametrize("slow", [False, True], ids=["quick backend", "slow backend"])
async def test_a_hundred_identical_calls_make_one_request(*, stream: bool, slow: bool) -> None:
    rig = Rig(backend=Slow() if slow else None, interval=0.5)
    tasks = [rig.start(stream=stream, user=str(n)) for n in range(100)]
    responses = await answers_of(tasks)
    assert rig.provider.calls == 1
    assert {response.content for response in responses} == {"What is it?"}
    assert [response.cached for response in responses] == [False] + [True] * 99
    assert {response.cost for response in responses[1:]} == {0.0}
    stats = rig.layer.stats
    assert (stats.misses, stats.followers, stats.hits) == (1, 99, 0)
    await rig.assert_nothing_left()


@KINDS
async def test_identical_calls_that_arrive_one_after_the_other_make_one_request(*, stream: bool) -> None:
    rig = Rig(backend=Slow(), latency=0)
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(40):
        tasks.append(rig.start(stream=stream))
        await rig.tick()
    await answers_of(tasks)
    assert rig.provider.calls == 1
    await rig.assert_nothing_left()


@KINDS
async def test_followers_stay_parked_through_the_leaders_retries(*, stream: bool) -> None:
    rig = Rig([LLMServerError("down"), LLMServerError("down"), "at last"])
    tasks = [rig.start(tries=3, stream=stream) for _ in range(5)]
    assert {str(response) for response in await answers_of(tasks)} == {"at last"}
    assert rig.provider.calls == 3
    await rig.assert_nothing_left()


@KINDS
async def test_a_final_error_goes_to_all_and_is_not_retried_again(*, stream: bool) -> None:
    rig = Rig([LLMServerError("down", status=500)] * 2)
    tasks = [rig.start(tries=2, stream=stream) for _ in range(5)]
    await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks]
    assert rig.provider.calls == 2
    assert [str(error) for error in errors] == ["down (status 500)"] * 5
    assert len({id(error) for error in errors}) == 5
    assert [call.retryable for call in rig.calls] == [True] + [False] * 4
    await rig.assert_nothing_left()


async def test_an_error_of_any_shape_reaches_followers_whole() -> None:
    rig = Rig([LLMTimeoutError("nothing came", phase="first_token", retryable=True)])
    tasks = [rig.start(stream=True) for _ in range(2)]
    await asyncio.wait(tasks)
    error = tasks[1].exception()
    assert isinstance(error, LLMTimeoutError)
    assert (error.phase, error.message) == ("first_token", "nothing came")


@KINDS
async def test_when_the_leader_is_cancelled_followers_are_answered_by_at_most_one_more_request(*, stream: bool) -> None:
    rig = Rig()
    leader, *followers = [rig.start(stream=stream) for _ in range(10)]
    await rig.tick(5)
    leader.cancel()
    assert {str(response) for response in await answers_of(followers)} == {"What is it?"}
    assert leader.cancelled()
    assert rig.provider.calls == 2
    await rig.assert_nothing_left()


@KINDS
async def test_a_leader_cancelled_between_its_attempts_hands_over(*, stream: bool) -> None:
    rig = Rig([LLMServerError("down"), "hello"])
    leader, *followers = [rig.start(tries=9, stream=stream) for _ in range(3)]
    await rig.clock.advance(1.5)
    leader.cancel()
    assert {str(response) for response in await answers_of(followers)} == {"hello"}
    assert rig.provider.calls == 2


@KINDS
async def test_a_leaders_deadline_ends_only_the_leader(*, stream: bool) -> None:
    rig = Rig(latency=3)
    leader, follower = rig.start(timeout=2, stream=stream), rig.start(stream=stream)
    with pytest.raises(LLMTimeoutError):
        await leader
    assert str(await whole(await follower)) == "What is it?"
    assert rig.provider.calls == 2


async def test_a_limit_of_the_leaders_user_ends_only_the_leader() -> None:
    rig = Rig([LLMRateLimitError("alice has spent it", scope="user"), "hello"])
    leader, follower = rig.start(user="alice"), rig.start(user="bob")
    with pytest.raises(LLMRateLimitError):
        await leader
    assert str(await follower) == "hello"


async def test_a_failure_that_the_leaders_deadline_kept_from_a_retry_ends_only_the_leader() -> None:
    rig = Rig([LLMServerError("down", retry_after=9.0), "hello"])
    leader, follower = rig.start(timeout=5), rig.start()
    with pytest.raises(LLMServerError):
        await leader
    assert str(await follower) == "hello"


@pytest.mark.parametrize("phase", ["pool", "total"])
async def test_a_deadline_that_passed_in_the_queue_ends_only_the_leader(phase: TimeoutPhase) -> None:
    rig = Rig([LLMTimeoutError("the call's time is over", phase=phase), "hello"])
    leader, follower = rig.start(), rig.start()
    with pytest.raises(LLMTimeoutError):
        await leader
    assert str(await follower) == "hello"


async def test_an_attempts_bound_is_the_providers_failure() -> None:
    rig = Rig([LLMTimeoutError("no answer came within 600 seconds", phase="total", retryable=True)])
    tasks = [rig.start() for _ in range(2)]
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), LLMTimeoutError) for task in tasks)


async def test_a_leaders_own_fault_ends_only_the_leader() -> None:
    rig = Rig([ValueError("a layer of the leader's own"), "hello"])
    leader, follower = rig.start(), rig.start()
    with pytest.raises(ValueError, match="own"):
        await leader
    assert str(await follower) == "hello"


@KINDS
async def test_a_followers_deadline_or_cancellation_ends_only_itself(*, stream: bool) -> None:
    rig = Rig(latency=3)
    leader, late, gone, patient = (
        rig.start(stream=stream), rig.start(timeout=1, stream=stream), rig.start(stream=stream),
        rig.start(stream=stream),
    )  # fmt: skip
    await rig.clock.advance(0.5)
    gone.cancel()
    with pytest.raises(LLMTimeoutError):
        await late
    assert [str(r) for r in await answers_of([leader, patient])] == ["What is it?"] * 2
    assert rig.provider.calls == 1
    await rig.assert_nothing_left()


async def test_the_flight_has_the_highest_priority_of_those_who_wait() -> None:
    rig = Rig()
    tasks = [rig.start(priority=priority) for priority in (1, 3, 5)]
    await rig.tick(3)
    assert rig.calls[0].priority == 5
    tasks[0].cancel()
    await rig.tick(5)
    assert rig.provider.calls == 2
    assert not any(task.done() for task in tasks[1:])
    assert [r.cached for r in await answers_of(tasks[1:])] == [True, False]  # the most urgent leads


async def test_requests_without_a_record_share_a_flight_too() -> None:
    rig = Rig([LLMServerError("down"), "hello"])
    tasks = [rig.start(recorded=False) for _ in range(3)]
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), LLMServerError) for task in tasks)
    tasks = [rig.start(recorded=False) for _ in range(3)]
    assert {str(response) for response in await answers_of(tasks)} == {"hello"}
    await rig.assert_nothing_left()


async def test_unary_calls_and_streams_have_flights_of_their_own() -> None:
    rig = Rig()
    await answers_of([rig.start(stream=stream) for stream in (False, True)])
    assert rig.provider.calls == 2


async def test_a_refresh_does_not_join_a_call_that_may_be_answered_from_the_cache() -> None:
    rig = Rig(["old", "new", "newest"], backend=Slow())
    await rig.ask()
    await rig.rest()
    plain, fresh = rig.start(), rig.start(cache=CachePolicy(refresh=True))
    assert [str(response) for response in await answers_of([plain, fresh])] == ["old", "new"]


# --- streams of several readers


async def test_readers_of_one_stream_go_at_their_own_pace() -> None:
    rig = Rig("one two three four", interval=1)
    slow, quick = [await task for task in [rig.start(stream=True), rig.start(stream=True)]]
    assert str(await quick.response()) == "one two three four"
    assert [str(chunk) async for chunk in slow] == ["one ", "two ", "thre", "e fo", "ur", ""]
    assert rig.provider.calls == 1


async def test_who_joins_late_reads_from_the_first_chunk() -> None:
    rig = Rig("one two three four", interval=1)
    first = await rig.ask(stream=True)
    for _ in range(3):
        await anext(first)
    late = await rig.ask(stream=True)
    assert str(await whole(late)) == str(await whole(first)) == "one two three four"
    assert rig.provider.calls == 1


async def test_a_leader_that_leaves_does_not_end_the_stream() -> None:
    rig = Rig("one two three four", interval=1)
    first, second = [await task for task in [rig.start(stream=True), rig.start(stream=True)]]
    await anext(first)
    await first.aclose()
    response = await whole(second)
    assert (str(response), response.cached) == ("one two three four", True)
    await rig.rest()
    assert (await rig.ask()).cached  # whole, so it was kept
    assert rig.provider.calls == 1


async def test_a_leader_cancelled_while_it_reads_does_not_end_the_stream() -> None:
    rig = Rig("one two three four", interval=1)
    first, second = [await task for task in [rig.start(stream=True), rig.start(stream=True)]]
    reading = asyncio.create_task(whole(first))
    await rig.clock.advance(1.5)
    reading.cancel()
    assert str(await whole(second)) == "one two three four"
    assert rig.provider.calls == 1


async def test_a_leaders_deadline_in_mid_stream_ends_only_its_reading() -> None:
    rig = Rig("one two three four", interval=1)
    first, second = [await task for task in [rig.start(stream=True, timeout=3), rig.start(stream=True)]]
    with pytest.raises(LLMTimeoutError):
        await whole(first)
    assert str(await whole(second)) == "one two three four"


async def test_upstream_closes_when_the_last_reader_has_left() -> None:
    rig = Rig([["one ", "two ", ...]])
    first, second = [await task for task in [rig.start(stream=True), rig.start(stream=True)]]
    await first.aclose()
    await rig.rest()
    assert rig.provider.open_streams == 1
    await second.aclose()
    await rig.tick(2)
    assert rig.provider.open_streams == 0
    await rig.assert_nothing_left()


async def test_a_stream_that_breaks_gives_every_reader_what_came_and_its_own_error() -> None:
    rig = Rig([["one ", "two ", LLMConnectionError("cut", sent=True)]])
    readers = [await task for task in [rig.start(stream=True), rig.start(stream=True)]]
    errors: list[BaseException] = []
    for reader in readers:
        assert [str(await anext(reader)) for _ in range(2)] == ["one ", "two "]
        with pytest.raises(LLMConnectionError) as caught:
            await anext(reader)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    await rig.assert_nothing_left()


async def test_a_lone_reader_is_not_read_ahead_of_by_much() -> None:
    rig = Rig([[str(n) for n in range(100)]])
    stream = await rig.ask(stream=True)
    await rig.rest()
    assert 2 < len(stream._source.broadcast.chunks) < 20
    assert str(await whole(stream)) == "".join(map(str, range(100)))  # and reads on, to the end
    await rig.assert_nothing_left()


async def test_the_flight_reads_on_as_soon_as_there_is_a_follower() -> None:
    rig = Rig([[str(n) for n in range(100)]])
    first = await rig.ask(stream=True)
    await rig.rest()
    second = asyncio.create_task(rig.ask(stream=True))
    await rig.rest()
    assert rig.provider.open_streams == 0  # read to its end, though nobody reads
    assert str(await whole(first)) == str(await whole(await second)) == "".join(map(str, range(100)))


async def test_nobody_joins_a_stream_that_was_just_left() -> None:
    rig = Rig([["one ", ...], "whole"])
    await (await rig.ask(stream=True)).aclose()
    assert str(await whole(await rig.ask(stream=True))) == "whole"


async def test_a_stalled_or_unread_stream_ends_after_the_idle_time() -> None:
    rig = Rig([["one ", ...], [str(n) for n in range(100)]], idle=10)
    with pytest.raises(LLMTimeoutError, match="nothing came"):
        await whole(await rig.ask(stream=True))
    unread = await rig.ask("another", stream=True)
    await rig.clock.advance(21)
    with pytest.raises(LLMTimeoutError, match="not read"):
        await whole(unread)
    await rig.assert_nothing_left()


# --- cancellation


@KINDS
@pytest.mark.parametrize("slow", [False, True], ids=["quick backend", "slow backend"])
async def test_cancelling_at_every_await_point_leaves_no_flight_behind(*, stream: bool, slow: bool) -> None:
    for turns in range(60):
        rig = Rig(backend=Slow() if slow else None, latency=0, interval=0)
        task = asyncio.create_task(_ask_whole(rig, stream=stream))
        await rig.tick(turns)
        task.cancel()
        await asyncio.wait([task])
        done = not task.cancelled()
        await rig.assert_nothing_left()
        if done:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@KINDS
@pytest.mark.parametrize("who", [0, 1, 2], ids=["leader", "first follower", "last follower"])
async def test_whoever_is_cancelled_at_any_await_point_the_others_are_answered(*, stream: bool, who: int) -> None:
    for turns in range(60):
        rig = Rig(backend=Slow(), latency=0, interval=0)
        tasks = [asyncio.create_task(_ask_whole(rig, stream=stream)) for _ in range(3)]
        await rig.tick(turns)
        tasks[who].cancel()
        await asyncio.wait(tasks)
        assert [str(task.result()) for n, task in enumerate(tasks) if n != who] == ["What is it?"] * 2
        assert rig.provider.calls <= 2
        done = not tasks[who].cancelled()
        await rig.assert_nothing_left()
        if done:
            return
    raise AssertionError("it never came to its end")


async def test_leader_and_heir_cancelled_in_one_turn_leave_the_rest_answered() -> None:
    for turns in range(8):
        rig = Rig(latency=0.1)
        tasks = [rig.start(recorded=bool(turns % 2)) for _ in range(4)]
        await rig.tick(3)
        tasks[0].cancel()
        await rig.tick(turns // 2)
        tasks[1].cancel()
        assert {str(response) for response in await answers_of(tasks[2:])} == {"What is it?"}
        await rig.assert_nothing_left()


async def _ask_whole(rig: Rig, *, stream: bool) -> LLMResponse:
    return await whole(await rig.ask(stream=stream))


async def test_an_invalid_request_is_told_to_all_at_once() -> None:
    rig = Rig([LLMInvalidRequestError("no such model", status=404)])
    tasks = [rig.start(tries=4) for _ in range(3)]
    await asyncio.wait(tasks)
    assert rig.provider.calls == 1
    assert all(isinstance(task.exception(), LLMInvalidRequestError) for task in tasks)
