"""The circuit breaker in front of a server that fails, over real sockets."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm import LLMCircuitOpenError, LLMManager, LLMOverloadedError
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from llm import LLMClient, LLMException

MODEL = "gpt-4o-mini"
MIN_CALLS, PROBES, OPEN_FOR = 10, 3, 0.4


def config(upstream: MockUpstream, **sections: Any) -> dict[str, Any]:
    provider = {"base_url": upstream.base_url, "api_keys": ["sk-1", "sk-2"], "models": [MODEL]}
    breaker = {"min_calls": MIN_CALLS, "half_open_calls": PROBES, "open_for": OPEN_FOR}
    retry = {"max_attempts": 1}
    return {"providers": {"openai": provider}, "circuit_breaker": breaker, "retry": retry, **sections}


async def unary(client: LLMClient) -> str:
    return str(await client.chat("hello"))


async def stream(client: LLMClient) -> str:
    return str(await client.stream_complete("hello").response())


async def outcome(call: Any, client: LLMClient) -> str | LLMException:
    try:
        answer: str = await call(client)
    except (LLMCircuitOpenError, LLMOverloadedError) as error:
        return error
    return answer


async def all_at_once(times: int, call: Any, client: LLMClient) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(call, client)) for _ in range(times)]
    return [task.result() for task in tasks]


def state(manager: LLMManager) -> Any:
    return manager.get_status()["providers"]["openai"]["breakers"][MODEL]["state"]


def calls(manager: LLMManager) -> int:
    """Return how many calls run."""
    running: int = manager.get_status()["pool"]["calls"]
    return running


@pytest.mark.parametrize("call", [unary, stream])
async def test_the_breaker_opens_at_its_threshold_refuses_without_a_request_and_closes_when_its_probes_succeed(
    call: Any,
) -> None:
    clock, there = FakeClock(), FakeClock()  # of the manager, and of the server, whose slow answers wait for it
    faults = [Fault("overloaded", at=1, times=MIN_CALLS), Fault("slow", at=MIN_CALLS + 1, times=PROBES)]
    async with (
        MockUpstream(faults=faults, clock=there) as upstream,
        LLMManager.open(config(upstream), clock=clock) as manager,
    ):
        client = manager.get_client()
        for i in range(MIN_CALLS):
            assert state(manager) == "closed", i
            assert isinstance(await outcome(call, client), LLMOverloadedError)
        assert state(manager) == "open"

        refused = await all_at_once(20, call, client)
        assert {type(error) for error in refused} == {LLMCircuitOpenError}
        assert all(0.0 < error.retry_after <= OPEN_FOR and error.attempts == 0 for error in refused)
        assert len(upstream.requests) == MIN_CALLS

        await clock.advance(OPEN_FOR)
        assert state(manager) == "half_open"
        trying = asyncio.create_task(all_at_once(50, call, client))
        await until(lambda: len(upstream.requests) == MIN_CALLS + PROBES and calls(manager) == PROBES)
        await there.advance(1.0)
        tried = await trying
        assert sorted(type(result).__name__ for result in tried) == ["LLMCircuitOpenError"] * 47 + ["str"] * PROBES
        assert len(upstream.requests) == MIN_CALLS + PROBES
        assert state(manager) == "closed"
        assert await all_at_once(10, call, client) == ["hello"] * 10


async def test_one_probe_that_fails_opens_it_again_and_one_that_is_cancelled_makes_room_for_another() -> None:
    faults = [Fault("overloaded", at=1, times=MIN_CALLS), Fault("unavailable", at=MIN_CALLS + 2)]
    slow = Fault("slow", rate=1.0)
    clock, there = FakeClock(), FakeClock()
    async with (
        MockUpstream(faults=[*faults, slow], clock=there) as upstream,
        LLMManager.open(config(upstream), clock=clock) as manager,
    ):
        client = manager.get_client()
        for _ in range(MIN_CALLS):
            await outcome(unary, client)
        await clock.advance(OPEN_FOR)
        probe = asyncio.create_task(unary(client))
        await until(lambda: len(upstream.requests) > MIN_CALLS)
        probe.cancel()
        await asyncio.wait([probe])
        assert state(manager) == "half_open"

        trying = asyncio.create_task(all_at_once(20, unary, client))
        await until(lambda: len(upstream.requests) == MIN_CALLS + 1 + PROBES and calls(manager) == PROBES - 1)
        await there.advance(1.0)
        tried = await trying
        assert len(upstream.requests) == MIN_CALLS + 1 + PROBES
        assert [type(result).__name__ for result in tried].count("LLMOverloadedError") == 1
        assert state(manager) == "open"


async def test_opening_ends_the_wait_of_all_who_queue_and_a_cache_hit_never_meets_it() -> None:
    async with MockUpstream(faults=[Fault("overloaded", at=2, times=99)]) as upstream:
        sections = config(upstream, cache={})
        sections["providers"]["openai"]["rate_limits"] = {"requests_per_minute": 6}  # of each key
        async with LLMManager.open(sections, clock=FakeClock()) as manager:
            client = manager.get_client()
            await client.chat("kept")
            results = await all_at_once(40, unary_of_its_own, client)
            kinds = [type(result).__name__ for result in results]
            assert (kinds.count("LLMOverloadedError"), kinds.count("LLMCircuitOpenError")) == (11, 29)
            assert manager.get_status()["pool"]["waiting"] == 0
            assert (await client.chat("kept")).cached


async def unary_of_its_own(client: LLMClient) -> str:
    return str(await client.chat("hello", cache=False))
