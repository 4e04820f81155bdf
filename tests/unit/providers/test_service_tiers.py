"""A vendor's service tier goes out by `extra`, and the one that served comes back in `raw`, whole and streamed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from llm.core.types import LLMRequest
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


class Case(NamedTuple):
    """A dialect, its recorded answers, the tier that they have, and what is asked for and serves in this test."""

    dialect: Callable[[str | None], Any]
    answers: tuple[str, str]
    recorded: str
    asked: str
    served: str
    told: Callable[[Mapping[str, Any]], object]


CASES = {
    "openai": Case(
        OpenAIDialect, ("openai/choices.json", "openai/choices.sse"), "default", "flex", "flex", beside_the_answer
    ),
    "responses": Case(
        ResponsesDialect, ("responses/answer.json", "responses/answer.sse"), "default", "auto", "priority",
        beside_the_answer,
    ),
    "anthropic": Case(
        AnthropicDialect, ("anthropic/text.json", "anthropic/text.sse"), "standard", "auto", "priority", in_the_usage
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_tier_goes_out_by_extra_and_the_one_that_served_is_in_raw(
    server: Server, settings: ProviderSettings, wire: Callable[[str], bytes], case: Case, stream: bool
) -> None:
    provider = HTTPProvider(settings, case.dialect(settings.base_url))
    request = LLMRequest("Hi", model="m", max_tokens=9, extra={"service_tier": case.asked})
    words = rf'("service_tier": ?)"{case.recorded}"'.encode()
    body = re.sub(words, rf'\1"{case.served}"'.encode(), wire(case.answers[stream]))
    if stream:
        server.streams(body)
        response = await (await provider.stream(request)).response()
    else:
        server.says(body)
        response = await provider.complete(request)
    assert server.bodies[0]["service_tier"] == case.asked
    assert response.raw is not None
    assert case.told(response.raw) == case.served
