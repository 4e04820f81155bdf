"""Tracing over real sockets, with OpenTelemetry's own SDK: spans, metrics, and the headers that the servers see."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import _logs, baggage, context, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from llm import LLMException, LLMInvalidRequestError, LLMManager, LLMStreamInterruptedError, register_provider
from llm.telemetry import names
from llm.testing import FakeProvider, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

    from llm import LLMClient, LLMRequest
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

CLOCK = SystemClock()
KEY = "sk-traced-0123456789abcdef"
MODEL = "gpt-4o-mini"
CHAIN = ["tracing", "rate_limit", "retry", "cache", "logging", "metrics"]
LONG = "a text of a good many chunks " * 8


@dataclass
class Seen:
    """What left the process."""

    spans_: InMemorySpanExporter
    reader: InMemoryMetricReader
    events_: InMemoryLogRecordExporter

    def event(self) -> LogRecord:
        [event] = [told.log_record for told in self.events_.get_finished_logs()]
        return event

    def spans(self, kind: SpanKind = SpanKind.CLIENT) -> list[ReadableSpan]:
        return [span for span in self.spans_.get_finished_spans() if span.kind is kind and span.name != "caller"]

    def call(self) -> ReadableSpan:
        [span] = self.spans()
        return span

    def attempts(self) -> list[ReadableSpan]:
        found = [span for span in self.spans(SpanKind.INTERNAL) if span.name == names.SPAN_ATTEMPT]
        return sorted(found, key=lambda span: span.start_time or 0)

    def measured(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def everything(self) -> str:
        told = [span.to_json() for span in self.spans_.get_finished_spans()]
        data = self.reader.get_metrics_data()
        told += [event.to_json() for event in self.events_.get_finished_logs()]
        return "".join(told) + ("" if data is None else data.to_json())


@pytest.fixture(scope="module")
def telemetry() -> Seen:
    """The program's own set-up, which can be made once in a process."""
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    delta = AggregationTemporality.DELTA
    reader = InMemoryMetricReader({Histogram: delta, Counter: delta})
    metrics.set_meter_provider(MeterProvider([reader]))
    events = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # of the SDK
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
    _logs.set_logger_provider(loggers)
    return Seen(exporter, reader, events)


@pytest.fixture
def seen(telemetry: Seen) -> Iterator[Seen]:
    telemetry.spans_.clear()
    telemetry.events_.clear()
    telemetry.reader.get_metrics_data()
    assert trace.get_current_span() is trace.INVALID_SPAN
    yield telemetry
    assert trace.get_current_span() is trace.INVALID_SPAN


def section(up: MockUpstream, **more: Any) -> dict[str, Any]:
    return {"base_url": up.base_url, "api_keys": [KEY], "models": [MODEL], **more}


def config(up: MockUpstream, *, log_content: bool = False, **sections: Any) -> dict[str, Any]:
    return {
        "global": {"middleware": CHAIN, "log_content": log_content},
        "retry": {"initial_delay": 0},
        "providers": {"openai": section(up, **sections.pop("openai", {}))},
        **sections,
    }


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def own_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def header(span: ReadableSpan) -> str:
    own = own_of(span)
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def caller() -> Any:
    return trace.get_tracer("the caller").start_as_current_span("caller")


