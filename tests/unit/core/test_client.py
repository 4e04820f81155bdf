"""The handle that users hold: options, deadlines, outcomes."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    CachePolicy,
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMProvider,
    LLMRateLimitError,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    Message,
    MessageRole,
    TokenUsage,
    ToolDefinition,
    register_provider,
)
from llm.core.stream import LLMStream, at_end
from llm.testing import FakeClock, FakeProvider, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm import LLMClient
    from llm.core.call import Call
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

MODEL = "gpt-4o-mini"
TEXT = "a text of more than a few chunks"


def config(**sections: Any) -> dict[str, Any]:
    provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": [MODEL]}
    return {"providers": {"openai": {**provider, **sections.pop("openai", {})}}, **sections}


class Bench:
    """A manager on a fake clock, in front of a mock without a socket."""

    def __init__(self, **upstream: Any) -> None:
        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock, **upstream)

    async def open(self, **sections: Any) -> LLMManager:
        return await LLMManager.open(config(**sections), transport=self.upstream.transport(), clock=self.clock)

    async def ended(self, task: asyncio.Task[Any], within: float) -> tuple[float, BaseException | None]:
        """Return after how many seconds the task ended, to a tenth, and how."""
        start = self.clock.now()
        while not task.done() and self.clock.now() < start + within:
            await self.clock.advance(0.1)
        assert task.done()
        return self.clock.now() - start, task.exception()


@pytest.fixture
async def quiet() -> AsyncIterator[LLMClient]:
    """A client whose provider must not be reached."""

    def refuse(_: LLMRequest) -> str:
        pytest.fail("it was sent")

    register_provider("life-quiet", lambda _: FakeProvider(refuse))
    async with LLMManager.open({"providers": {"life-quiet": {"models": ["m"]}}}, clock=FakeClock()) as manager:
        yield manager.get_client()


@pytest.mark.parametrize("wrong", [5, [], b"x", "", True])
@pytest.mark.parametrize("field", ["model", "user"])
async def test_a_client_of_a_wrong_kind_is_refused_as_it_is_made(field: str, wrong: Any) -> None:
    async with await Bench().open() as manager:
        with pytest.raises(LLMConfigurationError, match=f"{field} is .*; expected a .* name"):
            manager.get_client(**{field: wrong})


@pytest.mark.parametrize("wrong", ["x", True, None, 1.5])
async def test_a_priority_that_is_no_whole_number_is_refused_as_the_client_is_made(wrong: Any) -> None:
    async with await Bench().open() as manager:
        with pytest.raises(LLMConfigurationError, match=r"priority is .*; expected a whole number"):
            manager.get_client(priority=wrong)


async def test_a_clients_own_middleware_is_not_blamed_on_the_configuration() -> None:
    async with await Bench().open() as manager:
        with pytest.raises(LLMConfigurationError) as failure:
            manager.get_client(middleware=["nope"])
        assert "global.middleware" not in str(failure.value)


@pytest.mark.parametrize("wrong", [5, [], b"x", ""])
async def test_wrong_arguments_beside_a_request_are_refused_by_name(quiet: LLMClient, wrong: Any) -> None:
    with pytest.raises(LLMInvalidRequestError, match="model is"):
        await quiet.embed("hello", model=wrong)
    with pytest.raises(LLMInvalidRequestError, match="model is"):
        await quiet.count_tokens("hello", model=wrong)
    with pytest.raises(LLMInvalidRequestError, match="pass an LLMRequest"):
        await quiet.request(wrong)
    with pytest.raises(LLMInvalidRequestError, match="pass an LLMRequest"):
        quiet.stream_request(wrong)


async def test_history_and_texts_that_are_no_list_are_refused_by_name(quiet: LLMClient) -> None:
    wrong: Any = 5
    with pytest.raises(LLMInvalidRequestError, match="history is a int"):
        await quiet.chat("hello", history=wrong)
    with pytest.raises(LLMInvalidRequestError, match="texts is neither"):
        await quiet.embed(wrong)


@pytest.mark.parametrize("value", [object(), b"x", 10**30, "\ud800"])
async def test_a_tool_without_a_json_form_is_refused_before_anything_is_sent(value: object) -> None:
    bench = Bench()
    async with await bench.open() as manager:
        for tool in (ToolDefinition("look", parameters={"a": value}), {"a": value}):
            with pytest.raises(LLMInvalidRequestError, match="tools") as failure:
                await manager.get_client().chat("hello", tools=[tool])
            assert failure.value.attempts == 0
    assert not bench.upstream.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_cannot_be_written_was_not_sent_and_takes_nothing(stream: bool) -> None:
    bench = Bench()
    async with await bench.open(openai={"rate_limits": {"requests_per_minute": 1}}) as manager:
        request = LLMRequest("half \ud800", stream=stream)
        with pytest.raises(LLMInvalidRequestError, match="messages") as failure:
            await manager.get_client().request(request)
        assert failure.value.attempts == 0
        assert manager.explain("hello").admitted
    assert not bench.upstream.requests


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("model", "", "a model's name"),
        ("model", 4, "a model's name"),
        ("model", "half-\udcff", "a model's name of whole characters"),  # or no metric could be read any more
        ("temperature", -0.1, "0 to 2"),
        ("temperature", 2.1, "0 to 2"),
        ("temperature", float("nan"), "0 to 2"),
        ("temperature", "warm", "0 to 2"),
        ("top_p", 1.5, "0 to 1"),
        ("top_p", True, "0 to 1"),
        ("max_tokens", 0, "1 or more"),
        ("max_tokens", 1.5, "1 or more"),
        ("max_tokens", True, "1 or more"),
        ("stop", "", "a text nor a list of texts"),
        ("stop", ["a", ""], "a text nor a list of texts"),
        ("stop", [1], "a text nor a list of texts"),
        ("seed", "one", "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("tools", "look", "list of ToolDefinitions"),
        ("tools", [1], "list of ToolDefinitions"),
        ("tools", {"type": "function"}, "list of ToolDefinitions"),
        ("tool_choice", 1, "a tool's name"),
        ("response_format", ["json"], "json_object"),
        ("response_model", "Model", "a pydantic class"),
        ("reasoning_effort", 3, "low, medium or high"),
        ("timeout", -1, "0 or more"),
        ("timeout", "5", "0 or more"),
        ("timeout", float("inf"), "at most a year"),
        ("timeout", 10**400, "at most a year"),
        ("user", 7, "a tenant's name"),
        ("user", "", "a tenant's name"),
        ("user", "half-\udcff", "a tenant's name of whole characters"),
        ("priority", "high", "a whole number"),
        ("cache", True, "False, a CachePolicy, or None"),
        ("cache", "no", "False, a CachePolicy, or None"),
        ("metadata", "note", "a mapping"),
        ("extra", [("a", 1)], "a mapping"),
    ],
)
async def test_a_wrong_option_is_refused_before_anything_is_sent_and_names_field_and_remedy(
    quiet: LLMClient, field: str, value: object, expected: str
) -> None:
    options: dict[str, Any] = {field: value}
    for call in (quiet.complete, quiet.chat):
        with pytest.raises(LLMInvalidRequestError) as failure:
            await call("hello", **options)
        assert field in str(failure.value)
        assert expected in str(failure.value)
    with pytest.raises(LLMInvalidRequestError, match=field):
        quiet.stream_complete("hello", **options)


@pytest.mark.parametrize("messages", ["", [], None, 5, [5], [{}], [{"role": "nobody", "content": "x"}]])
async def test_wrong_messages_are_refused_before_anything_is_sent(quiet: LLMClient, messages: Any) -> None:
    with pytest.raises(LLMInvalidRequestError):
        await quiet.complete(messages)
    with pytest.raises(LLMInvalidRequestError):
        await quiet.chat(messages)
    with pytest.raises(LLMInvalidRequestError, match="system"):
        await quiet.chat("hello", system=5)  # type: ignore[arg-type]  # what is tested


async def test_all_options_reach_the_request() -> None:
    provider = FakeProvider()
    register_provider("life-options", lambda _: provider)
    given: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "stop": "x", "seed": 1, "tools": [{"type": "function"}],
        "tool_choice": "auto", "response_format": "text", "reasoning_effort": "low", "timeout": 9.0, "user": "alice",
        "priority": 3, "cache": CachePolicy(ttl=5.0), "metadata": {"a": 1}, "extra": {"b": 2},
    }  # fmt: skip
    async with LLMManager.open({"providers": {"life-options": {"models": ["m"]}}}, clock=FakeClock()) as manager:
        client = manager.get_client()
        past: list[Message | dict[str, Any]] = [
            Message(MessageRole.USER, "before"),
            {"role": "assistant", "content": "yes"},
        ]
        await client.chat("hello", system="be brief", history=past, **given)
        await client.stream_complete("hello", **given).response()
        whole = await client.request(LLMRequest("hello", stream=True, **given))
        assert isinstance(whole, LLMResponse)
        await client.stream_request(LLMRequest("hello", stream=True, **given)).response()
        await client.stream_request(LLMRequest("hello", **given)).response()
    kept = {**given, "stop": ("x",), "tools": ({"type": "function"},)}
    for request in provider.requests:
        assert {name: getattr(request, name) for name in kept} == kept
    assert [message.text for message in provider.requests[0].messages] == ["be brief", "before", "yes", "hello"]
    assert [request.stream for request in provider.requests] == [False, True, True, True, True]


async def test_a_stream_tells_who_answers_once_it_is_open() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        stream = manager.get_client().stream_request(LLMRequest("hello there, all of you"))
        assert (stream.id, stream.model, stream.waiting()) == ("", "", False)
        async with stream:
            assert stream.id.startswith("chatcmpl-")
            assert stream.model == MODEL
            assert stream.waiting()
            await stream.response()
            assert not stream.waiting()


async def test_a_request_given_away_has_the_calls_record() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client()
        kept, given = LLMRequest("hello"), LLMRequest("hello")
        await client.request(kept)
        await client.request(given, _mine=True)
        assert kept.call is None
        assert given.call is not None
        assert given.call.sends == 1


async def test_tokens_of_a_request_are_counted_with_the_model_that_it_names() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client()
        asked = LLMRequest("hello there", model=MODEL)
        assert await client.count_tokens(asked) == await client.count_tokens("hello there", model=MODEL) > 0


async def test_a_model_may_carry_its_provider_or_be_an_alias() -> None:
    bench = Bench()
    sections = config(aliases={"fast": {"targets": [f"other/{MODEL}", f"openai/{MODEL}"]}})
    sections["providers"]["other"] = {**sections["providers"]["openai"], "type": "openai", "models": [MODEL, "gpt-4o"]}
    async with LLMManager.open(sections, transport=bench.upstream.transport(), clock=bench.clock) as manager:
        client = manager.get_client(LLMProvider.OPENAI)
        named = [None, MODEL, "other/gpt-4o", "fast"]
        answers = [await client.chat("hello", model=name) for name in named]
        assert [answer.provider for answer in answers] == ["openai", "openai", "other", "other"]
        assert (await manager.get_client(model="fast").chat("hello")).provider == "other"
        assert (await manager.get_client("other", model="gpt-4o").chat("hello")).model == "gpt-4o"
        custom = manager.get_client(middleware=["rate_limit"])
        assert [(await custom.chat("hello", model="fast")).provider for _ in range(2)] == ["other", "other"]
        with pytest.raises(LLMInvalidRequestError, match=MODEL):
            await client.chat("hello", model="gpt-9")
        assert await client.count_tokens("hello there") > 0
        assert (await client.embed("hello")).provider == "openai"
        assert (await client.embed("hello", model="fast")).provider == "other"


async def test_embeddings_and_counts_go_to_a_provider_that_has_them() -> None:
    register_provider("life-embed", lambda _: FakeProvider())
    async with LLMManager.open({"providers": {"life-embed": {"models": ["m"]}}}, clock=FakeClock()) as manager:
        client = manager.get_client()
        assert len((await client.embed("one")).embeddings) == 1
        assert len((await client.embed(["one", "two"], dimensions=3)).embeddings[1]) == 3
        assert await client.count_tokens("eight ch") == 2


# --- middleware of one's own --------------------------------------------------------------------------------------


class Watching:
    """A layer with state that hears of whole calls, too."""

    def __init__(self, *, fail: bool = False) -> None:
        self.calls: list[str] = []
        self.outcomes: list[str] = []
        self.fail = fail

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        self.calls.append(request.messages[-1].text)
        return at_end(await call_next(request), lambda _, error: self.calls.append("" if error is None else "failed"))

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        self.outcomes.append(f"{request.model}:{call.sends}:{response or type(error).__name__}")
        if self.fail:
            raise ZeroDivisionError


async def shout(request: LLMRequest, call_next: CallNext) -> LLMResult:
    text = request.messages[-1].text.upper()
    return await call_next(replace(request, messages=(Message(MessageRole.USER, text),)))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_whose_layer_forgets_to_return_ends_as_failed_and_leaves_nothing(streamed: bool) -> None:
    async def forgets(request: LLMRequest, call_next: CallNext) -> Any:
        await call_next(request)

    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client(middleware=[forgets, "rate_limit", "retry", "metrics"])
        with pytest.raises(LLMConfigurationError, match=r"middleware 1, .*forgets, returned a NoneType; return what"):
            await (client.stream_complete("hello").response() if streamed else client.chat("hello"))
        gc.collect()  # of the stream that nobody was given
        status = manager.get_status()
        assert status["pool"]["calls"] == 0
        assert status["metrics"]["errors"] == {"LLMConfigurationError": 1}


async def test_a_call_whose_cost_cannot_be_told_ends_as_failed_and_leaves_nothing() -> None:
    usage = TokenUsage(5, 5, None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    register_provider("life-odd", lambda _: FakeProvider([LLMResponse(content="hello", usage=usage)]))
    section = {"models": ["m"]}
    prices = {"m": {"input": 1.0, "output": 2.0}}
    async with LLMManager.open({"providers": {"life-odd": section}, "prices": prices}, clock=FakeClock()) as manager:
        with pytest.raises(TypeError):
            await manager.get_client().chat("hello")
        status = manager.get_status()
        assert (status["pool"]["calls"], status["metrics"]["failed_requests"]) == (0, 1)


async def test_middleware_takes_instances_names_and_plain_coroutine_functions() -> None:
    bench = Bench()
    layer = Watching()
    async with await bench.open() as manager:
        client = manager.get_client(middleware=["rate_limit", "retry", shout, layer, "metrics"])
        assert str(await client.chat("hello")) == "HELLO"
        assert str(await client.stream_complete("stream").response()) == "STREAM"
        assert layer.calls == ["HELLO", "", "STREAM", ""]
        assert layer.outcomes == [f"{MODEL}:1:HELLO", f"{MODEL}:1:STREAM"]
        assert str(await manager.get_client(middleware=[]).chat("bare")) == "bare"
        assert manager.get_status()["metrics"]["total_requests"] == 2


WRONG_LAYERS: list[tuple[Any, str]] = [
    ([Watching], "is a class"),
    ([5], "cannot be called"),
    ([len], "does not take"),
    (["no_such_layer"], "rate_limit, retry, cache, logging, metrics"),
    (["no.such.module:Class"], "no.such.module"),
    (["llm.testing:NoSuchClass"], "NoSuchClass"),
    (["llm.testing:FakeClock"], "cannot be called"),
    ("retry", "pass a list"),
    (5, "middleware is 5; expected a list"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG_LAYERS)
async def test_wrong_middleware_is_refused_as_the_client_is_made(wrong: Any, told: str) -> None:
    bench = Bench()
    async with await bench.open() as manager:
        with pytest.raises(LLMConfigurationError) as failure:
            manager.get_client(middleware=wrong)
        assert told in str(failure.value)


async def test_an_observers_failure_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client(middleware=["rate_limit", Watching(fail=True)])
        assert str(await client.chat("hello")) == "hello"
        assert str(await client.stream_complete("hello").response()) == "hello"
        assert manager.get_status()["pool"]["calls"] == 0
    assert [record.name for record in caplog.records] == ["llm.client", "llm.client"]


async def test_a_layers_own_timeout_error_is_not_taken_for_the_calls() -> None:
    async def impatient(request: LLMRequest, call_next: CallNext) -> LLMResult:  # noqa: ARG001 - a layer's form
        raise TimeoutError("of my own")

    bench = Bench()
    async with await bench.open() as manager:
        with pytest.raises(TimeoutError, match="of my own"):
            await manager.get_client(middleware=[impatient]).chat("hello")


# --- deadlines --------------------------------------------------------------------------------------------------------


async def stream_of(client: LLMClient, **options: Any) -> str:
    async with client.stream_complete(TEXT, **options) as stream:
        return str(await stream.response())


async def test_the_pool_phase_is_named_when_the_time_is_over_in_the_queue() -> None:
    bench = Bench(service=100.0)
    async with await bench.open(openai={"rate_limits": {"concurrent_requests": 1}}) as manager:
        client = manager.get_client()
        first = asyncio.create_task(client.chat("hello"))
        await bench.clock.advance(0.1)
        took, error = await bench.ended(asyncio.create_task(client.chat("hello", timeout=10.0)), within=20.0)
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, error.provider, error.model, error.attempts) == ("pool", "openai", MODEL, 0)
        assert took == pytest.approx(10.0, rel=0.1)
        first.cancel()


async def test_the_total_phase_is_named_when_the_time_is_over_in_an_attempt() -> None:
    bench = Bench(service=100.0)
    async with await bench.open() as manager:
        took, error = await bench.ended(
            asyncio.create_task(manager.get_client().chat("hello", timeout=10.0)), within=20.0
        )
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, error.provider, error.model, error.attempts) == ("total", "openai", MODEL, 1)
        assert error.key is not None
        assert took == pytest.approx(10.0, rel=0.1)


async def test_the_attempts_bound_is_told_as_total_and_first_token_by_its_name() -> None:
    bench = Bench(faults=[Fault("slow", every=1, seconds=100.0)])
    sections: dict[str, Any] = {
        "global": {"timeouts": {"attempt": 7.0, "first_token": 5.0}},
        "retry": {"max_attempts": 1},
    }
    async with await bench.open(**sections) as manager:
        client = manager.get_client()
        took, error = await bench.ended(asyncio.create_task(client.chat("hello")), within=20.0)
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, round(took)) == ("total", 7)
        took, error = await bench.ended(asyncio.create_task(stream_of(client)), within=20.0)
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, round(took)) == ("first_token", 5)
        assert (error.provider, error.attempts) == ("openai", 1)


async def test_idle_is_named_when_a_stream_stalls() -> None:
    bench = Bench(faults=[Fault("stalled", every=1)])
    async with await bench.open(**{"global": {"timeouts": {"idle": 6.0}}}) as manager:
        took, error = await bench.ended(asyncio.create_task(stream_of(manager.get_client())), within=20.0)
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, error.provider, error.attempts) == ("idle", "openai", 1)
        assert took == pytest.approx(6.0, rel=0.1)
        assert bench.upstream.active == 0


async def test_the_calls_timeout_bounds_the_whole_life_of_a_stream() -> None:
    bench = Bench(service=100.0)
    async with await bench.open(**{"global": {"timeouts": {"first_token": 200.0}}}) as manager:
        task = asyncio.create_task(stream_of(manager.get_client(), timeout=60.0))
        took, error = await bench.ended(task, within=80.0)
        assert isinstance(error, LLMTimeoutError)
        assert error.phase == "total"
        assert took == pytest.approx(60.0, rel=0.1)
        assert bench.upstream.active == 0


async def test_the_calls_timeout_bounds_retries() -> None:
    bench = Bench(faults=[Fault("server_error", every=1)])
    retry = {"max_attempts": 1000, "initial_delay": 1.0, "max_delay": 1.0}
    async with await bench.open(retry=retry, **{"global": {"timeout": 10.0}}) as manager:
        took, error = await bench.ended(asyncio.create_task(manager.get_client().chat("hello")), within=20.0)
        assert isinstance(error, LLMException)
        assert error.attempts == len(bench.upstream.requests) > 3
        assert took <= 11.0


async def test_the_configured_timeout_ends_each_call_at_its_own_time() -> None:
    bench = Bench(service=100.0)
    async with await bench.open(**{"global": {"timeout": 10.0}}) as manager:
        client = manager.get_client()
        first = asyncio.create_task(client.chat("hello"))
        own = asyncio.create_task(client.chat("hello", timeout=4.0))
        await bench.clock.advance(2.0)
        later = [asyncio.create_task(client.chat("hello")) for _ in range(10)]
        await bench.clock.advance(2.5)
        assert [own.done(), first.done()] == [True, False]
        await bench.clock.advance(6.0)
        assert first.done()
        assert not any(task.done() for task in later)
        await bench.clock.advance(2.0)
        assert all(isinstance(task.exception(), LLMTimeoutError) for task in (own, first, *later))
        assert bench.upstream.active == 0


async def test_calls_that_have_the_configured_timeout_share_a_timer() -> None:
    assert await timers_of_ten_more(timeout=10.0) == await timers_of_ten_more(timeout=None)


async def timers_of_ten_more(timeout: float | None) -> int:  # noqa: ASYNC109 - the configured one
    bench = Bench(service=1.0)
    async with await bench.open(**{"global": {"timeout": timeout}}) as manager:
        calls = [asyncio.create_task(manager.get_client().chat("hello"))]
        await bench.clock.advance(0.0)
        timers = bench.clock.timers
        calls += [asyncio.create_task(manager.get_client().chat("hello")) for _ in range(10)]
        await bench.clock.advance(0.0)
        more = bench.clock.timers - timers
        await bench.clock.advance(2.0)
        assert all(task.result().content for task in calls)
        return more


async def test_a_reload_changes_the_timeout_of_the_calls_that_come() -> None:
    bench = Bench(service=100.0)
    async with await bench.open(**{"global": {"timeout": 10.0}}) as manager:
        before = asyncio.create_task(manager.get_client().chat("hello"))
        await bench.clock.advance(1.0)
        await manager.reload(config(**{"global": {"timeout": 3.0}}))
        after = asyncio.create_task(manager.get_client().chat("hello"))
        await bench.clock.advance(4.0)
        assert [after.done(), before.done()] == [True, False]
        await bench.clock.advance(6.0)
        assert all(isinstance(task.exception(), LLMTimeoutError) for task in (before, after))


@pytest.mark.parametrize(("timeout", "errors"), [(60.0, {"LLMTimeoutError": 1}), (None, {})])
async def test_what_a_reload_between_a_call_and_its_renewal_ends_is_late_like_any_other(
    timeout: float | None,  # noqa: ASYNC109 - the configured one
    errors: dict[str, int],
) -> None:
    bench, cache = Bench(service=5.0), {"backend": "memory", "ttl": 60, "stale_while_revalidate": 60}
    async with await bench.open(cache=cache, **{"global": {"timeout": timeout}}) as manager:

        async def reload(request: LLMRequest, call_next: CallNext) -> LLMResult:
            result = await call_next(request)
            await manager.reload(config(cache=cache, **{"global": {"timeout": 1.0}}))
            return result

        first = asyncio.create_task(manager.get_client().complete("hello"))
        await bench.clock.advance(70.0)
        again = await manager.get_client(middleware=[reload, "cache", "metrics"]).complete("hello")
        await bench.clock.advance(10.0)
        assert (first.result().stale, again.stale) == (False, True)
        assert manager.get_status()["metrics"]["errors"] == errors


async def test_what_could_not_be_paid_in_time_fails_at_once() -> None:
    bench = Bench()
    async with await bench.open(openai={"rate_limits": {"requests_per_minute": 1}}) as manager:
        client = manager.get_client()
        await client.chat("hello")
        took, error = await bench.ended(asyncio.create_task(client.chat("hello", timeout=10.0)), within=20.0)
        assert isinstance(error, LLMRateLimitError)
        assert took <= 0.2


async def test_a_stored_stream_is_bound_by_the_calls_timeout_too() -> None:
    bench = Bench()
    async with await bench.open(cache={}) as manager:
        client = manager.get_client()
        await stream_of(client)
        stream = client.stream_complete(TEXT, timeout=5.0)
        await anext(stream)
        await bench.clock.advance(5.1)
        with pytest.raises(LLMTimeoutError):
            await stream.response()
        assert manager.get_status()["pool"]["calls"] == 0


# --- outcomes ---------------------------------------------------------------------------------------------------------


async def test_every_call_has_one_outcome_and_the_totals_add_up() -> None:
    faults = [Fault("invalid", every=7), Fault("server_error", every=5), Fault("polite_cut", every=9)]
    bench = Bench(faults=faults, service=2.0)
    sections: dict[str, Any] = {
        "cache": {},
        "retry": {"max_attempts": 2, "initial_delay": 0.1},
        "limits": {"users": {"poor": {"requests_per_day": 3}}},
    }
    async with await bench.open(openai={"api_keys": ["k1", "k2"], "models": [MODEL]}, **sections) as manager:
        client = manager.get_client()

        async def leave(number: int) -> None:
            async with client.stream_complete(f"{TEXT} to leave {number}") as stream:
                await anext(stream)

        work: list[Any] = []
        for number in range(10):
            work += [
                client.chat(f"one {number}"),
                stream_of(client, seed=number),
                leave(number),
                client.chat(f"poor {number}", user="poor"),
                client.chat("the same"),
                client.chat(f"cancelled {number}"),
            ]
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(call) for call in work]
        await bench.clock.advance(1.0)
        for task in tasks[5::6]:
            task.cancel()
        await bench.clock.advance(30.0)
        await asyncio.wait(tasks)
        hits = [await client.chat("one 0") for _ in range(3)] if tasks[0].exception() is None else []
        metrics = manager.get_status()["metrics"]
        ended = [task.exception() for task in tasks if not task.cancelled()]
        failed = [error for error in ended if error is not None]
        assert metrics["total_requests"] == len(tasks) + len(hits)
        assert metrics["failed_requests"] == len(failed) == sum(metrics["errors"].values())
        parts = (metrics[name] for name in ("successful_requests", "failed_requests", "cancelled_requests"))
        assert sum(parts) == metrics["total_requests"]
        assert metrics["cancelled_requests"] >= sum(task.cancelled() for task in tasks) > 0
        assert all(isinstance(error, LLMException) and error.provider == "openai" for error in failed)
        assert metrics["cache"]["hits"] > 0
        assert manager.get_status()["pool"]["calls"] == 0
        assert bench.upstream.active == 0


async def test_a_response_says_where_it_came_from_and_what_it_took() -> None:
    bench = Bench(faults=[Fault("server_error", at=1)], service=2.0)
    async with await bench.open(cache={}, retry={"initial_delay": 0.5, "max_delay": 0.5}) as manager:
        client = manager.get_client()
        task = asyncio.create_task(client.chat("hello"))
        await bench.clock.advance(10.0)
        response = task.result()
        assert (response.provider, response.model, response.attempts, response.cached) == ("openai", MODEL, 2, False)
        assert response.key is not None
        assert response.key.startswith("key-")
        assert response.cost is not None
        assert response.cost > 0
        assert 2.0 <= response.latency <= 5.0
        again = await client.chat("hello")
        assert (again.cached, again.attempts, again.latency, again.content) == (True, 0, 0.0, "hello")
        streaming = asyncio.create_task(client.stream_complete(TEXT).response())
        await bench.clock.advance(10.0)
        streamed = streaming.result()
        assert (streamed.provider, streamed.attempts, streamed.key) == ("openai", 1, response.key)
        assert streamed.cost is not None


async def test_an_error_says_where_it_came_from_and_what_was_tried() -> None:
    bench = Bench(faults=[Fault("server_error", every=1)])
    retry = {"max_attempts": 3, "initial_delay": 0.1, "max_delay": 0.1}
    async with await bench.open(retry=retry) as manager:
        client = manager.get_client()
        for call in (client.chat("hello"), client.stream_complete("hello").response()):
            task = asyncio.create_task(call)
            await bench.clock.advance(10.0)
            error = task.exception()
            assert isinstance(error, LLMServerError)
            assert (error.provider, error.model, error.attempts, error.status) == ("openai", MODEL, 3, 500)
            assert error.key is not None


async def test_a_stream_that_breaks_in_the_middle_holds_what_came_and_who_sent_it() -> None:
    bench = Bench(faults=[Fault("polite_cut", every=1, after_chunks=3)])
    async with await bench.open() as manager:
        stream = manager.get_client().stream_complete(TEXT)
        with pytest.raises(LLMStreamInterruptedError) as failure:
            await stream.response()
        error = failure.value
        assert TEXT.startswith(error.partial)
        assert error.partial
        assert (error.provider, error.model, error.attempts) == ("openai", MODEL, 1)


async def test_a_key_that_is_refused_is_named_by_its_fingerprint() -> None:
    bench = Bench(faults=[Fault("auth", every=1, message="bad key {key}")])
    async with await bench.open() as manager:
        with pytest.raises(LLMAuthenticationError) as failure:
            await manager.get_client().chat("hello")
        assert failure.value.key is not None
        assert "sk-test-1" not in str(failure.value)


async def test_a_stream_from_a_layer_of_ones_own_is_the_calls_stream() -> None:
    async def canned(request: LLMRequest, call_next: CallNext) -> LLMResult:  # noqa: ARG001 - a layer's form
        response = LLMResponse(content="canned", model="mine")
        return response if not request.stream else await LLMStream.lazy(_given(response)).begin()

    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client(middleware=[canned, "metrics"])
        assert (await client.chat("hello")).model == "mine"
        assert (await client.stream_complete("hello").response()).content == "canned"
        assert manager.get_status()["metrics"]["total_requests"] == 2


def _given(response: LLMResponse) -> Any:
    async def opener() -> LLMResponse:
        return response

    return opener
