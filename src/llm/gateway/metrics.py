"""The gateway's and its manager's counts for Prometheus, beside OpenTelemetry's names for generative AI.

Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-metrics.md, written as
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/ says.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families  # pyright: ignore[reportUnknownVariableType]

from llm.telemetry import names
from llm.telemetry.prometheus import ManagerCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llm.core.manager import LLMManager

    from .counts import Counts, Histogram

WHOLE: Final = "application/openmetrics-text"
"""What to accept of a worker: a form that says where it ends."""

_OF_MODEL: Final = (names.OPERATION, names.PROVIDER, names.REQUEST_MODEL, names.SECTION)


class GatewayCollector:
    """Tells a registry what the gateway counted."""

    def __init__(self, counts: Counts, manager: LLMManager) -> None:
        """Read `counts`, and the models of `manager`."""
        self._counts = counts
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """Go over everything as it is now."""
        counts = self._counts
        requests = CounterMetricFamily("llm_gateway_requests", "Requests that ended, by status.", labels=("status",))
        for status, number in sorted(counts.requests.items()):
            requests.add_metric((str(status),), number)
        yield requests
        durations = _histogram("llm_gateway_request_duration_seconds", "Requests, whole.", "endpoint")
        for endpoint, histogram in sorted(counts.durations.items()):
            _add(durations, (endpoint,), histogram)
        yield durations
        yield CounterMetricFamily(
            "llm_gateway_tokens_generated", "Tokens of answers that no cache gave.", value=counts.tokens
        )
        generations = _histogram("llm_gateway_generation_duration_seconds", "Answers that no cache gave.")
        _add(generations, (), counts.generations)
        yield generations
        yield GaugeMetricFamily(
            "llm_gateway_active_requests", "Requests that are being answered, this one too.", value=counts.active
        )
        yield self._models()
        yield from self._of_models()

    def _models(self) -> Metric:
        info = GaugeMetricFamily("llm_gateway_model_info", "1 for each model.", labels=("provider", "model"))
        for name, provider in self._manager.config.providers.items():
            for model in dict.fromkeys(provider.models):
                info.add_metric((name, model), 1)
        return info

    def _of_models(self) -> Iterator[Metric]:
        duration = _histogram(_written(names.METRIC_DURATION), "Calls, whole.", *_OF_MODEL, names.ERROR_TYPE)
        first = _histogram(_written(names.METRIC_FIRST_CHUNK), "To the first chunk of streams.", *_OF_MODEL)
        tokens = _histogram(_written(names.METRIC_TOKENS, ""), "Tokens of calls.", *_OF_MODEL, names.TOKENS_TYPE)
        kinds = {name: provider.type or name for name, provider in self._manager.config.providers.items()}
        for (operation, section, model), of in sorted(self._counts.models.items()):
            kind = kinds.get(section, section)
            labels = (operation, names.PROVIDERS.get(kind, kind), model, section)
            _add(duration, (*labels, ""), of.duration)
            for error, seconds in sorted(of.errors.items()):
                _add(duration, (*labels, error), seconds)
            _add(first, labels, of.first)
            _add(tokens, (*labels, names.TOKENS_INPUT), of.inputs)
            _add(tokens, (*labels, names.TOKENS_OUTPUT), of.outputs)
        yield from (duration, first, tokens)


class Exposition:
    """Writes all there is to tell, in the form that who asks can read."""

    def __init__(self, counts: Counts, manager: LLMManager) -> None:
        """Tell of the gateway's counts, the manager's, and the process."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(GatewayCollector(counts, manager))
        self._registry.register(ManagerCollector(manager))
        ProcessCollector(registry=self._registry)

    def write(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, by the `Accept` header of a request."""
        return _encoded(self._registry, accept)


class AllWorkers:
    """Tells a registry what several workers told, each sample with its worker's place."""

    def __init__(self, pages: Mapping[int, bytes], count: int) -> None:
        """Read the pages of those of `count` workers that answered, each in the form of `WHOLE`."""
        self._pages = pages
        self._count = count

    def collect(self) -> Iterator[Metric]:
        """Go over all of them."""
        answered = GaugeMetricFamily("llm_gateway_worker_answered", "1 where it told its part.", labels=("worker",))
        families: dict[str, Metric] = {}
        for place in range(self._count):
            read = self._read(place)
            answered.add_metric((str(place),), bool(read))
            for part in read:
                whole = families.setdefault(part.name, Metric(part.name, part.documentation, part.type, part.unit))
                for sample in part.samples:
                    whole.add_sample(sample.name, {"worker": str(place), **sample.labels}, sample.value)
        yield answered
        yield from families.values()

    def _read(self, place: int) -> list[Metric]:
        try:
            page = self._pages.get(place, b"").decode()
            return list(text_string_to_metric_families(page))  # type: ignore[no-untyped-call] # pyright: ignore[reportUnknownArgumentType]
        except ValueError:  # it died as it wrote
            return []


def merged(pages: Mapping[int, bytes], count: int, accept: str) -> tuple[bytes, str]:
    """Return the pages of workers as one and its content type, by the `Accept` header of a request."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AllWorkers(pages, count))
    return _encoded(registry, accept)


def _encoded(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    try:
        encode, kind = choose_encoder(accept)
    except TypeError:  # a version that is no number
        encode, kind = choose_encoder("")
    return encode(registry), kind


def _written(name: str, unit: str = "_seconds") -> str:
    return name.replace(".", "_") + unit


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=[label.replace(".", "_") for label in labels])


def _add(family: HistogramMetricFamily, labels: Iterable[str], histogram: Histogram) -> None:
    ends = [*map(str, map(float, histogram.bounds)), "+Inf"]
    family.add_metric(list(labels), list(zip(ends, accumulate(histogram.counts), strict=True)), histogram.total)