async def test_a_call_is_one_client_span_with_the_conventions_names(seen: Seen) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "seed": 7, "stop": ["#"]}
        response = await manager.get_client().chat("Hello there", extra={"n": 2, "top_k": 3}, **options)
        host, port = up.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    span = seen.call()
    assert (span.name, span.kind, span.status.status_code) == (f"chat {MODEL}", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.schema_url == names.SCHEMA_URL
    assert told(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 3,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("#",),
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.id": response.id,
        "gen_ai.response.finish_reasons": tuple(choice.finish_reason for choice in response.choices),
        "gen_ai.usage.input_tokens": response.usage.input_tokens,
        "gen_ai.usage.output_tokens": response.usage.output_tokens,
        "server.address": host,
        "server.port": int(port),
        "llm.provider": "openai",
        "llm.key": response.key,
        "llm.attempts": 1,
        "llm.cost": response.cost,
        "llm.queue.wait": 0.0,
    }
    [attempt] = seen.attempts()
    assert parent(attempt) == own_of(span).span_id
    assert told(attempt) == {"llm.attempt": 1, "llm.key": response.key, "llm.queue.wait": 0.0}
    assert up.requests[0].headers["traceparent"] == header(span)


async def test_a_span_stands_between_the_callers_and_those_of_the_callers_own_layers(seen: Seen) -> None:
    async def own(request: LLMRequest, call_next: CallNext) -> LLMResult:
        with trace.get_tracer("a layer").start_as_current_span("own"):
            return await call_next(request)

    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        with caller() as outer:
            await manager.get_client(middleware=["rate_limit", own, "tracing"]).chat("Hello")
            assert trace.get_current_span() is outer
    span = seen.call()
    [inner] = [span for span in seen.spans(SpanKind.INTERNAL) if span.name == "own"]
    assert parent(span) == outer.get_span_context().span_id
    assert parent(inner) == own_of(span).span_id
    assert span.start_time is not None
    assert inner.start_time is not None
    assert span.end_time is not None
    assert inner.end_time is not None
    assert span.start_time <= inner.start_time <= inner.end_time <= span.end_time


async def test_each_send_is_a_span_below_and_carries_the_calls_header(seen: Seen) -> None:
    faults = [Fault("overloaded", at=1), Fault("rate_limit", at=2, retry_after=0.01)]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        await manager.get_client().chat("Hello")
    span = seen.call()
    assert told(span)["llm.attempts"] == 3
    assert [
        (told(a)["llm.attempt"], told(a).get("http.response.status_code"), told(a).get("error.type"))
        for a in seen.attempts()
    ] == [(1, 529, "LLMOverloadedError"), (2, 429, "LLMRateLimitError"), (3, None, None)]
    assert [a.status.status_code for a in seen.attempts()] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert {request.headers["traceparent"] for request in up.requests} == {header(span)}
    [retries] = seen.measured()[names.METRIC_RETRIES]
    assert retries.value == 2


async def test_a_wait_for_a_key_is_told_with_its_reason(seen: Seen) -> None:
    async with MockUpstream("openai", service=0.05) as up:
        limited = {"rate_limits": {"concurrent_requests": 1}}
        async with LLMManager.open(config(up, openai=limited)) as manager, asyncio.TaskGroup() as calls:
            for text in ("first", "second"):
                calls.create_task(manager.get_client().chat(text))
    straight, waited = sorted(seen.spans(), key=lambda span: told(span)["llm.queue.wait"])
    assert told(straight)["llm.queue.wait"] == 0.0
    assert not straight.events
    assert told(waited)["llm.queue.wait"] > 0.02
    [queued] = waited.events
    assert queued.name == "llm.queued"
    assert "concurrent_requests" in str(dict(queued.attributes or {})["llm.detail"])
    assert waited.start_time is not None
    assert waited.start_time <= queued.timestamp
    assert max(told(attempt)["llm.queue.wait"] for attempt in seen.attempts()) == told(waited)["llm.queue.wait"]
    assert sum(point.count for point in seen.measured()[names.METRIC_QUEUE_WAIT]) == 2


# --- streams -------------------------------------------------------------------------------------------------------


async def test_a_streams_span_ends_with_the_stream_and_is_not_current_for_its_reader(seen: Seen) -> None:
    async with MockUpstream("openai", service=0.05) as up, LLMManager.open(config(up)) as manager:
        with caller() as outer:
            async with manager.get_client().stream_complete(LONG) as stream:
                async for _ in stream:
                    assert trace.get_current_span() is outer
                    assert not seen.spans() or stream.usage is not None
    span = seen.call()
    facts = told(span)
    assert parent(span) == outer.get_span_context().span_id
    assert facts["gen_ai.request.stream"] is True
    assert facts["gen_ai.response.finish_reasons"] == ("stop",)
    assert facts["gen_ai.usage.output_tokens"] > 0
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < facts["gen_ai.response.time_to_first_chunk"] < (span.end_time - span.start_time) / 1e9
    [first] = seen.measured()[names.METRIC_FIRST_CHUNK]
    assert first.sum == facts["gen_ai.response.time_to_first_chunk"]


async def abandoned(client: LLMClient) -> None:
    async with client.stream_complete(LONG) as stream:
        await anext(stream)


async def freed(client: LLMClient) -> None:
    async for _ in client.stream_complete(LONG):
        break
    await CLOCK.sleep(0)


async def cancelled(client: LLMClient) -> None:
    async def read() -> None:
        async for _ in client.stream_complete(LONG):
            pass

    task = asyncio.create_task(read())
    await CLOCK.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def cancelled_whole(client: LLMClient) -> None:
    task = asyncio.create_task(client.chat(LONG))
    await CLOCK.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [abandoned, freed, cancelled, cancelled_whole])
