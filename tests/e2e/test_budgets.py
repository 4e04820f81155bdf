"""Budgets over real sockets: whatever becomes of a hundred calls at once, they stop before the bill exceeds them."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.patience import PATIENCE, until

from llm import LLMException, LLMManager, LLMRateLimitError
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm import LLMClient, LLMRequest

MODEL = "gpt-4o-mini"
PROMPT, ANSWER, MOST = "four" * 25, "four" * 75, 75
PRICES = {MODEL: {"input": 100.0, "output": 200.0}}  # US dollars per million tokens
OF_PROMPT, COST = 25 * 100 / 1e6, (25 * 100 + 75 * 200) / 1e6
CALLS, ROOM = 100, 30
BUDGET = ROOM * COST


def upstream_of(**options: Any) -> MockUpstream:
    def say(_: LLMRequest) -> str:
        return ANSWER

    return MockUpstream(answer=say, **options)


def config(*upstreams: MockUpstream, budget: float = BUDGET, **sections: Any) -> dict[str, Any]:
    names = ("openai", "second")
    providers = {
        name: {"type": "openai", "base_url": upstream.base_url, "api_keys": ["k1", "k2"], "models": [MODEL]}
        for name, upstream in zip(names, upstreams, strict=False)
    }
    limits = {"users": {"default": {"cost_per_day": budget, **sections.pop("user", {})}}}
    return {"providers": providers, "prices": PRICES, "limits": limits, "retry": {"initial_delay": 0.01}, **sections}


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user that no other test has: managers of one process share their users' accounts."""
    item = cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType] # bare in pytest 9.1
    return item.name


def spent(manager: LLMManager, user: str, budget: float = BUDGET) -> float:
    """Return US dollars that are counted for a user."""
    return float(manager.get_status()["limits"][f"user {user}"]["cost_per_day"]) * budget


async def whole(client: LLMClient) -> object:
    return await client.chat(PROMPT, max_tokens=MOST)


async def streamed(client: LLMClient) -> object:
    return await client.stream_complete(PROMPT, max_tokens=MOST).response()


ways = pytest.mark.parametrize("call", [whole, streamed])


def sort(tasks: list[asyncio.Task[object]]) -> tuple[int, list[LLMException]]:
    """Return how many were answered, and how the others failed."""
    failures = [error for task in tasks if not task.cancelled() and isinstance(error := task.exception(), LLMException)]
    return sum(not task.cancelled() and task.exception() is None for task in tasks), failures


@ways
async def test_of_a_hundred_calls_at_once_only_those_are_sent_that_the_users_budget_pays(
    call: Callable[[LLMClient], Awaitable[object]], user: str
) -> None:
    async with upstream_of(service=0.05) as upstream, LLMManager.open(config(upstream)) as manager:
        client = manager.get_client(user=user)
        tasks = [asyncio.create_task(_run(call, client)) for _ in range(CALLS)]
        await asyncio.wait(tasks)
        answered, failures = sort(tasks)
        assert answered == len(upstream.requests) == ROOM
        assert {(type(error), error.attempts) for error in failures} == {(LLMRateLimitError, 0)}
        assert {getattr(error, "limit", None) for error in failures} == {"cost_per_day"}
        assert spent(manager, user) == pytest.approx(BUDGET)
        assert manager.get_status()["users"][user]["cost"] == pytest.approx(BUDGET)


@ways
async def test_attempts_that_fail_are_paid_once_each_and_never_beyond_the_budget(
    call: Callable[[LLMClient], Awaitable[object]], user: str
) -> None:
    faults = [Fault("server_error", rate=0.3), Fault("rate_limit", rate=0.1)]
    async with upstream_of(service=0.02, faults=faults) as upstream, LLMManager.open(config(upstream)) as manager:
        client = manager.get_client(user=user)
        tasks = [asyncio.create_task(_run(call, client)) for _ in range(CALLS)]
        await asyncio.wait(tasks)
        answered, failures = sort(tasks)
        failed = [record for record in upstream.requests if record.fault == "server_error"]
        assert answered + len(failures) == CALLS
        assert spent(manager, user) == pytest.approx(answered * COST + len(failed) * OF_PROMPT, abs=BUDGET * 1e-4)
        assert answered * COST + len(failed) * OF_PROMPT <= BUDGET + 1e-9


@ways
async def test_calls_that_are_cancelled_keep_their_prompts_price_and_make_room_for_others(
    call: Callable[[LLMClient], Awaitable[object]], user: str
) -> None:
    async with upstream_of(service=2 * PATIENCE) as upstream, LLMManager.open(config(upstream)) as manager:
        client = manager.get_client(user=user)
        tasks = [asyncio.create_task(_run(call, client)) for _ in range(CALLS)]
        await until(lambda: upstream.active == ROOM)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        came = spent(manager, user) - ROOM * OF_PROMPT
        assert 0.0 <= came + 1e-6 <= ROOM * 10 * 200 / 1e6  # of streams the few chunks that had come
        assert len(upstream.requests) == ROOM


async def test_a_hundred_calls_through_reloads_are_held_to_the_budget_and_to_a_raised_one_at_once(user: str) -> None:
    async with upstream_of(service=0.3) as upstream, LLMManager.open(config(upstream)) as manager:
        client = manager.get_client(user=user)
        tasks = [asyncio.create_task(_run(whole, client)) for _ in range(CALLS // 2)]
        await asyncio.wait(tasks, timeout=0.05)
        for turn in range(3):
            await manager.reload(config(upstream, user={"requests_per_day": 1000 + turn}))
            tasks += [asyncio.create_task(_run(whole, client)) for _ in range(10)]
            await asyncio.wait(tasks, timeout=0.02)
        await asyncio.wait(tasks)
        assert sort(tasks)[0] == len(upstream.requests) == ROOM
        await manager.reload(config(upstream, budget=BUDGET + 5 * COST))
        tasks = [asyncio.create_task(_run(whole, client)) for _ in range(20)]
        await asyncio.wait(tasks)
        assert sort(tasks)[0] == 5
        assert spent(manager, user, BUDGET + 5 * COST) == pytest.approx(BUDGET + 5 * COST)


async def test_a_users_budget_holds_over_all_providers_together(user: str) -> None:
    async with (
        upstream_of(service=0.05) as one,
        upstream_of(service=0.05) as other,
        LLMManager.open(config(one, other)) as manager,
    ):
        clients = [manager.get_client(name, user=user) for name in ("openai", "second")]
        tasks = [asyncio.create_task(_run(whole, clients[number % 2])) for number in range(CALLS)]
        await asyncio.wait(tasks)
        assert sort(tasks)[0] == len(one.requests) + len(other.requests) == ROOM


async def _run(call: Callable[[LLMClient], Awaitable[object]], client: LLMClient) -> object:
    return await call(client)
