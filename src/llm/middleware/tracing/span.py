"""A call's span: begun before its chain, written and ended with its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import baggage, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from llm.core.exceptions import LLMException
from llm.telemetry import facts, names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from llm.telemetry.attempts import Attempt, Story
    from llm.telemetry.facts import Value

    Clean = Callable[[str], str]
    """Takes keys out of a text."""

_NANOSECONDS: Final = 1_000_000_000


class CallSpan:
    """A call's span while the call runs; the `Trace` of its record.

    Attributes:
        context: What is current while the chain runs: the caller's context with the span in it; None where nobody
            traces.
        carrier: Headers for its requests; None where there is nothing to tell.
        recording: Whether somebody keeps it.
        first_chunk: Seconds from the call to a stream's first chunk; None where none came.
    """

    __slots__ = ("_epoch", "_span", "_tracer", "carrier", "context", "first_chunk", "recording")

    def __init__(self, tracer: Tracer, about: Mapping[str, Value], *, started: float, epoch: float) -> None:
        """Begin it as of `started`, in monotonic seconds; `epoch` makes these seconds since 1970."""
        self._tracer = tracer
        self._epoch = epoch
        self._span: Span = tracer.start_span(
            f"{about[names.OPERATION]} {about[names.REQUEST_MODEL]}",
            kind=SpanKind.CLIENT,
            attributes=about,
            start_time=self._at(started),
        )
        self.recording: bool = self._span.is_recording()
        self.first_chunk: float | None = None
        self.context: Context | None = None
        self.carrier: Mapping[str, str] | None = None
        if self.recording or self._span.get_span_context().is_valid:
            self.context = trace.set_span_in_context(self._span)
            try:
                self.carrier = _carrier(self.context)
            except Exception:  # of the program's propagators; nobody else can end the span
                self._span.end()
                raise

    @property
    def facts(self) -> dict[str, Value]:
        """What it has seen by itself, as attributes."""
        return {} if self.first_chunk is None else {names.RESPONSE_FIRST_CHUNK: self.first_chunk}

    def tell(self, attributes: Mapping[str, Value], story: Story, clean: Clean) -> None:
        """Write down what is known at the call's end."""
        self._span.set_attributes(attributes)
        for decision in story.others:
            told = {names.DETAIL: clean(decision.detail)} if decision.detail else {}
            self._span.add_event(names.EVENT + decision.event, told, self._at(decision.at))
        for attempt in story.attempts:
            self._attempt(attempt)

    def close(self, error: BaseException | None, now: float, clean: Clean) -> None:
        """End it; a call that its caller left is no failure."""
        if error is not None:
            self._span.set_attribute(names.ERROR_TYPE, facts.error_type(error))
        if isinstance(error, Exception):
            self._fail(error, now, clean)
        self._span.end(self._at(now))

    def _fail(self, error: Exception, now: float, clean: Clean) -> None:
        told = {names.EXCEPTION_TYPE: f"{type(error).__module__}.{type(error).__qualname__}"}
        message = None
        if isinstance(error, LLMException):  # a stranger's words may hold anything, content included
            message = told[names.EXCEPTION_MESSAGE] = clean(str(error))
        self._span.add_event(names.EVENT_EXCEPTION, told, self._at(now))  # a traceback's causes have words, too
        self._span.set_status(Status(StatusCode.ERROR, message))

    def _attempt(self, attempt: Attempt) -> None:
        told: dict[str, Value] = {
            names.ATTEMPT: attempt.number,
            names.KEY: attempt.key,
            names.QUEUE_WAIT: attempt.waited,
        }
        if attempt.error is not None:
            told[names.ERROR_TYPE] = attempt.error
        if attempt.status is not None:
            told[names.STATUS_CODE] = attempt.status
        span = self._tracer.start_span(
            names.SPAN_ATTEMPT, self.context, attributes=told, start_time=self._at(attempt.started)
        )
        if attempt.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._at(attempt.ended))

    def _at(self, now: float) -> int:
        return int((now + self._epoch) * _NANOSECONDS)


def _carrier(context: Context) -> Mapping[str, str] | None:
    carrier: dict[str, str] = {}
    # Baggage is the program's own affair, and the servers that are called are others'.
    propagate.inject(carrier, baggage.clear(context))
    return {name.lower(): value for name, value in carrier.items()} or None
