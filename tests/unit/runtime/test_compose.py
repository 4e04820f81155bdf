"""From a configuration to parts: layers, budgets, prices, what a renewal takes over."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import (
    LLMConfigurationError,
    LLMInvalidRequestError,
    LLMManager,
    LLMRateLimitError,
    LLMRequest,
    LLMResponse,
    TokenUsage,
)
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

MODEL = "gpt-4o-mini"


def config(**sections: Any) -> dict[str, Any]:
    provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": [MODEL]}
    return {"providers": {"openai": {**provider, **sections.pop("openai", {})}}, **sections}


class Bench:
    def __init__(self, **upstream: Any) -> None:
        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock, **upstream)

    async def open(self, **sections: Any) -> LLMManager:
        return await LLMManager.open(config(**sections), transport=self.upstream.transport(), clock=self.clock)


LAYER = """
from dataclasses import replace

class Twice:
    async def __call__(self, request, call_next):
        response = await call_next(request)
        return replace(response, content=response.content * 2)

async def thrice(request, call_next):
    response = await call_next(request)
    return replace(response, content=response.content * 3)

class Needy:
    def __init__(self, needed):
        pass

class Broken:
    def __init__(self):
        raise OSError("no luck")

number = 5
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "life_layers.py").write_text(LAYER, encoding="utf-8")
    return "life_layers"


@pytest.mark.parametrize(("name", "said"), [("Twice", "haha"), ("thrice", "hahaha")])
async def test_a_layer_of_ones_own_is_found_by_its_path(own_module: str, name: str, said: str) -> None:
    bench = Bench()
    chain = {"middleware": ["rate_limit", f"{own_module}:{name}", "metrics"]}
    async with await bench.open(**{"global": chain}) as manager:
        assert str(await manager.get_client().chat("ha")) == said


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("life_layers:Absent", "Absent"),
        ("life_layers:Needy", "needed"),
        ("life_layers:Broken", "no luck"),
        ("life_layers:number", "cannot be called"),
        ("no_such_module:Class", "no_such_module"),
    ],
)
async def test_a_path_that_leads_nowhere_is_refused_as_the_manager_opens(own_module: str, path: str, told: str) -> None:
    assert own_module
    with pytest.raises(LLMConfigurationError) as failure:
        await Bench().open(**{"global": {"middleware": ["rate_limit", path]}})
    assert told in str(failure.value)


async def test_a_cache_of_backend_none_and_a_chain_without_it_cache_nothing() -> None:
    for sections in ({"cache": {"backend": "none"}}, {"cache": {}, "global": {"middleware": ["rate_limit"]}}):
        bench = Bench()
        async with await bench.open(**sections) as manager:
            for _ in range(2):
                await manager.get_client().chat("hello")
        assert len(bench.upstream.requests) == 2


async def test_all_chains_of_a_provider_share_its_cache_and_its_misses_are_counted_once() -> None:
    bench = Bench()
    async with await bench.open(cache={}) as manager:
        for _ in range(50):
            await manager.get_client(middleware=["rate_limit", "cache", "metrics"]).chat("hello")
        assert len(bench.upstream.requests) == 1
        cache = manager.get_status()["metrics"]["cache"]
        assert (cache["hits"], cache["misses"]) == (49, 1)


# --- budgets ------------------------------------------------------------------------------------------------------


async def test_a_budget_is_reserved_settled_and_refuses_with_the_time_to_wait() -> None:
    # 1000 tokens of output at $600 per million are $0.6; the answer takes far less.
    prices = {MODEL: {"input": 100.0, "output": 600.0}}
    bench = Bench(service=10.0)
    budget = {"users": {"alice": {"cost_per_day": 1.0}}}
    async with await bench.open(prices=prices, limits=budget) as manager:
        client = manager.get_client(user="alice")

        def spent() -> float:
            return float(manager.get_status()["limits"]["user alice"]["cost_per_day"])

        running = asyncio.create_task(client.chat("hello", max_tokens=1000))
        await bench.clock.advance(1.0)
        assert spent() == pytest.approx(0.6, abs=0.01)
        with pytest.raises(LLMRateLimitError) as failure:
            await client.chat("too much now", max_tokens=1000)
        assert failure.value.scope == "user"
        assert failure.value.retry_after is not None
        assert 0 < failure.value.retry_after <= 86_401
        await bench.clock.advance(20.0)
        cost = running.result().cost
        assert cost is not None
        assert spent() == pytest.approx(cost, abs=0.001)
        assert manager.explain(LLMRequest("hello", max_tokens=1000, user="alice")).admitted
        assert spent() == pytest.approx(cost, abs=0.001)
        with pytest.raises(LLMRateLimitError):
            manager.explain(LLMRequest("hello", max_tokens=10_000, user="alice"))
        assert manager.get_status()["users"]["alice"]["cost"] == pytest.approx(cost)