async def test_a_call_that_its_caller_left_ends_its_span_and_is_no_failure(seen: Seen, leave: Any) -> None:
    async with MockUpstream("openai", service=30.0, chunk_size=1) as up, LLMManager.open(config(up)) as manager:
        await leave(manager.get_client())
        span = seen.call()
    assert told(span)["error.type"] == "cancelled"
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    [attempt] = seen.attempts()
    assert attempt.end_time is not None
    assert span.end_time is not None
    assert attempt.end_time <= span.end_time


async def test_a_stream_that_breaks_is_a_failure(seen: Seen) -> None:
    faults = [Fault("truncated", after_chunks=2)]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        with pytest.raises(LLMStreamInterruptedError):
            await manager.get_client().stream_complete(LONG).response()
    span = seen.call()
    assert span.status.status_code is StatusCode.ERROR
    assert told(span)["error.type"] == "LLMStreamInterruptedError"
    assert "gen_ai.response.time_to_first_chunk" in told(span)


# --- failures, and what must not be told ---------------------------------------------------------------------------


async def test_a_failure_is_told_without_content_and_without_keys(seen: Seen) -> None:
    faults = [Fault("invalid", message=f"bad, with {KEY}")]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        with pytest.raises(LLMInvalidRequestError):
            await manager.get_client().chat("a very private question")
    span = seen.call()
    assert told(span)["error.type"] == "LLMInvalidRequestError"
    assert span.status.status_code is StatusCode.ERROR
    [event] = span.events
    assert event.name == "exception"
    facts = dict(event.attributes or {})
    assert facts["exception.type"] == "llm.core.exceptions.LLMInvalidRequestError"
    assert "bad, with **********" in str(facts["exception.message"])
    assert "private" not in seen.everything()
    assert KEY not in seen.everything()
    assert {point.attributes["error.type"] for point in seen.measured().get(names.METRIC_DURATION, [])} <= {
        "LLMInvalidRequestError"
    }


async def test_a_refusal_before_any_send_has_its_span(seen: Seen) -> None:
    async with MockUpstream("openai") as up:
        limited = {"rate_limits": {"input_tokens_per_minute": 2}}
        async with LLMManager.open(config(up, openai=limited)) as manager:
            with pytest.raises(LLMException):
                await manager.get_client().chat(LONG)
    span = seen.call()
    assert (told(span)["llm.attempts"], seen.attempts(), up.requests) == (0, [], [])
    assert told(span)["error.type"] == "LLMRateLimitError"


async def test_a_strangers_exception_is_told_by_its_name_alone(seen: Seen) -> None:
    async def broken(request: LLMRequest, call_next: CallNext) -> LLMResult:  # noqa: ARG001 - a layer
        raise RuntimeError(request.messages[0].text)

    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        with pytest.raises(RuntimeError):
            await manager.get_client(middleware=["tracing", broken]).chat("private")
    assert [dict(event.attributes or {}) for event in seen.call().events] == [
        {"exception.type": "builtins.RuntimeError"}
    ]
    assert "private" not in seen.everything()


@pytest.mark.parametrize("stream", [False, True])
async def test_content_is_told_only_where_it_was_asked_for(seen: Seen, *, stream: bool) -> None:
    async def ask(manager: LLMManager) -> None:
        client = manager.get_client()
        if stream:
            await client.stream_complete("a private question").response()
        else:
            await client.chat("a private question")

    async with MockUpstream("openai", answer=lambda _: "a private answer") as up:
        async with LLMManager.open(config(up)) as manager:
            await ask(manager)
        assert "private" not in seen.everything()
        seen.spans_.clear()
        seen.events_.clear()
        async with LLMManager.open(config(up, log_content=True)) as manager:
            await ask(manager)
    asked = [{"role": "user", "parts": [{"type": "text", "content": "a private question"}]}]
    part = {"type": "text", "content": "a private answer"}
    answered = [{"role": "assistant", "parts": [part], "finish_reason": "stop"}]
    facts = told(seen.call())
    assert json.loads(facts["gen_ai.input.messages"]) == asked
    assert json.loads(facts["gen_ai.output.messages"]) == answered
    structured = json.loads(json.dumps(dict(seen.event().attributes or {}), default=dict))
    assert structured["gen_ai.input.messages"] == asked
    assert structured["gen_ai.output.messages"] == answered


