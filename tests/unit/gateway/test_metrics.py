"""What the gateway counts, and how Prometheus reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families
from tests.patience import until

from llm.core.types import TokenUsage
from llm.gateway.counts import Counts, Histogram
from llm.gateway.exchange import Exchange
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.samples import Sample

    Serving = Callable[..., Any]

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}
NAMES = {
    "llm_gateway_requests_total",
    "llm_gateway_request_duration_seconds_count",
    "llm_gateway_tokens_generated_total",
    "llm_gateway_generation_duration_seconds_count",
    "llm_gateway_active_requests",
    "llm_gateway_model_info",
    "gen_ai_client_operation_duration_seconds_bucket",
    "gen_ai_client_operation_time_to_first_chunk_seconds_count",
    "gen_ai_client_token_usage_sum",
    "llm_calls_total",
    "llm_key_state",
    "process_cpu_seconds_total",
}


def samples(page: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float:
    return sum(sample.value for sample in found if sample.name == name and labels.items() <= sample.labels.items())


async def test_metrics_add_up_to_the_calls_made(serving: Serving) -> None:
    faults = [Fault("invalid", at=3)]
    async with MockUpstream(faults=faults) as up, serving(up, section={"models": ["gpt-4o-mini", "other"]}) as it:
        _, whole, _ = await it.ask("POST", CHAT, ASK)
        await it.events(CHAT, ASK | {"stream": True})
        failed = await it.ask("POST", CHAT, ASK)
        vectors = await it.ask("POST", "/v1/embeddings", {"model": "other", "input": "x"})
        lost = await it.ask("POST", CHAT, {})
        unknown = await it.ask("GET", "/v1/unheard-of")
        _, page, headers = await it.ask("GET", "/v1/metrics")
        opened = await it.ask("GET", "/v1/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert (failed[0], vectors[0], lost[0], unknown[0]) == (400, 200, 400, 404)
    assert headers["content-type"].startswith("text/plain")
    assert opened[2]["content-type"].startswith("application/openmetrics-text")
    found = samples(page)
    assert {sample.name for sample in found} >= NAMES
    assert value(found, "llm_gateway_requests_total") == 6
    assert value(found, "llm_gateway_requests_total", status="200") == 3
    assert value(found, "llm_gateway_request_duration_seconds_count", endpoint=CHAT) == 4
    assert value(found, "llm_gateway_request_duration_seconds_count", endpoint="other") == 1
    assert value(found, "llm_gateway_generation_duration_seconds_count") == 3
    assert value(found, "llm_gateway_active_requests") == 1  # the one that asks
    assert value(found, "llm_gateway_model_info", provider="openai", model="other") == 1
    generated = value(found, "llm_gateway_tokens_generated_total")
    assert generated == 2 * whole["usage"]["completion_tokens"] == value(found, "llm_output_tokens_total")
    spoken = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai"}
    duration = "gen_ai_client_operation_duration_seconds_count"
    assert value(found, duration, **spoken, error_type="") == 2
    assert value(found, duration, **spoken, error_type="LLMInvalidRequestError") == 1
    assert value(found, duration, gen_ai_operation_name="embeddings") == 1
    assert value(found, "gen_ai_client_operation_time_to_first_chunk_seconds_count", **spoken) == 1
    assert value(found, "gen_ai_client_token_usage_sum", **spoken, gen_ai_token_type="output") == generated  # noqa: S106 - no secret


async def test_what_a_cache_gave_was_not_generated(serving: Serving) -> None:
    async with serving(cache={"backend": "memory"}) as it:
        headers = [(await it.ask("POST", CHAT, ASK))[2] for _ in range(2)]
        streamed = await it.session.post(it.url + CHAT, json=ASK | {"stream": True})
        await streamed.read()
        counts = it.entry.desk.counts
        assert counts.generations.counts.count(0) == len(counts.generations.counts) - 1
        assert sum(counts.generations.counts) == 1
    assert [told["x-llm-cache"] for told in headers] == ["miss", "hit"]
    assert streamed.headers["x-llm-cache"] == "hit"


async def test_who_follows_an_identical_call_hears_so(serving: Serving) -> None:
    clock = FakeClock()
    async with (
        MockUpstream(service=3.0, clock=clock) as up,
        serving(up, cache={"backend": "memory"}) as it,
        asyncio.TaskGroup() as group,
    ):
        asking = [group.create_task(it.ask("POST", CHAT, ASK)) for _ in range(2)]
        await until(lambda: up.active and it.manager.get_status()["pool"]["calls"] == 2)
        await clock.advance(3.0)
        told = [(await task)[2]["x-llm-cache"] for task in asking]
    assert sorted(told) == ["follower", "miss"]


def test_a_value_at_a_bound_falls_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for each in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.add(each)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_models_that_anybody_names_share_a_line_once_there_are_very_many() -> None:
    counts = Counts()
    for number in range(1005):
        counts.ended(answered(f"m{number}"), "/x", 0.1)
    assert len(counts.models) == 1001
    other = counts.models["chat", "open", "other"]
    assert sum(other.outputs.counts) == 5


def test_what_failed_before_it_had_a_provider_has_no_model() -> None:
    counts = Counts()
    exchange = answered("anything")
    exchange.provider, exchange.error, exchange.usage = None, ValueError(), None
    counts.ended(exchange, "/x", 0.1)
    counts.ended(exchange, "/x", 0.1)
    assert list(counts.models) == [("chat", "", "other")]
    assert sum(counts.models["chat", "", "other"].errors["ValueError"].counts) == 2


def test_what_the_server_refuses_by_itself_is_counted() -> None:
    counts = Counts()
    counts.refused(503)
    counts.refused(503)
    assert counts.requests == {503: 2}


def answered(model: str) -> Exchange:
    async def nothing(*_: object) -> Any:  # noqa: ANN401 - ASGI's
        """Is never asked."""

    exchange = Exchange({"headers": []}, nothing, nothing, started=0.0, most=1)
    exchange.status, exchange.model, exchange.provider, exchange.generating = 200, model, "open", 0.1
    exchange.usage = TokenUsage(1, 2)
    return exchange