async def test_an_unknown_price_under_a_budget_is_refused_and_names_prices_and_only_there() -> None:
    bench = Bench()
    budget = {"users": {"alice": {"cost_per_day": 1.0}}}
    async with await bench.open(openai={"models": ["my-own-model"]}, limits=budget) as manager:
        with pytest.raises(LLMInvalidRequestError, match="`prices:`"):
            await manager.get_client(user="alice").chat("hello")
        assert bench.upstream.requests == []
        assert str(await manager.get_client(user="bob").chat("hello")) == "hello"
        response = await manager.get_client().chat("hello")
        assert response.cost is None
        assert manager.get_status()["metrics"]["total_requests"] == 3


# --- renewing --------------------------------------------------------------------------------------------------------


async def test_a_renewal_keeps_the_connections_unless_their_bound_changes() -> None:
    async with LLMManager.open(config()) as manager:
        parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        first = parts._own_transport
        await manager.reload(config())
        second: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        assert second is not parts
        assert second._own_transport is first
        assert parts._own_transport is None
        await manager.reload(config(**{"global": {"timeouts": {"connect": 9.0}}}))
        third: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
        assert third._own_transport is not first


async def test_a_cache_of_another_size_starts_empty_and_one_of_the_same_goes_on() -> None:
    bench = Bench()
    async with await bench.open(cache={"max_entries": 10}) as manager:
        client = manager.get_client()
        await client.chat("hello")
        await manager.reload(config(cache={"max_entries": 10, "ttl": 60}))
        assert (await client.chat("hello")).cached
        await manager.reload(config(cache={"max_entries": 20}))
        assert not (await client.chat("hello")).cached
        assert (await client.chat("hello")).cached


async def test_reloads_leave_nothing_of_the_configurations_before_and_the_caches_counts_go_on() -> None:
    bench = Bench()
    before: list[weakref.ref[Any]] = []
    async with await bench.open(cache={}) as manager:
        client = manager.get_client()
        for _ in range(3):
            await client.chat("hello")
            before += [weakref.ref(manager._routes.parts), weakref.ref(layer_of(manager))]  # pyright: ignore[reportPrivateUsage]
            await manager.reload(config(cache={}))
        await client.chat("hello")

        def left() -> list[Any]:
            gc.collect()
            return [each() for each in before if each() is not None]

        await until(lambda: not left())  # what was before is closed in some of the loop's turns
        assert {name: manager.get_status()["cache"][name] for name in ("hits", "misses")} == {"hits": 3, "misses": 1}


def layer_of(manager: LLMManager) -> Any:
    parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
    return parts._layers._cache_layers["openai"]


async def test_clients_with_layers_that_no_longer_fit_keep_a_reload_from_changing_anything() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        client = manager.get_client(middleware=["rate_limit", "metrics"])
        route = client._route  # pyright: ignore[reportPrivateUsage]
        route._middleware = ("gone:Layer",)  # pyright: ignore[reportPrivateUsage]  # as if its module were gone now
        before = manager.config
        with pytest.raises(LLMConfigurationError, match="gone"):
            await manager.reload(config(openai={"api_keys": ["sk-new"]}))
        assert manager.config is before
        await client.chat("hello")
    assert [record.key for record in bench.upstream.requests] == ["sk-test-1"]


