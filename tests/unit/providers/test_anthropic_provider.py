from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMException,
    LLMInvalidRequestError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.core.manager import LLMManager
from llm.core.messages import Message, MessageRole
from llm.core.protocols import TokenCounting
from llm.core.types import LLMRequest
from llm.providers.anthropic.provider import AnthropicProvider
from llm.runtime.registry import provider_factory
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import ProviderSettings, Reply
    from llm.utils.clock import Clock

REQUEST = LLMRequest(
    [Message(MessageRole.SYSTEM, "Be short"), Message(MessageRole.USER, "Hello")], model="m", max_tokens=9
)


@pytest.fixture
def provider(settings: ProviderSettings) -> AnthropicProvider:
    return AnthropicProvider(settings)


def _error(kind: str, message: str) -> bytes:
    return f'{{"type": "error", "error": {{"type": "{kind}", "message": "{message}"}}}}'.encode()


async def test_a_prompt_is_counted_by_the_vendor(provider: AnthropicProvider, server: Any) -> None:  # noqa: ANN401 - the fixture's
    server.says(b'{"input_tokens": 17}')
    assert await provider.count_tokens(REQUEST) == 17
    assert server.requests[0].path == "/v1/messages/count_tokens"
    assert server.requests[0].headers["x-api-key"].startswith("sk-test")
    assert server.bodies == [{"model": "m", "messages": [{"role": "user", "content": "Hello"}], "system": "Be short"}]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, _error("authentication_error", "invalid x-api-key"), LLMAuthenticationError),
        (404, _error("not_found_error", "model: m"), LLMInvalidRequestError),
        (400, _error("invalid_request_error", "messages: too many"), LLMInvalidRequestError),
        (500, b"down", LLMServerError),
        (200, b"{}", LLMServerError),
        (200, b'{"input_tokens": -1}', LLMServerError),
        (200, b"[]", LLMServerError),
    ],
)
async def test_a_count_fails_as_a_call_does(
    provider: AnthropicProvider,
    server: Any,  # noqa: ANN401 - the fixture's
    status: int,
    body: bytes,
    kind: type[LLMException],
) -> None:
    server.says(body, status=status, request_id="req_1")
    with pytest.raises(kind) as caught:
        await provider.count_tokens(REQUEST)
    assert (caught.value.provider, caught.value.model, caught.value.request_id) == ("section", "m", "req_1")
    assert caught.value.__context__ is None


async def test_a_request_that_cannot_be_said_is_not_asked_about(provider: AnthropicProvider) -> None:
    with pytest.raises(LLMInvalidRequestError, match="user's turn"):
        await provider.count_tokens(LLMRequest([Message(MessageRole.SYSTEM, "x")], model="m"))


@pytest.mark.parametrize("body", [b'{"detail": "Not Found"}', b"<html>", _error("not_found_error", "Not Found")])
async def test_a_server_without_the_address_cannot_tell(
    provider: AnthropicProvider,
    server: Any,  # noqa: ANN401 - the fixture's
    body: bytes,
) -> None:
    server.says(body, status=404)
    assert await provider.count_tokens(LLMRequest("Hello", model="claude-x")) is None


def test_anthropics_kind_of_provider_counts(settings: ProviderSettings) -> None:
    assert isinstance(provider_factory("anthropic")(settings), TokenCounting)
    assert not isinstance(provider_factory("openai")(settings), TokenCounting)


def _config(**global_: object) -> dict[str, Any]:
    section = {"base_url": "http://upstream.test", "api_keys": ["k1", "k2"], "models": ["m"]}
    return {"global": global_, "providers": {"anthropic": section}}


async def test_a_client_counts_exactly_by_a_key_that_is_in_the_rotation() -> None:
    clock = FakeClock(auto=True)
    up = MockUpstream("anthropic", faults=[Fault("auth", key="k1")], clock=clock)
    async with LLMManager.open(_config(), transport=up.transport(), clock=clock) as manager:
        client = manager.get_client()
        assert await client.count_tokens("x" * 400) == 100
        await client.chat("Hello")  # k1 is refused, and leaves
        assert await client.count_tokens("x" * 400) == 100
    assert [probe.key for probe in up.probes if probe.path.endswith("count_tokens")] == ["k1", "k2"]


class _Lost:
    """A transport to a server without the address; it is silent for `seconds` first."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._up = MockUpstream("openai", clock=clock).transport()

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        await self._clock.sleep(self._seconds)
        return await self._up.request(method, url, headers=headers, body=body)

    async def close(self) -> None:
        await self._up.close()


async def test_where_the_address_is_missing_a_client_estimates() -> None:
    clock = FakeClock()
    async with LLMManager.open(_config(), transport=_Lost(clock, 0.0), clock=clock) as manager:
        assert await manager.get_client().count_tokens("x" * 400) == 100


@pytest.mark.parametrize(
    ("global_", "seconds"), [({"timeouts": {"attempt": 7}}, 7), ({"timeouts": {"attempt": 7}, "timeout": 3}, 3)]
)
async def test_a_count_is_bounded_in_time(global_: dict[str, Any], seconds: float) -> None:
    clock = FakeClock(auto=True)
    async with LLMManager.open(_config(**global_), transport=_Lost(clock, 99.0), clock=clock) as manager:
        with pytest.raises(LLMTimeoutError, match=f"within {seconds} seconds") as caught:
            await manager.get_client().count_tokens("x")
    assert (caught.value.phase, caught.value.provider, caught.value.model) == ("total", "anthropic", "m")
