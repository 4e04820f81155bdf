"""Whose call it is: each key has its own quota, and nothing in a request moves it to another user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.testing import FakeClock, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
MALLORY, VICTIM = "of-mallory-0123456789", "of-the-victim-0123456789"
MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "Hello"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": HELLO},
    "/v1/completions": {"model": MODEL, "prompt": "Hello"},
    "/v1/responses": {"model": MODEL, "input": "Hello"},
    "/v1/embeddings": {"model": MODEL, "input": "Hello"},
    "/v1/messages": {"model": MODEL, "messages": HELLO, "max_tokens": 20},
    "/v1/generate": {"model": MODEL, "prompt": "Hello"},
}
STREAMED = [path for path in ROUTES if path != "/v1/embeddings"]
HEADERS = (
    *("x-user", "x-user-id", "x-forwarded-user", "openai-user", "openai-organization", "openai-project"),
    *("anthropic-user-id", "x-litellm-end-user-id", "x-real-ip", "x-forwarded-for", "forwarded"),
)


def of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def fresh(name: str) -> dict[str, Any]:
    """Users that no other test has: managers of one process share their users' accounts."""
    users = {who: {"requests_per_hour": 1} for who in (f"{name}-mallory", f"{name}-victim")}
    keys = {"m": {"key": MALLORY, "user": f"{name}-mallory"}, "v": {"key": VICTIM, "user": f"{name}-victim"}}
    return {"limits": {"users": users}, "gateway": {"api_keys": keys}}


@pytest.mark.parametrize("path", ROUTES)
async def test_promise_39_nothing_in_a_request_moves_it_to_another_user(serving: Gateways, path: str) -> None:
    config = fresh(path)
    body = {**ROUTES[path], "user": f"{path}-victim", "metadata": {"user_id": f"{path}-victim"}}
    if path == "/v1/generate":
        body.pop("metadata")
    async with serving(**config) as it:
        headers = of(MALLORY) | dict.fromkeys(HEADERS, f"{path}-victim")
        first = await it.ask("POST", path, body, headers=headers)
        assert first[0] == 200, first
        status, told, answered = await it.ask("POST", path, body, headers=headers)
        assert status == 429
        assert 3590 < int(answered["retry-after"]) <= 3601
        assert "of the user" in str(told)
        assert "victim" not in str(told)
        assert (await it.ask("POST", path, ROUTES[path], headers=of(VICTIM)))[0] == 200


async def test_promise_39_a_keys_quota_is_one_over_all_routes(serving: Gateways) -> None:
    async with serving(**fresh("all")) as it:
        assert (await it.ask("POST", "/v1/messages", ROUTES["/v1/messages"], headers={"x-api-key": MALLORY}))[0] == 200
        for path, body in ROUTES.items():
            status, _, headers = await it.ask("POST", path, body, headers=of(MALLORY))
            assert (status, int(headers["retry-after"]) > 3590) == (429, True)
        for path in STREAMED:
            status, _, headers = await it.ask("POST", path, {**ROUTES[path], "stream": True}, headers=of(MALLORY))
            assert (status, int(headers["retry-after"]) > 3590) == (429, True)
        assert (await it.ask("POST", "/v1/generate", ROUTES["/v1/generate"], headers=of(VICTIM)))[0] == 200


async def test_two_keys_of_one_user_have_one_quota(serving: Gateways) -> None:
    keys = {"one": {"key": MALLORY, "user": "shared"}, "two": {"key": VICTIM, "user": "shared"}}
    config = {"limits": {"users": {"shared": {"requests_per_hour": 1}}}, "gateway": {"api_keys": keys}}
    async with serving(**config) as it:
        path = "/v1/chat/completions"
        assert (await it.ask("POST", path, ROUTES[path], headers=of(MALLORY)))[0] == 200
        assert (await it.ask("POST", path, ROUTES[path], headers=of(VICTIM)))[0] == 429


@pytest.mark.parametrize(("wait", "statuses"), [(0, [200, 429]), (60, [200, 200])])
async def test_a_users_limit_holds_a_call_for_as_long_as_the_gateway_lets_it(
    serving: Gateways, wait: float, statuses: list[int]
) -> None:
    config = fresh(f"waits-{wait}")
    config["limits"]["users"][f"waits-{wait}-mallory"] = {"concurrent_requests": 1}
    config["gateway"]["max_user_wait"] = wait
    path = "/v1/chat/completions"
    clock = FakeClock()
    async with MockUpstream(service=3.0, clock=clock) as up, serving(up, **config) as it, asyncio.TaskGroup() as group:
        tasks = [group.create_task(it.ask("POST", path, ROUTES[path], headers=of(MALLORY))) for _ in range(2)]
        await until(lambda: any(task.done() for task in tasks) or it.manager.get_status()["pool"]["waiting"] == 1)
        while not all(task.done() for task in tasks):
            await clock.advance(3.0)
            await CLOCK.sleep(0.002)
    assert up.most_active == 1
    assert sorted(task.result()[0] for task in tasks) == statuses
    refused = [task.result()[2]["retry-after"] for task in tasks if task.result()[0] == 429]
    assert refused == ["1"] * statuses.count(429)