async def test_what_prompts_really_took_corrects_reservations_and_counts_also_over_a_reload() -> None:
    def answer(request: LLMRequest) -> LLMResponse:
        return LLMResponse(content="yes", usage=TokenUsage(3 * len(request.messages[0].text) // 4, 1))

    bench = Bench(answer=answer)
    own = {"models": ["my-own-model"]}
    async with await bench.open(openai=own) as manager:
        client = manager.get_client()
        assert await client.count_tokens("four" * 1000) == 1000
        await client.chat("four" * 1000, max_tokens=10)
        assert await client.count_tokens("four" * 1000) == 3000
        await manager.reload(config(openai=own))
        assert await client.count_tokens("four" * 1000) == 3000
        await manager.reload(config(openai={**own, "rate_limits": {"tokens_per_minute": 2999}}))
        with pytest.raises(LLMRateLimitError, match="3000 total tokens"):
            await client.chat("four" * 1000, max_tokens=10)


async def test_tokens_are_counted_exactly_for_openai_and_estimated_elsewhere() -> None:
    both = config()
    both["providers"]["anthropic"] = {
        "base_url": "http://upstream.test", "api_keys": ["sk-ant"], "models": ["claude-3-5-haiku-20241022"],
    }  # fmt: skip
    bench = Bench()
    async with LLMManager.open(both, transport=bench.upstream.transport(), clock=bench.clock) as manager:
        exact = await manager.get_client().count_tokens("Hello, how are you?")
        assert 6 <= exact <= 20
        assert await manager.get_client("anthropic").count_tokens("Hello, how are you?") > 0


# --- what is off is absent -----------------------------------------------------------------------------------------


def reached_from(*roots: object) -> set[str]:
    """Return the modules of the types of all that these hold, and what that holds, but for modules and classes."""
    seen: dict[int, object] = {}
    left = list(roots)
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, (type, type(sys))):
            continue
        seen[id(thing)] = thing
        held = gc.get_referents(thing)
        if isinstance(thing, FunctionType):  # not the globals of its module
            held = [*(cell.cell_contents for cell in thing.__closure__ or ())]
        left.extend(held)
    return {type(thing).__module__ for thing in seen.values()}


@pytest.mark.parametrize("on", [False, True])
async def test_a_chain_holds_nothing_of_tracing_unless_that_is_named(*, on: bool) -> None:
    stated = ["tracing"] * on + ["rate_limit", "retry", "cache", "logging", "metrics"]
    bench = Bench()
    calls: list[Any] = []

    async def look(request: LLMRequest, call_next: CallNext) -> LLMResult:
        calls.append(request.call)
        assert request.call is not None
        assert (request.call.trace is not None) == on
        return await call_next(request)

    async with await bench.open(cache={}, **{"global": {"middleware": stated}}) as manager:
        await manager.get_client(middleware=[*stated, look]).chat("x")
        client = manager.get_client()
        await client.chat("y")
        chain = client._route.chain  # pyright: ignore[reportPrivateUsage]
        held = reached_from(chain.call, chain.pool, chain.observers)
    tracing = {name for name in held if name.startswith(("llm.middleware.tracing", "llm.telemetry", "opentelemetry"))}
    assert bool(tracing) == on
    assert "llm.middleware.metrics" in held
    assert all(call.trace is None for call in calls)
    traced = [("traceparent" in request.headers) for request in bench.upstream.requests]
    assert on or traced == [False, False]  # with it, a program's provider decides, which other tests may have set


def test_without_tracing_a_call_loads_nothing_of_it(fresh_python: Callable[[str], str]) -> None:
    loaded = fresh_python("""
import asyncio, sys
from llm import LLMManager
from llm.testing import MockUpstream

async def main():
    up = MockUpstream("openai")
    section = {"base_url": "http://upstream.test/v1", "api_keys": ["k"], "models": ["m"]}
    async with LLMManager.open({"providers": {"openai": section}}, transport=up.transport()) as manager:
        await manager.get_client().chat("x")
        await manager.get_client().stream_complete("x").response()

asyncio.run(main())
print(*[name for name in sys.modules if name.startswith(("opentelemetry", "llm.middleware.tracing", "llm.telemetry"))])
""").split()
    assert set(loaded) <= {"llm.telemetry", "llm.telemetry.names"}
