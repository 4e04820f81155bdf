"""What the provider itself says that an answer costs goes before our table of prices, wherever money is counted."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

from typing import Any

import pytest

from llm import LLMManager, LLMRateLimitError, LLMRequest, LLMResponse
from llm.testing import FakeClock, MockUpstream

MODEL = "meta-llama/llama-3.1-8b-instruct"
TOLD = 0.25
PRICES = {MODEL: {"input": 1.0, "output": 1.0}}


class Bench:
    """A manager on a virtual clock, in front of an OpenRouter without a socket, each answer of which costs `TOLD`."""

    def __init__(self, kind: str = "openrouter") -> None:
        def say(_: LLMRequest) -> LLMResponse:
            return LLMResponse(content="Hello there", cost=TOLD)

        self.clock = FakeClock()
        self.upstream = MockUpstream("openrouter" if kind == "openrouter" else "openai", clock=self.clock, answer=say)
        self.kind = kind

    def open(self, **sections: Any) -> Any:
        section: dict[str, Any] = {"base_url": self.upstream.base_url, "api_keys": ["k1"], "models": [MODEL]}
        section |= sections.pop("section", {})
        config = {"providers": {self.kind: section}, **sections}
        return LLMManager.open(config, transport=self.upstream.transport(), clock=self.clock)


async def ask(manager: LLMManager, *, stream: bool, text: str = "Hi") -> LLMResponse:
    client = manager.get_client()
    return await client.stream_complete(text).response() if stream else await client.chat(text)


streaming = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@streaming
async def test_it_is_the_responses_cost_and_the_metrics(*, stream: bool) -> None:
    async with Bench().open(prices=PRICES) as manager:
        response = await ask(manager, stream=stream)
        assert (str(response), response.cost) == ("Hello there", TOLD)
        metrics = manager.get_status()["metrics"]
        assert (metrics["cost"], metrics["models"][MODEL]["cost"]) == (TOLD, TOLD)


@streaming
async def test_a_user_is_charged_it(*, stream: bool) -> None:
    async with Bench().open() as manager:
        client = manager.get_client(user="ann")
        await (client.stream_complete("Hi").response() if stream else client.chat("Hi"))
        assert manager.get_status()["users"]["ann"]["cost"] == TOLD


@streaming
async def test_a_budget_in_dollars_settles_to_it(*, stream: bool) -> None:
    async with Bench().open(prices=PRICES, section={"rate_limits": {"cost_per_day": 2.5 * TOLD}}) as manager:
        for _ in range(3):
            await ask(manager, stream=stream)
        with pytest.raises(LLMRateLimitError, match="cost_per_day"):
            await ask(manager, stream=stream)


@streaming
async def test_a_provider_that_tells_none_is_counted_by_our_prices(*, stream: bool) -> None:
    async with Bench("openai").open(prices=PRICES) as manager:
        response = await ask(manager, stream=stream)
        assert response.cost == pytest.approx(response.usage.total_tokens / 1e6)


@streaming
async def test_what_the_cache_answers_costs_nothing(*, stream: bool) -> None:
    async with Bench().open(cache={}) as manager:
        assert (await ask(manager, stream=stream)).cost == TOLD
        again = await ask(manager, stream=stream)
        assert (again.cached, again.cost) == (True, 0.0)
        assert (await ask(manager, stream=not stream)).cost == 0.0
        assert manager.get_status()["metrics"]["cost"] == TOLD


async def test_a_stream_tells_it_with_its_usage_and_not_before() -> None:
    async with Bench().open() as manager:
        stream = manager.get_client().stream_complete("Hi")
        costs = [(chunk.cost, stream.cost) async for chunk in stream]
        assert costs == [(None, None)] * (len(costs) - 1) + [(TOLD, TOLD)]


async def test_a_layers_own_answer_from_a_cache_of_its_own_is_not_priced() -> None:
    async def kept(_: LLMRequest, __: Any) -> LLMResponse:
        return LLMResponse(content="kept", cached=True)

    async with Bench().open(prices=PRICES) as manager:
        assert (await manager.get_client(middleware=[kept]).chat("Hi")).cost is None


async def test_a_section_is_passed_on_whole() -> None:
    bench = Bench()
    section = {"headers": {"X-Title": "App"}, "routing": {"sort": "price"}, "on_unsupported": "refuse"}
    async with bench.open(section=section) as manager:
        await ask(manager, stream=False)
    (request,) = bench.upstream.requests
    assert (request.headers["x-title"], request.body["provider"]) == ("App", {"sort": "price"})
