"""Fallback between providers over real sockets: who answers when one fails, dies or has no key left."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import LLMException, LLMManager, LLMResponse, LLMStreamInterruptedError, LLMTimeoutError
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm import LLMClient

CLOCK = SystemClock()
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-3-5-haiku-20241022"}
FALLBACK = {"fallback": ["openai", "anthropic"]}
QUICK = {"max_attempts": 2, "initial_delay": 0}


def config(*, keys: int = 1, settings: dict[str, Any] | None = None, **upstreams: Any) -> dict[str, Any]:
    """Return a configuration of these upstreams (an address, or a mock), and what else is named."""
    sections = {name: upstreams.pop(name) for name in MODELS if name in upstreams}
    providers = {
        name: {
            "base_url": upstream if isinstance(upstream, str) else upstream.base_url,
            "api_keys": [f"sk-{name}-fallback-{i}" for i in range(keys)],
            "models": [MODELS[name]],
        }
        for name, upstream in sections.items()
    }
    return {"providers": providers, "global": {**FALLBACK, **(settings or {})}, "retry": QUICK, **upstreams}


async def many(client: LLMClient, number: int, *, streams: bool, at_once: int = 64) -> list[LLMResponse | LLMException]:
    """Make calls, every other one streamed where `streams`, and return what became of each."""
    outcomes: list[LLMResponse | LLMException] = []
    numbers = iter(range(number))

    async def work() -> None:
        for i in numbers:
            try:
                if streams and i % 2:
                    outcomes.append(await client.stream_complete(f"call {i}").response())
                else:
                    outcomes.append(await client.chat(f"call {i}"))
            except LLMException as error:
                outcomes.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return outcomes


def answered(outcomes: list[LLMResponse | LLMException]) -> list[LLMResponse]:
    return [outcome for outcome in outcomes if isinstance(outcome, LLMResponse)]


async def test_with_30_percent_of_one_providers_calls_failing_999_of_1000_calls_succeed() -> None:
    faults = [
        Fault("server_error", rate=0.1), Fault("reset_before", rate=0.07), Fault("unavailable", rate=0.08),
        Fault("error_in_200", rate=0.09),
    ]  # fmt: skip
    async with (
        MockUpstream("openai", faults=faults) as failing,
        MockUpstream("anthropic") as sound,
        LLMManager.open(config(openai=failing, anthropic=sound)) as manager,
    ):
        outcomes = await many(manager.get_client(), 1000, streams=False)
        metrics = manager.get_status()["metrics"]
        assert manager.get_status()["pool"]["calls"] == 0
    won = answered(outcomes)
    assert len(won) / 1000 >= 0.999
    by = {name: sum(response.provider == name for response in won) for name in MODELS}
    assert by["anthropic"] > 50  # with two attempts, one call in eleven comes to its end there
    assert by == {name: metrics["models"][model]["requests"] for name, model in MODELS.items()}
    assert metrics["total_requests"] == 1000
    assert metrics["retries"] == sum(response.attempts - 1 for response in won)
    met = sum(record.fault is not None for record in failing.requests) / len(failing.requests)
    assert met == pytest.approx(0.3, abs=0.05)


async def test_streams_that_fail_before_their_first_token_are_answered_by_the_next_provider() -> None:
    faults = [Fault("server_error", rate=0.15), Fault("polite_cut", rate=0.15, after_chunks=0)]
    async with (
        MockUpstream("openai", faults=faults) as failing,
        MockUpstream("anthropic") as sound,
        LLMManager.open(config(openai=failing, anthropic=sound)) as manager,
    ):
        outcomes = await many(manager.get_client(), 300, streams=True)
    assert len(answered(outcomes)) >= 300 * 0.999
    assert {response.provider for response in answered(outcomes)} == set(MODELS)


async def test_a_stream_that_breaks_after_its_first_token_is_told_with_what_came() -> None:
    faults = [Fault("polite_cut", every=1, after_chunks=3)]
    async with (
        MockUpstream("openai", faults=faults) as failing,
        MockUpstream("anthropic") as sound,
        LLMManager.open(config(openai=failing, anthropic=sound)) as manager,
    ):
        stream = manager.get_client().stream_complete("a text of several chunks, to be broken")
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await stream.response()
    assert caught.value.partial
    assert caught.value.partial == stream.text
    assert sound.requests == []


@pytest.mark.parametrize("kind", ["polite_cut", "truncated", "error_event"])
async def test_where_the_caller_asks_so_a_stream_that_breaks_is_carried_on_by_the_next_provider(kind: str) -> None:
    async with (
        MockUpstream("openai", faults=[Fault(kind, every=1, after_chunks=3)]) as failing,
        MockUpstream("anthropic", answer=lambda _: " and so on.") as sound,
        LLMManager.open(config(openai=failing, anthropic=sound)) as manager,
    ):
        stream = manager.get_client().stream_complete("a text of several chunks, to be broken", continue_stream=True)
        response = await stream.response()
        status = manager.get_status()
    [went_on] = response.continued
    assert (went_on.provider, response.provider) == ("anthropic", "openai")
    assert response.content[went_on.at :] == " and so on."
    assert went_on.at > 0
    [asked] = [record.body["messages"] for record in sound.requests]
    assert [turn["role"] for turn in asked] == ["user", "assistant", "user"]
    assert (status["pool"]["calls"], status["metrics"]["successful_requests"], len(failing.requests)) == (0, 1, 1)


async def test_a_stream_that_may_be_carried_on_and_is_abandoned_is_closed_and_not_carried_on() -> None:
    settings = {"timeouts": {"idle": 0.2}}
    async with (
        MockUpstream("openai", service=0.1) as left,
        MockUpstream("anthropic") as sound,
        LLMManager.open(config(openai=left, anthropic=sound, settings=settings)) as manager,
    ):
        stream = manager.get_client().stream_complete("a text of a good many chunks " * 8, continue_stream=True)
        await anext(stream)
        await until(lambda: manager.get_status()["pool"]["calls"] == 0)
        with pytest.raises(LLMTimeoutError, match="not read"):
            await stream.response()
    assert sound.requests == []


@pytest.mark.parametrize("how", ["nobody listens", "every key refused", "no credit", "overloaded"])
async def test_a_dead_provider_costs_no_call(how: str) -> None:
    kinds = {"every key refused": "auth", "no credit": "quota", "overloaded": "overloaded"}
    faults = [Fault(kinds[how], every=1)] if how in kinds else []
    async with AsyncExitStack() as stack:
        failing = await stack.enter_async_context(MockUpstream("openai", faults=faults))
        sound = await stack.enter_async_context(MockUpstream("anthropic"))
        address = failing.base_url if how in kinds else "http://127.0.0.1:9/v1"
        manager = await stack.enter_async_context(LLMManager.open(config(keys=2, openai=address, anthropic=sound)))
        outcomes = await many(manager.get_client(), 50, streams=True, at_once=10)
        log = manager.get_status()["calls"][-1]["log"]
        assert manager.get_status()["pool"]["calls"] == 0
    assert {response.provider for response in answered(outcomes)} == {"anthropic"}
    assert len(answered(outcomes)) == 50
    moved = [entry["detail"] for entry in log if entry["event"] == "fell_back"]
    assert [text.split(": LLM")[0] for text in moved] == ["from openai/gpt-4o-mini to anthropic/" + MODELS["anthropic"]]
    if how in {"every key refused", "no credit"}:  # once a key is out nobody asks with it again
        assert len(failing.requests) <= 2 * 10


async def test_a_reload_under_load_with_fallbacks_loses_no_call() -> None:
    faults = [Fault("server_error", rate=0.3)]
    async with (
        MockUpstream("openai", faults=faults, service=0.005) as failing,
        MockUpstream("anthropic", service=0.005) as sound,
        LLMManager.open(config(openai=failing, anthropic=sound)) as manager,
    ):

        async def reload() -> None:
            for keys in (2, 1, 3):
                await CLOCK.sleep(0.1)
                await manager.reload(config(keys=keys, openai=failing, anthropic=sound))

        async with asyncio.TaskGroup() as group:
            calls = group.create_task(many(manager.get_client(), 300, streams=True, at_once=8))
            group.create_task(reload())
        outcomes = calls.result()
        status = manager.get_status()
    assert [outcome for outcome in outcomes if isinstance(outcome, LLMException)] == []
    assert len(outcomes) == status["metrics"]["total_requests"] == 300
    assert (status["pool"]["calls"], status["pool"]["waiting"]) == (0, 0)


async def test_no_key_is_told_when_every_provider_refuses_its_own() -> None:
    refused = [Fault("auth", every=1, message="wrong key {key}")]
    async with (
        MockUpstream("openai", faults=refused) as one,
        MockUpstream("anthropic", faults=refused) as other,
        LLMManager.open(config(openai=one, anthropic=other)) as manager,
    ):
        for outcome in await many(manager.get_client(), 4, streams=True, at_once=1):
            assert isinstance(outcome, LLMException)
            assert "no other target could serve: openai/gpt-4o-mini (LLMAuthenticationError" in str(outcome)
            assert "fallback-0" not in str(outcome)
