"""A vendor's service tier goes out by `extra`, and the one that served comes back in `raw`, whole and streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.core.types import LLMRequest, LLMResponse
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.providers.responses import ResponsesDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm.core.protocols import ProviderSettings

    from .conftest import Server


def beside_the_answer(raw: Mapping[str, Any]) -> object:
    return raw["service_tier"]


def in_the_usage(raw: Mapping[str, Any]) -> object:
    return raw["usage"]["service_tier"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("dialect", "answers", "asked", "recorded", "served", "told"),
    [
        pytest.param(
            OpenAIDialect, ("openai/choices.json", "openai/choices.sse"), "flex", "default", "flex", beside_the_answer,
            id="openai",
        ),
        pytest.param(
            ResponsesDialect, ("responses/answer.json", "responses/answer.sse"), "priority", "default", "priority",
            beside_the_answer, id="responses",
        ),
        pytest.param(
            AnthropicDialect, ("anthropic/text.json", "anthropic/text.sse"), "auto", "standard", "priority",
            in_the_usage, id="anthropic",
        ),
    ],
)  # fmt: skip
async def test_a_tier_goes_out_by_extra_and_the_one_that_served_is_in_raw(  # noqa: PLR0913 - a dialect's words
    server: Server,
    settings: ProviderSettings,
    wire: Callable[[str], bytes],
    dialect: Callable[[str | None], Any],
    answers: tuple[str, str],
    asked: str,
    recorded: str,
    served: str,
    told: Callable[[Mapping[str, Any]], object],
    stream: bool,
) -> None:
    provider = HTTPProvider.factory(dialect)(settings)
    assert isinstance(provider, HTTPProvider)
    request = LLMRequest("Hi", model="m", max_tokens=9, extra={"service_tier": asked})
    body = wire(answers[stream])
    for space in ("", " "):
        body = body.replace(
            f'"service_tier":{space}"{recorded}"'.encode(), f'"service_tier":{space}"{served}"'.encode()
        )
    response: LLMResponse
    if stream:
        server.streams(body)
        response = await (await provider.stream(request)).response()
    else:
        server.says(body)
        response = await provider.complete(request)
    assert server.bodies[0]["service_tier"] == asked
    assert response.raw is not None
    assert told(response.raw) == served