@pytest.mark.parametrize("stream", [False, True])
async def test_each_call_is_an_event_with_the_details_and_the_trace_of_its_span(seen: Seen, *, stream: bool) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        client = manager.get_client()
        if stream:
            await client.stream_complete("Hello", temperature=0.5).response()
        else:
            await client.complete("Hello", temperature=0.5)
    span, event = seen.call(), seen.event()
    assert event.event_name == "gen_ai.client.inference.operation.details"
    assert (event.trace_id, event.span_id) == (own_of(span).trace_id, own_of(span).span_id)
    assert dict(event.attributes or {}) == told(span)
    assert event.body is None
    assert span.end_time is not None
    assert event.timestamp is not None
    assert abs(event.timestamp - span.end_time) < 1e9


async def test_the_event_of_a_call_that_failed_says_how(seen: Seen) -> None:
    faults = [Fault("invalid", message=f"bad, with {KEY}")]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        with pytest.raises(LLMInvalidRequestError):
            await manager.get_client().chat("a very private question")
    assert dict(seen.event().attributes or {})["error.type"] == "LLMInvalidRequestError"


async def test_a_key_is_nowhere_whoever_wrote_it_where(seen: Seen) -> None:
    faults = [Fault("overloaded", at=1, message=KEY), Fault("auth", at=3, message=KEY)]
    async with MockUpstream("openai", faults=faults, answer=lambda _: f"it is {KEY}") as up:
        both = {"models": ["*"]}
        async with LLMManager.open(config(up, log_content=True, openai=both)) as manager:
            client = manager.get_client()
            await client.chat(f"my key is {KEY}", model=f"model-{KEY}", stop=[KEY], extra={"conversation": KEY})
            with pytest.raises(LLMException):
                await client.stream_complete(f"my key is {KEY}", model=MODEL).response()
    assert len(seen.spans()) == len(seen.events_.get_finished_logs()) == 2
    assert KEY not in seen.everything()
    assert "**********" in seen.everything()


# --- the cache -----------------------------------------------------------------------------------------------------


async def test_hits_and_followers_have_spans_and_took_no_tokens(seen: Seen) -> None:
    async with MockUpstream("openai", service=0.05) as up, LLMManager.open(config(up, cache={})) as manager:
        client = manager.get_client()
        async with asyncio.TaskGroup() as calls:
            for _ in range(3):
                calls.create_task(client.chat("Hello"))
        await client.chat("Hello")
    assert len(up.requests) == 1
    kept = [span for span in seen.spans() if told(span).get("llm.cached")]
    assert len(seen.spans()) == 4
    assert len(kept) == 3
    assert len(seen.attempts()) == 1
    for span in kept:
        assert "gen_ai.usage.input_tokens" not in told(span)
        assert (told(span)["llm.attempts"], told(span)["llm.cost"]) == (0, 0.0)
    measured = seen.measured()
    assert {point.attributes.get("llm.cached", False): point.count for point in measured[names.METRIC_DURATION]} == {
        False: 1,
        True: 3,
    }
    assert [point.count for point in measured[names.METRIC_TOKENS]] == [1, 1]


async def test_a_hit_is_seen_wherever_tracing_is_named(seen: Seen) -> None:
    async with MockUpstream("openai") as up:
        stated = config(up, cache={})
        stated["global"]["middleware"] = ["rate_limit", "retry", "cache", "tracing"]
        async with LLMManager.open(stated) as manager:
            for _ in range(2):
                await manager.get_client().chat("Hello")
    assert [told(span).get("llm.cached") for span in seen.spans()] == [None, True]


async def test_hits_of_streams_are_told_too(seen: Seen) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up, cache={})) as manager:
        for _ in range(2):
            await manager.get_client().stream_complete("Hello").response()
    assert [told(span).get("llm.cached") for span in seen.spans()] == [None, True]


# --- other calls ---------------------------------------------------------------------------------------------------


class City(BaseModel):
    name: str


