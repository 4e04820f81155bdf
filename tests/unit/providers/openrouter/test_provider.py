"""Providers of one section at a real server: one list for all keys, asked for without a key."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from llm import LLMManager
from llm.core.exceptions import LLMAuthenticationError, LLMConnectionError, LLMInvalidRequestError
from llm.core.types import LLMRequest
from llm.providers.openrouter import OpenRouterFactory
from llm.testing import MockUpstream
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.unit.providers.conftest import Server

    from llm.core.protocols import ProviderSettings
    from llm.providers.openrouter import OpenRouterProvider

REQUEST = LLMRequest("Hi", model="openai/o3-mini", temperature=0.5)
MODELS, CALLS = "/v1/models", "/v1/chat/completions"


@pytest.fixture
def router(server: Server, wire: Callable[[str], bytes]) -> Server:
    """The server, as OpenRouter."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = "models" if request.path == MODELS else "answer"
        return web.Response(body=wire(f"openrouter/{path}.json"), content_type="application/json")

    server.answer = answer
    return server


@pytest.fixture
async def keys(settings: ProviderSettings, router: Server) -> AsyncIterator[list[OpenRouterProvider]]:
    assert router.url == settings.base_url
    make = OpenRouterFactory()
    made = [make(replace(settings, key=Secret(f"sk-test-{at}"))) for at in range(10)]
    yield made
    for provider in made:
        await provider.close()


async def test_a_hundred_first_calls_on_ten_keys_fetch_the_list_once_and_without_a_key(
    keys: list[OpenRouterProvider], router: Server
) -> None:
    async with asyncio.TaskGroup() as group:
        for provider in keys * 10:
            group.create_task(provider.complete(REQUEST))
    fetched = [request for request in router.requests if request.path == MODELS]
    assert len(fetched) == 1
    assert "authorization" not in fetched[0].headers
    bodies = [body for body in router.bodies if body is not None]
    assert len(bodies) == 100
    assert not any("temperature" in body for body in bodies)


async def test_what_one_key_was_warned_of_no_other_is(
    keys: list[OpenRouterProvider], caplog: pytest.LogCaptureFixture
) -> None:
    for provider in keys:
        await provider.complete(REQUEST)
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "section: openai/o3-mini does not take temperature"
    ]


async def test_refused_parameters_send_nothing(settings: ProviderSettings, router: Server) -> None:
    provider = OpenRouterFactory()(replace(settings, on_unsupported="refuse"))
    with pytest.raises(LLMInvalidRequestError, match="does not take temperature"):
        await provider.complete(REQUEST)
    with pytest.raises(LLMInvalidRequestError, match="does not take temperature"):
        await provider.stream(REQUEST)
    await provider.close()
    assert [request.path for request in router.requests] == [MODELS]


async def test_preferences_of_the_section_reach_the_server(settings: ProviderSettings, router: Server) -> None:
    provider = OpenRouterFactory()(replace(settings, routing={"provider": {"sort": "price"}, "models": ["b"]}))
    await provider.complete(REQUEST)
    await provider.close()
    assert router.bodies[-1]["provider"] == {"sort": "price"}
    assert router.bodies[-1]["models"] == ["b"]


async def test_a_server_without_a_list_serves_all_the_same(
    settings: ProviderSettings, server: Server, wire: Callable[[str], bytes]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == MODELS:
            return web.Response(status=404)
        return web.Response(body=wire("openrouter/answer.json"), content_type="application/json")

    server.answer = answer
    provider = OpenRouterFactory()(settings)
    assert str(await provider.complete(REQUEST)) == "Let me look."
    await provider.close()
    assert server.bodies[-1]["temperature"] == 0.5


async def test_a_key_that_is_replaced_leaves_the_list_to_the_others(settings: ProviderSettings, router: Server) -> None:
    make = OpenRouterFactory()
    first, second = make(settings), make(settings)
    await first.complete(REQUEST)
    await first.close()
    await first.close()
    third = make(settings)
    await second.complete(REQUEST)
    await third.complete(REQUEST)
    for provider in (second, third):
        await provider.close()
    assert [request.path for request in router.requests] == [MODELS, CALLS, CALLS, CALLS]


async def test_addresses_have_lists_of_their_own_and_nobodys_list_is_freed(
    settings: ProviderSettings, router: Server
) -> None:
    make = OpenRouterFactory()
    near, far = make(settings), make(replace(settings, base_url=f"{router.url}/other/v1"))
    for provider in (near, far):
        await provider.complete(REQUEST)
        await provider.close()
    assert {request.path for request in router.requests} == {MODELS, CALLS, "/other/v1/models", "/other" + CALLS}
    assert len(make._listings) == 2  # pyright: ignore[reportPrivateUsage] - what is freed shows nowhere else
    del near, far, provider
    gc.collect()
    assert len(make._listings) == 0  # pyright: ignore[reportPrivateUsage] - as above


async def test_close_ends_a_fetch_that_hangs_and_the_call_that_waits_for_it(
    settings: ProviderSettings, server: Server
) -> None:
    enough = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.path == MODELS
        await enough.wait()
        return web.Response()

    server.answer = answer
    provider = OpenRouterFactory()(settings)
    call = asyncio.get_running_loop().create_task(provider.complete(LLMRequest("Hi", model="m")))
    await asyncio.wait([call], timeout=0.1)
    assert not call.done()
    await provider.close()
    assert not [task for task in asyncio.all_tasks() if "Listing._fetch" in repr(task)]
    with pytest.raises(LLMConnectionError, match="closed"):
        await call
    enough.set()


async def test_health_is_the_keys_own() -> None:
    async with MockUpstream("openrouter", api_keys=["k1"]) as upstream:
        section = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["m"]}
        async with LLMManager.open({"providers": {"openrouter": section}}) as manager:
            assert (await manager.health_check())["openrouter"].healthy
        section["api_keys"] = ["k2"]
        async with LLMManager.open({"providers": {"openrouter": section}}) as manager:
            assert not (await manager.health_check())["openrouter"].healthy
            with pytest.raises(LLMAuthenticationError):
                await manager.get_client().chat("Hi")
