"""A manager's counts and state for Prometheus: read when it asks, so that calls pay nothing for it.

    from prometheus_client import REGISTRY, start_http_server

    REGISTRY.register(ManagerCollector(manager))
    start_http_server(9464)

Seconds, tokens, US dollars; shares are from 0 to 1. No user, no prompt and no key is in a label: keys are fingerprints,
and of models 1,000 at most have lines of their own. Needs the extra `prometheus`.

Source: https://prometheus.io/docs/practices/naming/ and https://prometheus.io/docs/instrumenting/writing_exporters/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
except ImportError as error:
    raise ImportError("metrics for Prometheus need a package; type: pip install 'llm-manifold[prometheus]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from llm.core.measured import KeyMeasures, Measured, ModelMeasures, Spread

BOUNDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Seconds at which the histograms count; each may be 1 % off."""
KEY_STATES: Final = ("available", "cooling", "out_of_credit", "rejected")
BREAKER_STATES: Final = ("closed", "open", "half_open")

_MOST_MODELS: Final = 1_000  # of which breakers are told, for each provider; each is lines for whoever reads all of it
_LOOKUPS: Final = (("hit", "hits"), ("similar", "semantic_hits"), ("follower", "followers"), ("miss", "misses"))
_OF_MODEL: Final = ("provider", "model")
_OF_KEY: Final = ("provider", "key")
_OF_LIMIT: Final = ("level", "provider", "key", "model", "limit")


class Watched(Protocol):
    """What is read of a manager."""

    def measured(self) -> Measured:
        """Return what calls and attempts came to."""
        ...

    def get_status(self) -> dict[str, Any]:
        """Return how keys, limits and queues are now."""
        ...


class ManagerCollector:
    """Tells a Prometheus registry of one manager, at each scrape, from whichever thread that comes."""

    def __init__(self, manager: Watched) -> None:
        """Read from `manager`, which may be reloaded; take the collector out of the registry when it is closed."""
        self._manager = manager

    def describe(self) -> list[Metric]:
        """Return the names without values, by which the registry finds what is there twice."""
        return [*_of_calls(()), *_of_attempts(()), *_of_cache({}), *_of_store({}), *_of_state({}), *_of_engines({})]

    def collect(self) -> Iterator[Metric]:
        """Go over everything as it is now."""
        measured, status = self._manager.measured(), self._manager.get_status()
        yield from _of_calls(measured.models)
        yield from _of_attempts(measured.keys)
        yield from _of_cache(status)
        yield from _of_store(status.get("limits", {}).get("store", {}))
        yield from _of_state(status)
        yield from _of_engines(status.get("providers", {}))


def _of_calls(models: Iterable[ModelMeasures]) -> list[Metric]:
    calls = _counter("llm_calls", "Calls that ended, by how.", *_OF_MODEL, "outcome")
    errors = _counter("llm_call_errors", "Calls that failed, by exception.", *_OF_MODEL, "error")
    retries = _counter("llm_retries", "Sends after a call's first.", *_OF_MODEL)
    tokens = {
        "input_tokens": _counter("llm_input_tokens", "Tokens of prompts.", *_OF_MODEL),
        "cached_input_tokens": _counter(
            "llm_cached_input_tokens", "Those of them that the provider had in its cache.", *_OF_MODEL
        ),
        "output_tokens": _counter("llm_output_tokens", "Tokens of answers.", *_OF_MODEL),
    }
    cost = _counter("llm_cost_dollars", "US dollars, where the price is known.", *_OF_MODEL)
    streamed = _counter("llm_streamed_tokens", "Tokens of answers that came as streams.", *_OF_MODEL)
    streaming = _counter("llm_streaming_seconds", "From the first chunk of streams to their end.", *_OF_MODEL)
    duration = _histogram("llm_call_duration_seconds", "Calls that were answered, whole.", *_OF_MODEL, "outcome")
    first = _histogram("llm_time_to_first_token_seconds", "From a stream's sending to its first chunk.", *_OF_MODEL)
    waits = _histogram("llm_queue_wait_seconds", "How long calls waited for a key.", *_OF_MODEL)
    for of in models:
        names = (of.provider, of.model)
        for outcome, count in of.calls.items():
            calls.add_metric((*names, outcome), count)
        for error, count in of.errors.items():
            errors.add_metric((*names, error), count)
        retries.add_metric(names, of.retries)
        for kind, family in tokens.items():
            family.add_metric(names, getattr(of.usage, kind))
        cost.add_metric(names, of.cost)
        streamed.add_metric(names, of.streamed_tokens)
        streaming.add_metric(names, of.streaming_seconds)
        for outcome, spread in of.durations.items():
            _add(duration, (*names, outcome), spread)
        _add(first, names, of.first_token)
        _add(waits, names, of.queue_wait)
    return [calls, errors, retries, *tokens.values(), cost, streamed, streaming, duration, first, waits]


