"""Calls of a manager whose provider says `api: responses`, against a server that speaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    LLMConfigurationError,
    LLMManager,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    LLMStreamInterruptedError,
    Message,
    MessageRole,
    TokenUsage,
    ToolCall,
    ToolDefinition,
)
from llm.core.messages import ThinkingPart
from llm.testing import FakeClock, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "gpt-5-mini"
TEXT = "a text of several chunks"
TOOLS = [ToolDefinition("look", "Looks", {"type": "object"})]
CALL = ToolCall("call_1", "look", '{"at": "tree"}')
THOUGHTS = (ThinkingPart("a tree?", id="rs_1"), ThinkingPart("look", None, "secret", "rs_1", "call_1"))


def config(up: MockUpstream, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a section
    section = {"base_url": up.base_url, "api_keys": ["sk-test-1"], "models": [MODEL], "api": "responses", **more}
    return {"providers": {"openai": section}, "retry": {"max_attempts": 1}}


def thoughtful(request: LLMRequest) -> LLMResponse | str:
    if request.messages[-1].role is MessageRole.TOOL:
        return "a tree it is"
    return LLMResponse(tool_calls=(CALL,), thinking=THOUGHTS, usage=TokenUsage(9, 8, 3, 4))


@pytest.fixture
async def up() -> AsyncIterator[MockUpstream]:
    async with MockUpstream("openai", answer=thoughtful) as up:
        yield up


async def test_calls_go_to_responses_and_come_back_whole_and_streamed() -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up)) as manager:
        client = manager.get_client()
        whole = await client.chat(TEXT, max_tokens=4)
        stream = client.stream_complete(TEXT, max_tokens=4)
        text = "".join([str(chunk) async for chunk in stream])
        streamed = await stream.response()
    assert [request.path for request in up.requests] == ["/v1/responses", "/v1/responses"]
    assert up.requests[0].body["max_output_tokens"] == 4
    assert whole.content == text == streamed.content == TEXT[:16]
    assert whole.finish_reason == streamed.finish_reason == "length"
    assert whole.usage == streamed.usage == TokenUsage(6, 4)
    assert whole.cost is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_answered_with_the_thought_that_led_to_it(up: MockUpstream, *, stream: bool) -> None:
    async with LLMManager.open(config(up)) as manager:
        client = manager.get_client()
        asked = [Message(MessageRole.USER, "What is there?")]
        if stream:
            answer = await client.stream_complete(asked, tools=TOOLS).response()
        else:
            answer = await client.complete(asked, tools=TOOLS)
        turns = [*asked, answer.message, Message(MessageRole.TOOL, "green", tool_call_id=answer.tool_calls[0].id)]
        assert str(await client.complete(turns, tools=TOOLS)) == "a tree it is"
    assert (answer.tool_calls, answer.thinking, answer.finish_reason) == ((CALL,), THOUGHTS, "tool_calls")
    assert answer.usage == TokenUsage(9, 8, 3, 4)
    assert [item.get("type", item.get("role")) for item in up.requests[1].body["input"]] == [
        "user", "reasoning", "function_call", "function_call_output",
    ]  # fmt: skip
    assert up.requests[1].body["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "a tree?"}, {"type": "summary_text", "text": "look"}],
        "encrypted_content": "secret",
    }


async def test_a_cached_answer_keeps_its_thoughts(up: MockUpstream) -> None:
    async with LLMManager.open({**config(up), "cache": {"backend": "memory"}}) as manager:
        client = manager.get_client()
        first, again = [await client.chat("What is there?") for _ in range(2)]
        streamed = await client.stream_complete("And here?").response()
        replayed = await client.stream_complete("And here?").response()
    assert (again.cached, replayed.cached, len(up.requests)) == (True, True, 2)
    assert first.thinking == again.thinking == streamed.thinking == replayed.thinking == THOUGHTS


@pytest.mark.parametrize("kind", ["truncated", "polite_cut"])
async def test_a_stream_that_is_cut_is_never_a_short_success(kind: str) -> None:
    faults = [Fault(kind, at=1, after_chunks=2)]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        with pytest.raises(LLMStreamInterruptedError) as caught:
            await manager.get_client().stream_complete(TEXT).response()
    assert caught.value.partial == TEXT[:16]


async def test_an_error_event_after_200_is_the_failure_that_it_tells_of() -> None:
    faults = [Fault("error_event", at=1, after_chunks=2)]
    async with MockUpstream("openai", faults=faults) as up, LLMManager.open(config(up)) as manager:
        stream = manager.get_client().stream_complete(TEXT)
        with pytest.raises(LLMServerError, match="overloaded"):
            await stream.response()
    assert stream.text == TEXT[:16]


async def test_limits_are_kept_as_with_chat_completions() -> None:
    clock = FakeClock(start=0.0, auto=True)
    up = MockUpstream("openai", limits={"sk-test-1": {"requests_per_minute": 2}}, clock=clock)
    limits = [{"requests_per_minute": 2}]
    opened = LLMManager.open(config(up, rate_limits=limits), transport=up.transport(), clock=clock)
    async with opened as manager:
        for _ in range(4):
            await manager.get_client().chat(TEXT)
    assert [request.status for request in up.requests] == [200] * 4


@pytest.mark.parametrize("kind", ["anthropic", "openrouter", "local"])
async def test_a_type_without_it_is_refused_by_name(kind: str) -> None:
    section = {"type": kind, "api_keys": ["sk-1"], "models": ["m"], "api": "responses"}
    with pytest.raises(LLMConfigurationError, match=f'(?s)providers.mine.api.*"{kind}" has no `api: responses`'):
        await LLMManager.open({"providers": {"mine": section}})
