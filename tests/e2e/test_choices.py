"""Several choices with their logprobs, through the whole chain: unary, streamed, and again from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm import Choice, LLMManager, LLMResponse, LLMStreamInterruptedError, TokenLogprob, TokenUsage, ToolCall
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from llm import LLMClient, LLMRequest

MODEL = "gpt-4o-mini"
FIRST = (TokenLogprob("Deep", -0.5, b"Deep", (TokenLogprob("Dark", -1.5, b"Dark"),)), TokenLogprob(" blue", -0.25))
CHOICES = (
    Choice("Deep blue", "stop", logprobs=FIRST),
    Choice("", "tool_calls", (ToolCall("a", "paint", '{"with":"red"}'), ToolCall("b", "paint", "{}"))),
    Choice("I am not su", "length"),
)
EXTRA: dict[str, Any] = {"n": 3, "logprobs": True, "top_logprobs": 2}


def _answer(_: LLMRequest) -> LLMResponse:
    first, *others = CHOICES
    return LLMResponse(
        content=first.content,
        finish_reason="stop",
        logprobs=FIRST,
        alternatives=tuple(others),
        usage=TokenUsage(5, 40, 1, 9),
    )


def _upstream(clock: FakeClock, **more: Any) -> MockUpstream:  # noqa: ANN401 - any of the upstream's
    return MockUpstream("openai", answer=_answer, clock=clock, **more)


async def _open(upstream: MockUpstream, clock: FakeClock, **sections: Any) -> LLMManager:  # noqa: ANN401 - sections
    provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": [MODEL]}
    config = {"providers": {"openai": provider | sections.pop("openai", {})}, **sections}
    return await LLMManager.open(config, transport=upstream.transport(), clock=clock)


async def _ask(client: LLMClient, *, stream: bool) -> LLMResponse:
    if stream:
        return await client.stream_complete("Name a colour", max_tokens=50, extra=EXTRA).response()
    return await client.complete("Name a colour", max_tokens=50, extra=EXTRA)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("again", [False, True])
async def test_every_choice_comes_whole_and_again_from_the_cache(*, stream: bool, again: bool) -> None:
    clock = FakeClock()
    upstream = _upstream(clock)
    manager = await _open(upstream, clock, cache={"backend": "memory"})
    async with manager:
        client = manager.get_client()
        answer = await _ask(client, stream=stream)
        replayed = await _ask(client, stream=again)
        assert manager.get_status()["metrics"]["tokens"]["output"] == 40
    for given in (answer, replayed):
        assert given.choices == CHOICES
        assert (str(given), given.usage) == ("Deep blue", TokenUsage(5, 40, 1, 9))
    assert (answer.cached, replayed.cached, len(upstream.requests)) == (False, True, 1)
    assert answer.raw is not None
    assert answer.raw["service_tier"] == "default"


async def test_the_limits_take_the_output_of_every_choice_and_settle_to_the_usage() -> None:
    clock = FakeClock()
    upstream = _upstream(clock)
    limits = [{"tokens_per_minute": 200, "algorithm": "token_bucket"}]
    async with await _open(upstream, clock, openai={"rate_limits": limits}) as manager:
        client = manager.get_client()
        await _ask(client, stream=False)  # takes 150 and settles to 45
        await _ask(client, stream=False)
        assert [record.charge.output_tokens for record in upstream.requests if record.charge] == [150, 150]
        assert clock.now() == pytest.approx(0.0, abs=0.5)


async def test_a_broken_stream_of_several_choices_tells_the_firsts_text() -> None:
    clock = FakeClock()
    upstream = _upstream(clock, faults=[Fault("truncated", at=1)])
    async with await _open(upstream, clock) as manager:
        stream = manager.get_client().stream_complete("Name a colour", extra=EXTRA)
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await stream.response()
        assert caught.value.partial == "Deep"