async def test_an_answer_that_is_asked_for_twice_is_one_span_with_two_sends(seen: Seen) -> None:
    answers = iter(['{"town": "Paris"}', '{"name": "Paris"}'])
    async with MockUpstream("openai", answer=lambda _: next(answers)) as up, LLMManager.open(config(up)) as manager:
        response = await manager.get_client().chat("Which city?", response_model=City)
    span = seen.call()
    assert told(span)["gen_ai.output.type"] == "json"
    assert told(span)["gen_ai.usage.input_tokens"] == response.usage.input_tokens
    assert "llm.unfit" in [event.name for event in span.events]
    assert len(seen.attempts()) == 2
    assert {request.headers["traceparent"] for request in up.requests} == {header(span)}


async def test_vectors_have_their_own_operation(seen: Seen) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up, log_content=True)) as manager:
        await manager.get_client().embed(["one", "two"], model=MODEL, dimensions=8)
    span = seen.call()
    facts = told(span)
    assert span.name == f"embeddings {MODEL}"
    assert facts["gen_ai.operation.name"] == "embeddings"
    assert facts["gen_ai.embeddings.dimension.count"] == 8
    assert facts["gen_ai.usage.input_tokens"] > 0
    assert "gen_ai.usage.output_tokens" not in facts
    assert "gen_ai.input.messages" not in facts
    assert up.requests[0].headers["traceparent"] == header(span)
    assert [p.attributes["gen_ai.token.type"] for p in seen.measured()[names.METRIC_TOKENS]] == ["input"]


async def test_each_provider_goes_by_its_name_and_address(seen: Seen) -> None:
    async with MockUpstream("openai") as one, MockUpstream("anthropic") as two:
        stated = config(one)
        stated["providers"]["claude"] = section(two, type="anthropic", models=["claude-3-5-haiku-20241022"])
        async with LLMManager.open(stated) as manager:
            await manager.get_client("openai").chat("Hello")
            await manager.get_client("claude").chat("Hello")
    first, second = seen.spans()
    assert [told(span)["gen_ai.provider.name"] for span in (first, second)] == ["openai", "anthropic"]
    assert [told(span)["llm.provider"] for span in (first, second)] == ["openai", "claude"]
    assert told(first)["server.port"] != told(second)["server.port"]
    assert two.requests[0].headers["traceparent"] == header(second)


async def test_a_provider_without_an_address_tells_none(seen: Seen) -> None:
    register_provider("scripted", lambda _: FakeProvider("always this"))
    stated = {
        "global": {"middleware": CHAIN},
        "providers": {"mine": {"type": "scripted", "api_keys": [KEY], "models": [MODEL]}},
    }
    async with LLMManager.open(stated) as manager:
        await manager.get_client().chat("Hello")
    facts = told(seen.call())
    assert facts["gen_ai.provider.name"] == "scripted"
    assert not [name for name in facts if name.startswith("server.")]


