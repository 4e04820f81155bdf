"""What OpenTelemetry measures of calls; their attributes are few, so that their series are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics

from llm.telemetry import facts, names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import Histogram, Meter, MeterProvider

    from llm.core.call import Call
    from llm.core.types import LLMResponse
    from llm.telemetry.facts import Value


class Meters:
    """The instruments of one chain; those of one name are one to whoever reads them."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        """Make them of `provider`; None for the program's own."""
        meter = metrics.get_meter(names.SCOPE, "", provider, names.SCHEMA_URL)
        self._duration = _seconds(meter, names.METRIC_DURATION, "Calls to models, from the call to the whole answer.")
        self._first_chunk = _seconds(meter, names.METRIC_FIRST_CHUNK, "Time to a stream's first chunk.")
        self._queue_wait = _seconds(meter, names.METRIC_QUEUE_WAIT, "Waiting for a key that can pay.")
        self._tokens = meter.create_histogram(
            names.METRIC_TOKENS,
            "{token}",
            "Tokens that calls took.",
            explicit_bucket_boundaries_advisory=names.TOKENS_BUCKETS,
        )
        self._retries = meter.create_counter(names.METRIC_RETRIES, "{retry}", "Sends after a call's first.")
        self._cost = meter.create_counter(names.METRIC_COST, "{USD}", "What calls cost, where prices are known.")

    def answered(self, response: LLMResponse, about: Mapping[str, Value]) -> None:
        """Measure what an answer took; one from the cache took nothing."""
        if response.cached:
            return
        usage = response.usage
        self._tokens.record(usage.input_tokens, {**about, names.TOKENS_TYPE: names.TOKENS_INPUT})
        if not response.embeddings:
            self._tokens.record(usage.output_tokens, {**about, names.TOKENS_TYPE: names.TOKENS_OUTPUT})
        if response.cost:
            self._cost.add(response.cost, about)

    def ended(
        self,
        call: Call,
        now: float,
        waited: float,
        about: Mapping[str, Value],
        end: LLMResponse | BaseException | None,
    ) -> None:
        """Measure a call that ended `now`, in monotonic seconds, having waited so many for its keys."""
        how = about
        if isinstance(end, BaseException):
            how = {**about, names.ERROR_TYPE: facts.error_type(end)}
        elif end is not None and end.cached:  # or hits would make the provider look quick
            how = {**about, names.CACHED: True}
        self._duration.record(now - call.started, how)
        if call.sends or call.waited:
            self._queue_wait.record(waited, about)
        if call.sends > 1:
            self._retries.add(call.sends - 1, about)

    def began_to_answer(self, seconds: float, about: Mapping[str, Value]) -> None:
        """Measure the time to a stream's first chunk."""
        self._first_chunk.record(seconds, about)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    buckets = names.SECONDS_BUCKETS
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)
