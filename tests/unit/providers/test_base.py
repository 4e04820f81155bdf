from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.exceptions import LLMStreamInterruptedError
from llm.core.protocols import Charging, Provider
from llm.core.types import LLMRequest, TokenUsage
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import ProviderSettings
    from llm.utils.redact import Secret

    from .conftest import Server

REQUEST = LLMRequest("Hi", model="m")


@pytest.fixture
def provider(settings: ProviderSettings) -> Provider:
    return HTTPProvider.factory(OpenAIDialect)(settings)


def test_it_is_a_provider_that_knows_its_charges(provider: Provider) -> None:
    assert isinstance(provider, Provider)
    assert isinstance(provider, Charging)


async def test_a_whole_answer_has_all_its_fields(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("openai/answer.json"))
    response = await provider.complete(REQUEST)
    assert str(response) == "Hello! How can I help?"
    assert (response.id, response.model) == ("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "gpt-4o-mini-2024-07-18")
    assert (response.provider, response.key) == ("section", key.fingerprint)
    assert response.usage == TokenUsage(19, 10, 4, 3)
    assert response.finish_reason == "stop"
    assert response.raw is not None
    assert response.raw["service_tier"] == "default"
    assert server.requests[0].headers["authorization"] == f"Bearer {key.reveal()}"
    assert server.requests[0].path == "/v1/chat/completions"


async def test_a_stream_ends_by_its_closing_event_as_a_whole_answer(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openai/stream.sse"))
    stream = await provider.stream(REQUEST)
    assert [str(chunk) async for chunk in stream] == ["Hello", ", world", "", ""]
    response = await stream.response()
    assert (response.id, response.model, str(response)) == ("chatcmpl-123", "gpt-4o-mini", "Hello, world")
    assert (response.provider, response.key) == ("section", key.fingerprint)
    assert (response.usage, response.finish_reason) == (TokenUsage(19, 10, 4, 3), "stop")


async def test_a_stream_without_its_closing_event_is_interrupted_however_politely_it_ends(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openai/stream.sse").replace(b"data: [DONE]\n\n", b""))
    stream = await provider.stream(REQUEST)
    with pytest.raises(LLMStreamInterruptedError) as caught:
        await stream.response()
    assert caught.value.partial == "Hello, world"
    assert caught.value.provider == "section"
