"""OpenTelemetry's view of calls: a span and an event for each, metrics, and headers that tie servers' spans to it.

Tracers, meters, loggers and propagators are those that the program has set up; without any, next to nothing happens.
A span covers the whole call: waits, attempts, a stream to its end. The sends are spans below it, written when the call
ends.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import attach, detach

from llm.telemetry import content, facts, names
from llm.telemetry.attempts import Story, story_of
from llm.utils.redact import redact

from .events import Events
from .meters import Meters
from .span import CallSpan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from llm.core.call import Call
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.telemetry.facts import Value
    from llm.utils.clock import Clock
    from llm.utils.redact import Secret

_logger = logging.getLogger("llm.tracing")
_MOST_KINDS: Final = 1000  # of calls, by model and who answered; more are no fixed set, and it starts again
_STRAIGHT: Final = Story()


class Upstream(NamedTuple):
    """A provider as telemetry names it.

    Attributes:
        name: The conventions' name.
        host: Where calls go; None where that is unknown.
        port: At which port.
    """

    name: str
    host: str | None = None
    port: int | None = None

    @property
    def facts(self) -> dict[str, Value]:
        """It as attributes."""
        told: dict[str, Value] = {names.PROVIDER: self.name}
        if self.host is not None:
            told[names.SERVER_ADDRESS] = self.host
        if self.port is not None:
            told[names.SERVER_PORT] = self.port
        return told


class _End(NamedTuple):
    call: Call
    request: LLMRequest
    response: LLMResponse | None
    error: BaseException | None
    now: float
    story: Story
    about: Mapping[str, Value]


class TracingMiddleware:
    """The outermost layer: traces calls, and measures them as a `CallObserver`."""

    def __init__(  # noqa: PLR0913 - what the layer is made of, once
        self,
        clock: Clock,
        *,
        provider: str,
        upstreams: Mapping[str, Upstream],
        log_content: bool = False,
        secrets: Iterable[Secret] = (),
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
        loggers: LoggerProvider | None = None,
    ) -> None:
        """Make the layer of one provider's chain.

        Args:
            clock: Its time.
            provider: Section of the configuration.
            upstreams: All providers, by section.
            log_content: Whether spans and events hold prompts and answers.
            secrets: What must appear nowhere, whoever wrote it into a prompt, a model's name or an error.
            tracers: Where spans go; None for the program's own.
            meters: Where measurements go; None for the program's own.
            loggers: Where events go; None for the program's own.
        """
        self._clock = clock
        self._provider = provider
        self._upstreams = {section: upstream.facts for section, upstream in upstreams.items()}
        self._log_content = log_content
        self._clean = partial(redact, secrets=tuple(secrets))
        self._known: dict[tuple[str, str | None, tuple[str, str] | None], Mapping[str, Value]] = {}
        self._tracer: Tracer = trace.get_tracer(names.SCOPE, None, tracers, names.SCHEMA_URL)
        self._meters = Meters(meters)
        self._events = Events(loggers)

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass on, in the context of the call's span.

        Raises:
            LLMException: The call's.
        """
        call = request.call
        if call is None:
            return await call_next(request)
        span = call.trace if isinstance(call.trace, CallSpan) else self._begun(call, request)
        if span is None or span.context is None:
            result = await call_next(request)
        else:
            token = attach(span.context)
            try:
                result = await call_next(request)
            finally:
                detach(token)
        if request.stream and span is not None and span.first_chunk is None:
            span.first_chunk = self._clock.now() - call.started
        return result

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Measure the call, end its span and send its event."""
        span, call.trace = call.trace, None
        if not isinstance(span, CallSpan):  # a layer before this one answered
            span = None
        now = self._clock.now()
        recorded = span is not None and span.recording
        sent = request.embed is None and self._events.wanted(None if span is None else span.context)
        story = story_of(call, now) if recorded or sent or call.waited else _STRAIGHT
        end = _End(call, request, response, error, now, story, self._about(request, response))
        try:
            if recorded or sent:
                self._tell(end, span, event=sent)
        finally:
            self._measure(end, span)

    def _tell(self, end: _End, span: CallSpan | None, *, event: bool) -> None:
        details: dict[str, Any] = {}
        try:
            details = {**end.about, **self._facts(end)} | ({} if span is None else span.facts)
            said = self._said(end)
            if span is not None and span.recording:
                texts = {name: content.as_text(messages) for name, messages in said.items()}
                span.tell({**details, **texts}, end.story, self._clean)
            details |= said
        finally:
            if span is not None and span.recording:
                span.close(end.error, end.now, self._clean)
        if event:
            if end.error is not None:
                details[names.ERROR_TYPE] = facts.error_type(end.error)
            self._events.tell(details, self._clock.wall(), None if span is None else span.context)

    def _measure(self, end: _End, span: CallSpan | None) -> None:
        call, response, about = end.call, end.response, end.about
        if response is None and not (call.sends or call.waited):  # its model may be any word: no series for each
            about = {name: value for name, value in about.items() if name != names.REQUEST_MODEL}
        self._meters.ended(call, end.now, end.story.waited, about, response or end.error)
        if response is not None:
            self._meters.answered(response, about)
        if span is not None and span.first_chunk is not None:
            self._meters.began_to_answer(span.first_chunk, about)

    def _begun(self, call: Call, request: LLMRequest) -> CallSpan | None:
        epoch = self._clock.wall() - self._clock.now()
        try:
            about = self._about(request, None)
            span = call.trace = CallSpan(self._tracer, about, started=call.started, epoch=epoch)
        except Exception as error:  # noqa: BLE001 - whatever the program has set up, the call goes on
            _logger.warning("a call is not traced, for its span could not begin: %s", type(error).__name__)
            return None
        return span

    def _about(self, request: LLMRequest, response: LLMResponse | None) -> Mapping[str, Value]:
        """Return what spans and metrics have in common: made once for all calls that have it in common, too."""
        what = facts.operation(request)
        answered = None if response is None else (response.model, response.provider)  # a fallback's may be another
        known = self._known.get((what, request.model, answered))
        if known is None:
            if len(self._known) >= _MOST_KINDS:
                self._known.clear()
            known = self._known[what, request.model, answered] = self._described(what, request.model or "", answered)
        return known

    def _described(self, what: str, model: str, answered: tuple[str, str] | None) -> Mapping[str, Value]:
        about: dict[str, Value] = {names.OPERATION: what, names.REQUEST_MODEL: self._clean(model)}
        section = self._provider
        if answered is not None:
            about[names.RESPONSE_MODEL] = self._clean(answered[0])
            section = answered[1]
        return about | self._upstreams.get(section, {names.PROVIDER: section})

    def _facts(self, end: _End) -> dict[str, Value]:
        response = end.response
        told: dict[str, Value] = {
            names.SECTION: self._provider if response is None else response.provider,
            names.ATTEMPTS: end.call.sends,
            names.QUEUE_WAIT: end.story.waited,
            **facts.asked(end.request),
        }
        if response is not None:
            told |= facts.answered(response)
        return {name: self._cleaned(value) for name, value in told.items()}

    def _said(self, end: _End) -> dict[str, Any]:
        if not self._log_content or end.request.embed is not None:
            return {}
        said = {names.INPUT_MESSAGES: content.input_messages(end.request.messages, self._clean)}
        if end.response is not None:
            said[names.OUTPUT_MESSAGES] = content.output_messages(end.response.choices, self._clean)
        return said

    def _cleaned(self, value: Value) -> Value:
        if isinstance(value, str):
            return self._clean(value)
        return value if isinstance(value, (int, float)) else [self._clean(text) for text in value]
