"""`MockUpstream` beside chat completions: OpenAI's Responses API, read by the vendor's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseErrorEvent

from llm.core.messages import ThinkingPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse
from llm.testing import FakeClock, Fault, MockUpstream

MODEL = "gpt-5-mini"
TEXT = "a text of several chunks"


def client_of(up: MockUpstream) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=up.base_url, api_key="sk-test-k1", max_retries=0)


def tools(_: LLMRequest) -> LLMResponse:
    calls = (ToolCall("call_1", "look", '{"at": "tree"}'), ToolCall("call_2", "wait", "{}"))
    thoughts = (
        ThinkingPart("let me", id="rs_1"),
        ThinkingPart("see", None, "secret", "rs_1"),
        ThinkingPart("", None, "more", "rs_2", "call_2"),
        ThinkingPart("aloud"),
    )
    return LLMResponse(content="I look", tool_calls=calls, thinking=thoughts)


async def test_its_client_takes_a_whole_answer_which_repeats_the_request() -> None:
    async with MockUpstream("openai") as up, client_of(up) as client:
        answer = await client.responses.create(model=MODEL, input=TEXT, instructions="Say it", temperature=0.5)
    assert (answer.output_text, answer.status, answer.model) == (TEXT, "completed", MODEL)
    assert (answer.instructions, answer.temperature, answer.tool_choice) == ("Say it", 0.5, "auto")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (8, 6, 14)
    assert [(r.path, r.status, r.stream) for r in up.requests] == [("/v1/responses", 200, False)]


async def test_chat_completions_and_responses_are_served_side_by_side() -> None:
    async with MockUpstream("openai") as up, client_of(up) as client:
        chat = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TEXT}])
        answer = await client.responses.create(model=MODEL, input=TEXT)
    assert chat.choices[0].message.content == answer.output_text == TEXT
    assert (chat.id.partition("-")[0], answer.id.partition("_")[0]) == ("chatcmpl", "resp")


async def test_its_client_takes_a_stream_of_events() -> None:
    async with MockUpstream("openai") as up, client_of(up) as client:
        stream = await client.responses.create(model=MODEL, input=TEXT, stream=True, max_output_tokens=2)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT[:8]
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert (last.response.incomplete_details.reason, last.response.output_text) == ("max_output_tokens", TEXT[:8])


@pytest.mark.parametrize("stream", [False, True])
async def test_its_client_takes_thoughts_and_tool_calls_in_order(*, stream: bool) -> None:
    async with MockUpstream("openai", answer=tools) as up, client_of(up) as client:
        if stream:
            async with client.responses.stream(model=MODEL, input=TEXT) as events:
                answer: Any = await events.get_final_response()
        else:
            answer = await client.responses.create(model=MODEL, input=TEXT)
    assert [item.type for item in answer.output] == [
        "reasoning", "reasoning", "message", "function_call", "reasoning", "function_call",
    ]  # fmt: skip
    first, aloud, message, look, more, wait = answer.output
    assert ([part.text for part in first.summary], first.encrypted_content) == (["let me", "see"], "secret")
    assert ([part.text for part in aloud.content], more.encrypted_content) == (["aloud"], "more")
    assert message.content[0].text == "I look"
    assert [(call.call_id, call.name, call.arguments) for call in (look, wait)] == [
        ("call_1", "look", '{"at": "tree"}'),
        ("call_2", "wait", "{}"),
    ]
    assert len({item.id for item in answer.output}) == 6


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", openai.RateLimitError),
        ("auth", openai.AuthenticationError),
        ("overloaded", openai.InternalServerError),
    ],
)
async def test_its_client_reads_the_errors(kind: str, error: type[openai.APIError]) -> None:
    async with MockUpstream("openai", faults=[Fault(kind, at=1)]) as up, client_of(up) as client:
        with pytest.raises(error):
            await client.responses.create(model=MODEL, input=TEXT)
        assert (await client.responses.create(model=MODEL, input=TEXT)).output_text == TEXT


async def test_an_error_event_has_its_number_in_the_stream() -> None:
    faults = [Fault("error_event", at=1, after_chunks=2)]
    async with MockUpstream("openai", faults=faults) as up, client_of(up) as client:
        events = [event async for event in await client.responses.create(model=MODEL, input=TEXT, stream=True)]
    last = events[-1]
    assert isinstance(last, ResponseErrorEvent)
    assert (last.sequence_number, last.code) == (len(events) - 1, "overloaded")


async def test_limits_are_those_of_the_key_whichever_the_path() -> None:
    limits = {"sk-test-k1": {"requests_per_minute": 1}}
    async with MockUpstream("openai", limits=limits) as up, client_of(up) as client:
        await client.responses.create(model=MODEL, input=TEXT)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TEXT}])


@pytest.mark.parametrize("body", [{"model": "m"}, {"input": "x"}, {"model": "m", "input": [{"role": "robot"}]}])
async def test_a_bad_request_gets_the_vendors_envelope(body: dict[str, object]) -> None:
    up = MockUpstream("openai", clock=FakeClock())
    data = json.dumps(body).encode()
    reply = await up.transport().request("POST", "http://x/v1/responses", headers={}, body=data)
    assert (reply.status, json.loads(await reply.read())["error"]["type"]) == (400, "invalid_request_error")


async def test_at_anthropic_there_is_no_such_path() -> None:
    up = MockUpstream("anthropic", clock=FakeClock())
    reply = await up.transport().request("POST", "http://x/v1/responses", headers={}, body=b"{}")
    assert reply.status == 404