async def test_a_platform_behind_a_vendors_client_goes_by_its_own_name(seen: Seen) -> None:
    async with MockUpstream("openai") as up:
        host = up.base_url.removesuffix("/v1")
        azure = {"client": "azure", "api_version": "2024-10-21"}
        stated = config(up, openai={"base_url": host, "transport": "sdk", "sdk": azure})
        async with LLMManager.open(stated) as manager:
            with suppress(LLMException):  # the mock has no such address
                await manager.get_client().chat("Hello")
    facts = told(seen.call())
    assert facts["gen_ai.provider.name"] == "azure.ai.openai"
    assert f"http://{facts['server.address']}:{facts['server.port']}" == host


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("transport", ["direct", "sdk"])
async def test_the_header_of_the_call_arrives_and_nothing_replaces_it(
    seen: Seen, kind: Any, transport: str, *, stream: bool
) -> None:
    fixed = {"headers": {"Traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "X-Team": "blue"}}
    async with MockUpstream(kind) as up:
        stated = config(up, openai={"type": kind, "transport": transport, **fixed})
        async with LLMManager.open(stated) as manager:
            token = context.attach(baggage.set_baggage("customer", "secret of the program"))
            try:
                if stream:
                    await manager.get_client().stream_complete("Hello").response()
                else:
                    await manager.get_client().chat("Hello")
            finally:
                context.detach(token)
    headers = up.requests[0].headers
    assert headers["traceparent"] == header(seen.call())
    assert headers["x-team"] == "blue"
    assert "baggage" not in headers


async def test_the_headers_of_one_call_stay_out_of_the_next(seen: Seen) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        for layers in (None, ["rate_limit"], None):
            await manager.get_client(middleware=layers).chat("Hello")
    first, none, last = [request.headers.get("traceparent") for request in up.requests]
    assert [first, none, last] == [header(seen.spans()[0]), None, header(seen.spans()[1])]


async def test_a_reload_switches_it_on_and_off(seen: Seen) -> None:
    async with MockUpstream("openai") as up:
        on, off = config(up), config(up)
        off["global"]["middleware"] = ["rate_limit", "retry"]
        async with LLMManager.open(off) as manager:
            client = manager.get_client()
            for stated in (off, on, off):
                await manager.reload(stated)
                await client.chat("Hello")
    assert ["traceparent" in request.headers for request in up.requests] == [False, True, False]
    assert len(seen.spans()) == 1


async def test_what_is_measured_has_the_conventions_names_units_and_buckets(seen: Seen) -> None:
    faults = [Fault("overloaded", at=1), Fault("invalid", at=3)]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        response = await manager.get_client().chat("Hello")
        with pytest.raises(LLMInvalidRequestError):
            await manager.get_client().stream_complete("Hello").response()
    data = seen.reader.get_metrics_data()
    assert data is not None
    found = [metric for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
    assert {metric.name: metric.unit for metric in found} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "llm.queue.wait": "s",
        "llm.retries": "{retry}",
        "llm.cost": "{USD}",
    }
    points: dict[str, list[Any]] = {metric.name: list(metric.data.data_points) for metric in found}
    durations = points["gen_ai.client.operation.duration"]
    assert [(p.attributes.get("error.type"), p.count) for p in durations] == [(None, 1), ("LLMInvalidRequestError", 1)]
    assert {tuple(p.explicit_bounds) for p in durations} == {names.SECONDS_BUCKETS}
    tokens = points["gen_ai.client.token.usage"]
    assert {p.attributes["gen_ai.token.type"]: p.sum for p in tokens} == {
        "input": response.usage.input_tokens,
        "output": response.usage.output_tokens,
    }
    assert {tuple(p.explicit_bounds) for p in tokens} == {names.TOKENS_BUCKETS}
    assert dict(tokens[0].attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.token.type": "input",
        "server.address": "127.0.0.1",
        "server.port": int(up.base_url.split(":")[2].removesuffix("/v1")),
    }
    [cost] = points["llm.cost"]
    assert cost.value == response.cost


async def test_models_that_no_key_has_make_no_series(seen: Seen) -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        for model in ("any", "word", "at-all"):
            with pytest.raises(LLMInvalidRequestError):
                await manager.get_client().chat("Hello", model=model)
    data = seen.reader.get_metrics_data()
    assert data is not None
    [duration] = [metric for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
    [point] = duration.data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 3
    asked = [(span.attributes or {})["gen_ai.request.model"] for span in seen.spans()]
    assert asked == ["any", "word", "at-all"]


# --- off, or not there ---------------------------------------------------------------------------------------------

OFF = """
import asyncio, sys
{before}
from llm import LLMConfigurationError, LLMManager
from llm.testing import MockUpstream

async def main():
    async with MockUpstream("openai") as up:
        provider = {{"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}}
        config = {{"global": {{"middleware": {layers}}}, "providers": {{"openai": provider}}}}
        try:
            async with LLMManager.open(config) as manager:
                print(await manager.get_client().chat("Hello"), "traceparent" in up.requests[0].headers)
        except LLMConfigurationError as error:
            print(error)
    print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"opentelemetry"}}))

asyncio.run(main())
"""


def test_off_it_loads_nothing_and_sends_nothing(fresh_python: Callable[[str], str]) -> None:
    assert fresh_python(OFF.format(before="", layers=["rate_limit", "retry"])).splitlines() == ["Hello False", "[]"]


def test_on_without_a_set_up_of_the_program_it_sends_nothing(fresh_python: Callable[[str], str]) -> None:
    printed = fresh_python(OFF.format(before="", layers=["tracing", "rate_limit"])).splitlines()
    assert printed == ["Hello False", "['opentelemetry']"]


def test_on_without_the_package_says_what_to_install(fresh_python: Callable[[str], str]) -> None:
    printed = fresh_python(OFF.format(before="sys.modules['opentelemetry'] = None", layers=["tracing", "rate_limit"]))
    assert "tracing needs opentelemetry" in printed
    assert "pip install 'llm-manifold[otel]'" in printed