def _of_attempts(keys: Iterable[KeyMeasures]) -> list[Metric]:
    attempts = _counter("llm_attempts", "Attempts on a key, by how they ended.", *_OF_KEY, "outcome")
    errors = _counter("llm_attempt_errors", "Attempts that failed, by exception.", *_OF_KEY, "error")
    for of in keys:
        failed = sum(of.errors.values())
        attempts.add_metric((of.provider, of.key, "answered"), of.attempts - failed)
        attempts.add_metric((of.provider, of.key, "failed"), failed)
        for error, count in of.errors.items():
            errors.add_metric((of.provider, of.key, error), count)
    return [attempts, errors]


def _of_cache(status: dict[str, Any]) -> list[Metric]:
    lookups = _counter("llm_cache_lookups", "What the cache was asked, by what it had.", "outcome")
    stored = _counter("llm_cache_stored", "Answers that were kept.")
    errors = _counter("llm_cache_errors", "How often the cache's backend failed.")
    skipped = _counter("llm_cache_semantic_skipped", "Questions that could not be compared, for want of a vector.")
    tokens = _counter("llm_cache_saved_tokens", "Tokens of answers that the cache gave.")
    dollars = _counter("llm_cache_saved_dollars", "What those would have cost, in US dollars.")
    seconds = _counter("llm_cache_saved_seconds", "How much later the provider would have given those.")
    stale = _counter("llm_cache_stale", "Calls that were given an answer over its time.")
    if status:
        cache, saved = status["cache"], status["metrics"]["cache"]
        for outcome, name in _LOOKUPS:
            lookups.add_metric((outcome,), cache[name])
        stored.add_metric((), cache["stored"])
        errors.add_metric((), cache["errors"])
        skipped.add_metric((), cache["semantic_skipped"])
        tokens.add_metric((), saved["tokens_saved"])
        dollars.add_metric((), saved["cost_saved"])
        seconds.add_metric((), saved["seconds_saved"])
        stale.add_metric((), cache["stale"])
    return [lookups, stored, errors, skipped, tokens, dollars, seconds, stale]


def _of_store(store: dict[str, Any]) -> list[Metric]:
    lost = _gauge("llm_limit_store_lost", "1 while the store that counts the limits of all processes is lost.")
    losses = _counter("llm_limit_store_losses", "How often it was lost.")
    without = _counter("llm_limit_store_calls_without", "Calls that were let go while it was lost.")
    if store:
        lost.add_metric((), store["state"] == "lost")
        losses.add_metric((), store["losses"])
        without.add_metric((), store["calls_without"])
    return [lost, losses, without]


