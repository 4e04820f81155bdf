"""What Prometheus is told of a manager that has just made calls."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
import importlib
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from llm import LLMException, LLMManager
from llm.core.measured import Measured
from llm.telemetry.prometheus import BOUNDS, ManagerCollector
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "gpt-4o-mini"
KEYS = ["sk-live-first-secret", "sk-live-second-secret"]
LIMITS = {"requests_per_minute": 100, "cost_per_day": 0.001}


class Bench:
    """A manager with limits, a cache and a mock on a virtual clock, and the registry that watches it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.manager: LLMManager
        self.registry = CollectorRegistry()

    async def open(self, *faults: Fault, **sections: Any) -> None:
        upstream = MockUpstream("openai", clock=self.clock, faults=faults, service=lambda _: 2.0)
        provider = {"base_url": upstream.base_url, "api_keys": KEYS, "models": [MODEL], "rate_limits": LIMITS}
        users = {"default": LIMITS}
        config = {
            "providers": {"openai": provider},
            "limits": {"global": LIMITS, "users": users},
            "cache": {},
            **sections,
        }
        self.manager = await LLMManager.open(config, transport=upstream.transport(), clock=self.clock)
        self.registry.register(ManagerCollector(self.manager))

    async def ask(self, text: str, *, stream: bool = False, **options: Any) -> None:
        async def call() -> None:
            client = self.manager.get_client(user=options.pop("user", None))
            if stream:
                await client.stream_complete(text, **options).response()
            else:
                await client.chat(text, **options)

        task = asyncio.create_task(call())
        await self.clock.advance(20)
        await asyncio.wait([task])
        error = task.exception()
        assert error is None or isinstance(error, LLMException)

    def told(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"{name} {labels} is not told"
        return value

    def rows(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for family in self.registry.collect() for sample in family.samples if sample.name == name]


@pytest.fixture
def bench() -> Bench:
    return Bench()


OPENAI = {"provider": "openai", "model": MODEL}


async def test_calls_are_told_by_how_they_ended(bench: Bench) -> None:
    await bench.open(Fault("server_error", at=2), Fault("invalid", at=4))
    for text in ("one", "one", "two", "three"):
        await bench.ask(text)
    await bench.ask("four", model="nobody-has-this")
    calls = {outcome: bench.told("llm_calls_total", **OPENAI, outcome=outcome) for outcome in ("answered", "cached")}
    assert calls == {"answered": 2, "cached": 1}
    assert bench.told("llm_calls_total", **OPENAI, outcome="failed") == 1
    assert bench.told("llm_calls_total", provider="openai", model="", outcome="failed") == 1
    assert bench.told("llm_call_errors_total", **OPENAI, error="LLMInvalidRequestError") == 1
    assert bench.told("llm_retries_total", **OPENAI) == 1
    assert bench.told("llm_cache_lookups_total", outcome="hit") == 1
    assert bench.told("llm_cache_saved_tokens_total") > 0
    assert bench.told("llm_cache_saved_seconds_total") > 0
    assert bench.told("llm_cache_stale_total") == 0
    await bench.manager.close()


async def test_durations_are_histograms_that_prometheus_can_add_up(bench: Bench) -> None:
    await bench.open()
    for text in ("one", "two"):
        await bench.ask(text)
    labels = {**OPENAI, "outcome": "answered"}
    name = "llm_call_duration_seconds"
    counts = [bench.told(f"{name}_bucket", **labels, le=str(bound)) for bound in BOUNDS]
    assert counts == sorted(counts)
    assert bench.told(f"{name}_bucket", **labels, le="1.0") == 0
    assert bench.told(f"{name}_bucket", **labels, le="2.5") == 2
    assert bench.told(f"{name}_bucket", **labels, le="+Inf") == bench.told(f"{name}_count", **labels) == 2
    assert bench.told(f"{name}_sum", **labels) == pytest.approx(4.0, rel=0.1)
    await bench.manager.close()


async def test_a_stream_tells_its_first_token_and_pace_and_all_that_it_cost(bench: Bench) -> None:
    await bench.open()
    await bench.ask("a few words to say again, please", stream=True)
    assert bench.told("llm_time_to_first_token_seconds_count", **OPENAI) == 1
    assert 0 < bench.told("llm_time_to_first_token_seconds_sum", **OPENAI) < 2.0
    streamed = bench.told("llm_streamed_tokens_total", **OPENAI)
    assert streamed == bench.told("llm_output_tokens_total", **OPENAI) > 0
    assert 0 < bench.told("llm_streaming_seconds_total", **OPENAI) < 2.0
    assert bench.told("llm_cost_dollars_total", **OPENAI) > 0
    assert bench.told("llm_input_tokens_total", **OPENAI) > 0
    await bench.manager.close()


async def test_who_waits_for_a_key_is_told_while_it_waits_and_after(bench: Bench) -> None:
    await bench.open(pool={"max_size": 1})
    client = bench.manager.get_client()
    calls = [asyncio.create_task(client.chat(text)) for text in ("one", "two")]
    await bench.clock.advance(1.0)
    assert bench.told("llm_waiting_calls", provider="openai") == 1
    assert bench.told("llm_running_calls") == 2
    await bench.clock.advance(10.0)
    await asyncio.wait(calls)
    assert bench.told("llm_waiting_calls", provider="openai") == 0
    assert bench.told("llm_queue_wait_seconds_bucket", **OPENAI, le="0.005") == 1
    assert bench.told("llm_queue_wait_seconds_sum", **OPENAI) == pytest.approx(2.0, rel=0.1)
    await bench.manager.close()


async def test_a_key_that_is_refused_is_told_by_its_fingerprint(bench: Bench) -> None:
    await bench.open(Fault("auth", at=1))
    await bench.ask("one")
    keys = {key["key"]: key["state"] for key in bench.manager.get_status()["providers"]["openai"]["keys"]}
    assert sorted(keys.values()) == ["available", "rejected"]
    for key, state in keys.items():
        told = {row["state"] for row in bench.rows("llm_key_state") if row["key"] == key}
        assert told == {"available", "cooling", "out_of_credit", "rejected"}
        for each in told:
            assert bench.told("llm_key_state", provider="openai", key=key, state=each) == (each == state)
    [refused] = [key for key, state in keys.items() if state == "rejected"]
    assert bench.told("llm_attempts_total", provider="openai", key=refused, outcome="failed") == 1
    assert bench.told("llm_attempt_errors_total", provider="openai", key=refused, error="LLMAuthenticationError") == 1
    assert bench.told("llm_provider_healthy", provider="openai") == 1
    await bench.manager.close()


async def test_limits_and_budgets_are_told_by_level_and_of_users_the_fullest(bench: Bench) -> None:
    await bench.open()
    for text, user in (("one", "ann"), ("two", "ann"), ("six", "bob")):
        await bench.ask(text, user=user, max_tokens=20)
    key = bench.manager.get_status()["providers"]["openai"]["keys"][0]["key"]

    def share(level: str, limit: str, **labels: str) -> float:
        names = {"provider": "", "key": "", "model": "", **labels}
        return bench.told("llm_limit_saturation_ratio", level=level, limit=limit, **names)

    budgets = bench.manager.get_status()["limits"]
    assert share("user", "cost_per_day") == budgets["user ann"]["cost_per_day"] > budgets["user bob"]["cost_per_day"]
    assert share("global", "cost_per_day") == budgets["global"]["cost_per_day"]
    assert share("key", "cost_per_day", provider="openai", key=key, model=MODEL) > 0
    told = generate_latest(bench.registry).decode()
    assert [name for name in ("ann", "bob", *KEYS) if name in told] == []
    await bench.manager.close()


class Guarded:
    """A manager whose breaker is open, and whose budget of retries is spent."""

    def measured(self) -> Measured:
        return Measured()

    def get_status(self) -> dict[str, Any]:
        cache = dict.fromkeys(
            ("hits", "semantic_hits", "semantic_skipped", "followers", "misses", "stale", "stored", "errors"), 0
        )
        breakers = {**{f"any-{number}": {"state": "closed"} for number in range(2000)}, MODEL: {"state": "open"}}
        budget = {"calls": 10, "retries": 5, "allowed": 5, "refused": 3}
        provider: dict[str, Any] = {"health": "unhealthy", "waiting": 0, "keys": []}
        provider |= {"breakers": breakers, "retry_budget": budget}
        saved = {"cache": {"tokens_saved": 0, "cost_saved": 0.0, "seconds_saved": 0.0}}
        return {"cache": cache, "metrics": saved, "providers": {"openai": provider}, "pool": {"calls": 0}}


def test_a_breaker_and_a_budget_of_retries_are_told() -> None:
    bench = Bench()
    bench.registry.register(ManagerCollector(Guarded()))
    told = {state: bench.told("llm_breaker_state", **OPENAI, state=state) for state in ("closed", "open", "half_open")}
    assert told == {"closed": 0, "open": 1, "half_open": 0}
    assert len(bench.rows("llm_breaker_state")) == 1000 * len(told)  # however many models callers name
    assert bench.told("llm_provider_healthy", provider="openai") == 0
    assert bench.told("llm_retries_refused_total", provider="openai") == 3


class Engined(Guarded):
    """A manager of a model on the box."""

    def get_status(self) -> dict[str, Any]:
        engine = {"running": 5, "tokens_per_second": 210.5, "generated_tokens": 900, "waited_seconds": 1.5, "new": 1}
        key = {"key": "box", "state": "available", "cooling_seconds": 0.0, "calls": 5}
        keys = [key | {"models": {"m": {"max_batch": 0.5}}}]
        box = {"health": "healthy", "waiting": 0, "keys": keys, "engine": engine}
        status = super().get_status()
        return status | {"providers": status["providers"] | {"box": box}}


def test_a_model_on_the_box_is_told_by_its_figures_and_how_full_its_limits_are() -> None:
    bench = Bench()
    bench.registry.register(ManagerCollector(Engined()))
    assert bench.told("llm_engine_running_requests", provider="box") == 5
    assert bench.told("llm_engine_tokens_per_second", provider="box") == 210.5
    assert bench.told("llm_engine_generated_tokens_total", provider="box") == 900
    assert bench.told("llm_engine_queue_wait_seconds_total", provider="box") == 1.5
    labels = {"level": "key", "provider": "box", "key": "box", "model": "m", "limit": "max_batch"}
    assert bench.told("llm_limit_saturation_ratio", **labels) == 0.5
    assert bench.rows("llm_engine_running_requests") == [{"provider": "box"}]


async def test_all_names_are_known_before_the_first_call_and_keep_the_rules_of_prometheus(bench: Bench) -> None:
    await bench.open()
    await bench.ask("one", stream=True)
    collector = ManagerCollector(bench.manager)
    described, collected = list(collector.describe()), list(collector.collect())
    assert [family.name for family in described] == [family.name for family in collected]
    assert not any(family.samples for family in described)
    with pytest.raises(ValueError, match="llm_calls"):
        bench.registry.register(ManagerCollector(bench.manager))
    parsed = list(text_string_to_metric_families(generate_latest(bench.registry).decode()))
    assert {family.type for family in parsed} == {"counter", "gauge", "histogram"}
    assert all(family.documentation.endswith(".") for family in parsed)
    encode, kind = choose_encoder("application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert encode(bench.registry).endswith(b"# EOF\n")
    await bench.manager.close()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_scrape_from_a_thread_while_calls_run_is_whole() -> None:
    async with MockUpstream() as up:
        provider = {"base_url": up.base_url, "api_keys": KEYS, "models": [MODEL]}
        config = {"providers": {"openai": provider}, "limits": {"users": {"default": {"requests_per_day": 1000}}}}
        async with LLMManager.open(config) as manager:
            registry = CollectorRegistry()
            registry.register(ManagerCollector(manager))

            def scrape() -> int:
                return sum(len(generate_latest(registry)) > 0 for _ in range(20))

            scrapes = asyncio.create_task(asyncio.to_thread(scrape))
            async with asyncio.TaskGroup() as calls:
                for number in range(100):
                    calls.create_task(manager.get_client(user=f"user-{number}").chat("Hello"))
            assert await scrapes == 20
            total = registry.get_sample_value("llm_calls_total", {**OPENAI, "outcome": "answered"})
    assert total == 100


async def test_prometheus_own_server_serves_it() -> None:
    registry = CollectorRegistry()
    registry.register(ManagerCollector(Guarded()))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        server.shutdown()
        server.server_close()
        thread.join()
        return text

    assert 'llm_breaker_state{model="gpt-4o-mini",provider="openai",state="open"} 1.0' in await asyncio.to_thread(
        scrape
    )


@pytest.fixture
def no_prometheus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    def load() -> None:
        importlib.import_module("llm.telemetry.prometheus")

    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "llm.telemetry.prometheus")
    yield load
    monkeypatch.undo()


def test_without_the_package_a_sentence_says_what_to_type(no_prometheus: Callable[[], None]) -> None:
    with pytest.raises(ImportError, match=r"pip install 'llm-manifold\[prometheus\]'"):
        no_prometheus()
