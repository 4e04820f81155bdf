# ruff: noqa: ANN401 - options as they come, and a clock that is set by hand

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry._logs import Logger, NoOpLogger, NoOpLoggerProvider
from opentelemetry.context import attach, detach
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llm.core.call import Call
from llm.core.exceptions import LLMServerError
from llm.core.messages import Message, MessageRole, ToolCall
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.tracing import TracingMiddleware, Upstream
from llm.middleware.tracing.span import CallSpan
from llm.telemetry import names
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.sdk.trace import Span

    from llm.core.stream import LLMResult
    from llm.utils.clock import SystemClock

SECRET = Secret("an-odd-key-of-no-known-form")
RESPONSE = LLMResponse("1", "sure", "m", "openai", TokenUsage(10, 5, 4), "stop", cost=0.1)
UPSTREAMS = {"openai": Upstream("openai", "api.openai.com", 443), "claude": Upstream("anthropic")}
REMOTE = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracers(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def layer_of(clock: SystemClock, tracers: Any = None, **options: Any) -> TracingMiddleware:
    return TracingMiddleware(
        clock,
        provider="openai",
        upstreams=UPSTREAMS,
        secrets=[SECRET],
        tracers=tracers or trace.NoOpTracerProvider(),
        meters=NoOpMeterProvider(),
        loggers=options.pop("loggers", NoOpLoggerProvider()),
        **options,
    )


def request_of(clock: SystemClock, **options: Any) -> LLMRequest:
    return LLMRequest("Hello", model=options.pop("model", "m"), call=Call(clock.now()), **options)


def end(
    layer: TracingMiddleware, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
) -> None:
    assert request.call is not None
    request.call.ended(request.call.started, error)
    layer.call_ended(request.call, request, response, error)


async def test_a_span_has_the_clocks_own_time(
    clock: Any,
    tracers: TracerProvider,
    exporter: InMemorySpanExporter,
    dispatch: Callable[[LLMRequest], Awaitable[LLMResult]],
) -> None:
    layer = layer_of(clock, tracers)
    request = request_of(clock, stream=True)
    clock.at += 1.0
    await layer(request, dispatch)
    clock.at += 4.0
    end(layer, request, RESPONSE, None)
    [span] = exporter.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(7.0, abs=1e-5)
    assert span.start_time / 1e9 == pytest.approx(clock.wall() - 1.0, abs=60)
    assert dict(span.attributes or {})[names.RESPONSE_FIRST_CHUNK] == 3.0


@pytest.mark.parametrize("known", [True, False])
async def test_without_tracing_a_callers_own_trace_goes_on_to_the_server(clock: Any, *, known: bool) -> None:
    layer = layer_of(clock)
    request = request_of(clock)
    token = attach(trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))) if known else None

    async def answer(given: LLMRequest) -> LLMResult:
        assert given.call is not None
        assert given.call.trace is not None
        carrier = given.call.trace.carrier
        assert carrier == ({"traceparent": f"00-{1:032x}-{2:016x}-01"} if known else None)
        return RESPONSE

    try:
        assert await layer(request, answer) is RESPONSE
    finally:
        if token is not None:
            detach(token)
    end(layer, request, RESPONSE, None)
    assert request.call is not None
    assert request.call.trace is None


async def test_a_call_that_is_not_sampled_says_so_to_the_server_and_leaves_no_span(
    clock: Any, exporter: InMemorySpanExporter
) -> None:
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    layer = layer_of(clock, provider)
    request = request_of(clock)
    carriers: list[Any] = []

    async def answer(given: LLMRequest) -> LLMResult:
        assert given.call is not None
        assert given.call.trace is not None
        carriers.append(given.call.trace.carrier)
        return RESPONSE

    await layer(request, answer)
    end(layer, request, RESPONSE, None)
    assert int(carriers[0]["traceparent"][-2:], 16) & trace.TraceFlags.SAMPLED == 0
    assert not exporter.get_finished_spans()


async def test_a_set_up_that_fails_fails_no_call(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanProcessor):
        def on_start(self, *_: object, **__: object) -> None:
            raise OSError("of the program's own")

    provider = TracerProvider()
    provider.add_span_processor(Broken())
    layer = layer_of(clock, provider)
    request = request_of(clock, stream=True)

    async def answer(_: LLMRequest) -> LLMResult:
        return RESPONSE

    with caplog.at_level(logging.WARNING, "llm.tracing"):
        assert await layer(request, answer) is RESPONSE
    assert [record.getMessage() for record in caplog.records] == [
        "a call is not traced, for its span could not begin: OSError"
    ]
    end(layer, request, RESPONSE, None)


