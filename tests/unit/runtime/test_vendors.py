"""The vendors' clients in a manager: one for each key, made anew by a reload, closed with it."""

from __future__ import annotations

from typing import Any

import pytest

from llm import LLMConfigurationError, LLMManager, LLMRateLimitError
from llm.testing import Fault, MockUpstream

MODEL = "gpt-4o-mini"
KEYS = ["sk-test-1-of-two-keys", "sk-test-2-of-two-keys"]


def config(**openai: Any) -> dict[str, Any]:  # noqa: ANN401 - as it comes
    section = {"base_url": "http://upstream.test/v1", "api_keys": KEYS, "models": [MODEL], "transport": "sdk"}
    return {"providers": {"openai": {**section, **openai}}, "retry": {"initial_delay": 0.001, "max_delay": 0.001}}


def made(manager: LLMManager) -> list[Any]:
    parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage]
    return list(parts._vendors._made)


async def test_calls_through_the_vendors_client_are_carried_by_the_transport_that_was_given() -> None:
    upstream = MockUpstream("openai")
    async with LLMManager.open(config(), transport=upstream.transport()) as manager:
        client = manager.get_client()
        assert str(await client.chat("one")) == "one"
        assert "".join([str(chunk) async for chunk in client.stream_complete("two and more")]) == "two and more"
        assert (await manager.health_check())["openai"]
    asked = [request for request in upstream.requests if "chat" in request.path]
    assert {request.headers["user-agent"].partition("/")[0] for request in asked} == {"AsyncOpenAI"}
    assert [request.headers["authorization"] for request in asked] == [f"Bearer {key}" for key in KEYS]


async def test_only_our_retry_sends_again() -> None:
    upstream = MockUpstream("openai", faults=[Fault("server_error", at=1), Fault("rate_limit", at=3)])
    one_key = config(api_keys=KEYS[:1])
    one_key["retry"]["retry_after_max"] = 0.0001
    async with LLMManager.open(one_key, transport=upstream.transport()) as manager:
        response = await manager.get_client().chat("again")
        assert (str(response), response.attempts, len(upstream.requests)) == ("again", 2, 2)
        with pytest.raises(LLMRateLimitError):
            await manager.get_client().chat("refused")
        assert len(upstream.requests) == 3


async def test_each_key_has_a_client_which_a_reload_makes_anew_and_the_end_closes() -> None:
    upstream = MockUpstream("openai")
    async with LLMManager.open(config(), transport=upstream.transport()) as manager:
        first = made(manager)
        assert len(first) == 2
        await manager.get_client().chat("one")
        await manager.reload(config(api_keys=KEYS[:1]))
        second = made(manager)
        assert len(second) == 1
        assert second[0] not in first
        assert str(await manager.get_client().chat("two")) == "two"
        assert not second[0]._closed
    assert all(each._closed for each in (*first, *second))


async def test_a_client_that_cannot_be_made_is_refused_as_the_manager_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    with pytest.raises(LLMConfigurationError, match=r"providers\.openai.*api_version"):
        await LLMManager.open(config(sdk={"client": "azure"}))


async def test_a_key_that_stands_twice_has_one_client() -> None:
    upstream = MockUpstream("openai")
    async with LLMManager.open(config(api_keys=[*KEYS, KEYS[0]]), transport=upstream.transport()) as manager:
        assert len(made(manager)) == 2
