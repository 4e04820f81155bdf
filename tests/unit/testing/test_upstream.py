from __future__ import annotations

import anthropic
import openai

from llm.testing import MockUpstream

MODEL = "gpt-4o-mini"
CLAUDE = "claude-test"


def _openai(up: MockUpstream, key: str = "sk-test-k1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=up.base_url, api_key=key, max_retries=0)


def _anthropic(up: MockUpstream, key: str = "sk-test-k1") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=up.base_url, api_key=key, max_retries=0)


async def test_openais_client_takes_a_whole_answer() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello you"}])
    assert answer.choices[0].message.content == "hello you"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert [(r.number, r.key, r.status, r.stream) for r in up.requests] == [(1, "sk-test-k1", 200, False)]


async def test_anthropics_client_takes_a_whole_answer() -> None:
    async with MockUpstream("anthropic") as up, _anthropic(up) as client:
        answer = await client.messages.create(
            model=CLAUDE, max_tokens=2, messages=[{"role": "user", "content": "hello you"}]
        )
    block = answer.content[0]
    assert block.type == "text"
    assert (block.text, answer.stop_reason) == ("hello yo", "max_tokens")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2)


async def test_openais_client_takes_a_stream_with_its_usage() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "a text of several chunks"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "a text of several chunks"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_anthropics_client_takes_a_stream_with_its_usage() -> None:
    async with (
        MockUpstream("anthropic") as up,
        _anthropic(up) as client,
        client.messages.stream(
            model=CLAUDE, max_tokens=100, messages=[{"role": "user", "content": "a text of several chunks"}]
        ) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        whole = await stream.get_final_message()
    assert text == "a text of several chunks"
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 6, 6)