async def test_a_propagator_that_fails_fails_no_call_and_leaves_no_span_open(
    clock: Any,
    tracers: TracerProvider,
    exporter: InMemorySpanExporter,
    dispatch: Callable[[LLMRequest], Awaitable[LLMResult]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(TraceContextTextMapPropagator):
        def inject(self, *_: object, **__: object) -> None:
            raise OSError("of the program's own")

    usual = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    try:
        await layer_of(clock, tracers)(request_of(clock), dispatch)
    finally:
        propagate.set_global_textmap(usual)
    assert "OSError" in caplog.text
    assert len(exporter.get_finished_spans()) == 1


async def test_a_span_ends_also_where_its_attempts_cannot_be_written(
    clock: Any,
    tracers: TracerProvider,
    exporter: InMemorySpanExporter,
    dispatch: Callable[[LLMRequest], Awaitable[LLMResult]],
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Span, *_: object, **__: object) -> None:
            if span.name == names.SPAN_ATTEMPT:
                raise OSError("of the program's own")

    tracers.add_span_processor(Broken())
    layer = layer_of(clock, tracers)
    request = request_of(clock)
    assert request.call is not None
    request.call.note(clock.now(), "sent", "")
    await layer(request, dispatch)
    with pytest.raises(OSError, match="own"):
        end(layer, request, RESPONSE, None)
    assert [span.name for span in exporter.get_finished_spans()] == ["chat m"]


async def test_a_failure_tells_no_key_and_another_provider_by_its_name(
    clock: Any, tracers: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    layer = layer_of(clock, tracers)

    async def fail(_: LLMRequest) -> LLMResult:
        raise LLMServerError(f"broken by {SECRET.reveal()}")

    async def answer(_: LLMRequest) -> LLMResult:
        return RESPONSE

    failed, fell_back, strange = (request_of(clock) for _ in range(3))
    with pytest.raises(LLMServerError) as raised:
        await layer(failed, fail)
    end(layer, failed, None, raised.value)
    for request, provider in ((fell_back, "claude"), (strange, "gone")):
        await layer(request, answer)
        end(layer, request, LLMResponse("1", "sure", "m", provider), None)
    told = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    assert [(facts[names.PROVIDER], facts[names.SECTION]) for facts in told] == [
        ("openai", "openai"),
        ("anthropic", "claude"),
        ("gone", "gone"),
    ]
    assert SECRET.reveal() not in "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "broken by **********" in str(exporter.get_finished_spans()[0].status.description)


async def test_a_request_of_no_call_passes(clock: Any, exporter: InMemorySpanExporter, tracers: TracerProvider) -> None:
    async def answer(_: LLMRequest) -> LLMResult:
        return RESPONSE

    assert await layer_of(clock, tracers)(LLMRequest("Hello", model="m"), answer) is RESPONSE
    assert not exporter.get_finished_spans()


async def test_a_call_that_never_came_through_is_measured_without_a_span(
    clock: Any, exporter: InMemorySpanExporter, tracers: TracerProvider
) -> None:
    end(layer_of(clock, tracers), request_of(clock), None, asyncio.CancelledError())
    assert not exporter.get_finished_spans()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_models_that_callers_make_up_do_not_fill_the_memory(clock: Any) -> None:
    layer = layer_of(clock)

    async def answer(_: LLMRequest) -> LLMResult:
        return RESPONSE

    async def ask(*models: str) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for model in models:
            await layer(request_of(clock, model=model), answer)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        few = await ask(*(f"m-{number}" for number in range(900)))
        many = await ask(*(f"n-{number}" for number in range(2000)))
    finally:
        tracemalloc.stop()
    assert many < few


# --- events --------------------------------------------------------------------------------------------------------


@pytest.fixture
def events() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # of the SDK


@pytest.fixture
def loggers(events: InMemoryLogRecordExporter) -> LoggerProvider:
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(events))
    return provider


async def test_a_call_that_is_not_sampled_has_its_event_all_the_same(
    clock: Any,
    loggers: LoggerProvider,
    events: InMemoryLogRecordExporter,
    dispatch: Callable[[LLMRequest], Awaitable[LLMResult]],
) -> None:
    layer = layer_of(clock, TracerProvider(sampler=ParentBased(ALWAYS_OFF)), loggers=loggers, log_content=True)
    request = request_of(clock)
    await layer(request, dispatch)
    assert request.call is not None
    assert isinstance(request.call.trace, CallSpan)
    context = request.call.trace.context
    assert context is not None
    end(layer, request, RESPONSE, None)
    [event] = events.get_finished_logs()
    assert event.log_record.trace_id == trace.get_current_span(context).get_span_context().trace_id
    assert event.log_record.timestamp == pytest.approx(clock.wall() * 1e9, abs=1e9)
    assert names.OUTPUT_MESSAGES in (event.log_record.attributes or {})


async def test_no_event_shows_a_key(clock: Any, loggers: LoggerProvider, events: InMemoryLogRecordExporter) -> None:
    layer = layer_of(clock, loggers=loggers, log_content=True)
    call = ToolCall(f"c-{SECRET.reveal()}", f"f-{SECRET.reveal()}", f'{{"key": "{SECRET.reveal()}"}}')
    message = Message(MessageRole.ASSISTANT, SECRET.reveal(), tool_calls=(call,))
    request = LLMRequest([message], model=SECRET.reveal(), stop=[SECRET.reveal()], call=Call(clock.now()))
    end(layer, request, replace(RESPONSE, content=SECRET.reveal()), None)
    [event] = events.get_finished_logs()
    assert SECRET.reveal() not in event.to_json()
    assert "**********" in event.to_json()


async def test_embeddings_are_no_events(clock: Any, loggers: LoggerProvider, events: InMemoryLogRecordExporter) -> None:
    layer = layer_of(clock, loggers=loggers)
    request = LLMRequest((), model="m", embed=EmbeddingInput(("x",)), call=Call(clock.now()))
    end(layer, request, RESPONSE, None)
    assert not events.get_finished_logs()


@pytest.mark.parametrize("known", [True, False], ids=["nobody listens", "an older release"])
async def test_an_event_that_nobody_takes_is_not_made(clock: Any, *, known: bool) -> None:
    class Unheard(NoOpLogger):
        def emit(self, *_: Any, **__: Any) -> None:
            raise AssertionError("sent for nobody")

    class Older(Unheard):
        enabled: Any = None

    class Loggers(NoOpLoggerProvider):
        def get_logger(self, name: str, *_: Any, **__: Any) -> Logger:
            return Unheard(name) if known else Older(name)

    layer = layer_of(clock, loggers=Loggers(), log_content=True)
    end(layer, request_of(clock), RESPONSE, None)