def _of_state(status: dict[str, Any]) -> list[Metric]:
    saturation = _gauge("llm_limit_saturation_ratio", "How full a limit is; of users the fullest.", *_OF_LIMIT)
    states = _gauge("llm_key_state", "1 for the state that a key is in.", *_OF_KEY, "state")
    cooling = _gauge("llm_key_cooling_seconds", "Until the whole key may be used again.", *_OF_KEY)
    in_flight = _gauge("llm_key_calls", "Calls in flight on a key.", *_OF_KEY)
    healthy = _gauge("llm_provider_healthy", "1 while a provider has a key that may be used.", "provider")
    waiting = _gauge("llm_waiting_calls", "Calls that wait for a key.", "provider")
    running = _gauge("llm_running_calls", "Calls that run, those that wait included.")
    breakers = _gauge("llm_breaker_state", "1 for the state that a circuit breaker is in.", *_OF_MODEL, "state")
    refused = _counter("llm_retries_refused", "Retries that the budget of retries refused.", "provider")
    for labels, share in _shared_limits(status.get("limits", {})):
        saturation.add_metric(labels, share)
    for name, provider in status.get("providers", {}).items():
        healthy.add_metric((name,), provider["health"] == "healthy")
        waiting.add_metric((name,), provider["waiting"])
        for model, state in _few(provider.get("breakers", {})):
            _add_state(breakers, (name, model), state, BREAKER_STATES)
        if provider.get("retry_budget"):
            refused.add_metric((name,), provider["retry_budget"]["refused"])
        for key in provider["keys"]:
            names = (name, key["key"])
            _add_state(states, names, key["state"], KEY_STATES)
            cooling.add_metric(names, key["cooling_seconds"])
            in_flight.add_metric(names, key["calls"])
            for model, limits in key["models"].items():
                for limit, share in limits.items():
                    saturation.add_metric(("key", *names, model, limit), share)
    if status:
        running.add_metric((), status["pool"]["calls"])
    return [saturation, states, cooling, in_flight, healthy, waiting, running, breakers, refused]


def _of_engines(providers: dict[str, dict[str, Any]]) -> list[Metric]:
    families = [(figure, kind(name, text, "provider")) for figure, kind, name, text in _ENGINE]
    for name, provider in providers.items():
        for figure, family in families:
            if figure in provider.get("engine", {}):
                family.add_metric((name,), provider["engine"][figure])
    return [family for _, family in families]


def _few(breakers: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the states of breakers by model; where callers name very many models, not those of all that are closed."""
    states = [(model, breaker["state"]) for model, breaker in breakers.items()]
    return sorted(states, key=lambda told: told[1] == "closed")[:_MOST_MODELS]


def _shared_limits(limits: dict[str, dict[str, float]]) -> Iterator[tuple[tuple[str, ...], float]]:
    fullest: dict[str, float] = {}
    for name, shares in limits.items():
        if name == "store":
            continue
        for limit, share in shares.items():
            if name == "global":
                yield ("global", "", "", "", limit), share
            else:
                fullest[limit] = max(fullest.get(limit, 0.0), share)
    for limit, share in fullest.items():
        yield ("user", "", "", "", limit), share


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], spread: Spread) -> None:
    counts = zip(map(str, BOUNDS), spread.at_most(BOUNDS), strict=True)
    family.add_metric(labels, [*counts, ("+Inf", spread.total)], spread.seconds)


def _add_state(family: GaugeMetricFamily, labels: tuple[str, ...], state: str, states: tuple[str, ...]) -> None:
    for each in states:
        family.add_metric((*labels, each), each == state)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=labels)


_ENGINE: Final = (
    ("running", _gauge, "llm_engine_running_requests", "Requests that a model on the box reads or answers."),
    ("waiting", _gauge, "llm_engine_waiting_requests", "Requests that wait for their place in its batch."),
    ("batch_size", _gauge, "llm_engine_batch_requests", "Requests in the latest pass of its network."),
    ("blocks_used", _gauge, "llm_engine_blocks_used", "Blocks of 32 tokens that requests hold."),
    ("blocks_total", _gauge, "llm_engine_blocks", "Blocks that there are for them."),
    ("prefix_blocks", _gauge, "llm_engine_prefix_blocks", "Blocks kept for prompts that begin alike."),
    ("tokens_per_second", _gauge, "llm_engine_tokens_per_second", "Tokens made per second of work, lately."),
    ("generated_tokens", _counter, "llm_engine_generated_tokens", "Tokens made."),
    ("cached_tokens", _counter, "llm_engine_cached_tokens", "Tokens of prompts that did not have to be read."),
    ("admitted", _counter, "llm_engine_requests", "Requests that got their place in the batch."),
    ("waited_seconds", _counter, "llm_engine_queue_wait_seconds", "How long they waited for it, all together."),
    ("put_back", _counter, "llm_engine_put_back", "How often a request gave its memory to others, and waited."),
    ("forward_passes", _counter, "llm_engine_passes", "Times that its networks ran."),
)
