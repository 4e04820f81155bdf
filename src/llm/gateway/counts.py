"""What the gateway counts of its requests; `metrics` tells it to Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from llm.telemetry.facts import error_type
from llm.telemetry.names import SECONDS_BUCKETS, TOKENS_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .exchange import Exchange

REQUEST_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

_MOST_MODELS: Final = 1_000  # that have lines of their own, for whoever names models of a provider that takes any
_OTHERS: Final = "other"


class Histogram:
    """How often values fell at or below each of some bounds.

    Attributes:
        bounds: The bounds, ascending.
        counts: How many fell between the one before and each, and how many above the last.
        total: All values together.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start without values."""
        self.bounds: Sequence[float] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class OfModel:
    """What the calls of one operation on one model at one provider took.

    Attributes:
        duration: Seconds of each.
        first: Seconds to the first chunk of each stream.
        inputs: Tokens of each prompt.
        outputs: Tokens of each answer.
        errors: Seconds of those that failed, by the failure's name.
    """

    __slots__ = ("duration", "errors", "first", "inputs", "outputs")

    def __init__(self) -> None:
        """Start without calls."""
        self.duration: Histogram = Histogram(SECONDS_BUCKETS)
        self.first: Histogram = Histogram(SECONDS_BUCKETS)
        self.inputs: Histogram = Histogram(TOKENS_BUCKETS)
        self.outputs: Histogram = Histogram(TOKENS_BUCKETS)
        self.errors: dict[str, Histogram] = {}


class Counts:
    """What the gateway's requests came to since it started.

    Attributes:
        requests: How many ended, by status; 499 where the client left before there was one.
        durations: Seconds that they took, by endpoint.
        tokens: Tokens that were generated: of answers that no cache gave.
        generations: Seconds that those took.
        models: By operation, provider's section and model.
        active: Requests that are being answered.
    """

    __slots__ = ("active", "durations", "generations", "models", "requests", "tokens")

    def __init__(self) -> None:
        """Start without requests."""
        self.requests: dict[int, int] = {}
        self.durations: dict[str, Histogram] = {}
        self.tokens: int = 0
        self.generations: Histogram = Histogram(REQUEST_SECONDS)
        self.models: dict[tuple[str, str, str], OfModel] = {}
        self.active: int = 0

    def refused(self, status: int) -> None:
        """Count a request that the server refused by itself, before it had a route."""
        self.requests[status] = self.requests.get(status, 0) + 1

    def ended(self, exchange: Exchange, endpoint: str, seconds: float) -> None:
        """Count a request whose answer has ended."""
        self.requests[exchange.status] = self.requests.get(exchange.status, 0) + 1
        durations = self.durations.get(endpoint)
        if durations is None:
            durations = self.durations[endpoint] = Histogram(REQUEST_SECONDS)
        durations.add(seconds)
        if exchange.generating is not None:
            self._generated(exchange, exchange.generating)

    def _generated(self, exchange: Exchange, seconds: float) -> None:
        of = self._of(exchange)
        if exchange.error is not None:
            name = error_type(exchange.error)
            errors = of.errors.get(name)
            if errors is None:
                errors = of.errors[name] = Histogram(SECONDS_BUCKETS)
            errors.add(seconds)
        else:
            of.duration.add(seconds)
        if exchange.first is not None:
            of.first.add(exchange.first)
        if exchange.usage is None or exchange.cached:
            return
        output = exchange.usage.output_tokens
        self.tokens += output
        self.generations.add(seconds)
        of.inputs.add(exchange.usage.input_tokens)
        of.outputs.add(output)

    def _of(self, exchange: Exchange) -> OfModel:
        name = (exchange.operation, exchange.provider or "", exchange.model or "")
        of = self.models.get(name)
        if of is None:
            if len(self.models) >= _MOST_MODELS or not exchange.provider:  # what failed before may have any name
                name = (exchange.operation, exchange.provider or "", _OTHERS)
                of = self.models.get(name)
            if of is None:
                of = self.models[name] = OfModel()
        return of
