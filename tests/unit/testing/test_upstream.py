from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Literal

import aiohttp
import anthropic
import openai
import pytest
from tests.patience import until

from llm.core.choices import Choice as OurChoice
from llm.core.choices import TokenLogprob
from llm.core.exceptions import LLMContextLengthError, LLMServerError
from llm.core.messages import ToolCall
from llm.core.types import LLMRequest, LLMResponse
from llm.testing import FakeClock, Fault, MockUpstream
from llm.testing.echo import vector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.chat.chat_completion import Choice

    from llm.core.protocols import Reply

Dialect = Literal["openai", "anthropic"]
MODEL = "gpt-4o-mini"
CLAUDE = "claude-test"
TEXT = "a text of several chunks"
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": TEXT}]
KEY = "sk-test-k1"


def _openai(up: MockUpstream, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=up.base_url, api_key=key, max_retries=0)


def _anthropic(up: MockUpstream, key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=up.base_url, api_key=key, max_retries=0)


def _tools(_: LLMRequest) -> LLMResponse:
    calls = (ToolCall("call_1", "look", '{"at": "tree"}'), ToolCall("call_2", "wait", "{}"))
    return LLMResponse(content="let me see", tool_calls=calls)


async def test_openais_client_takes_a_whole_answer() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (TEXT, "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 6, 12)
    assert [(r.number, r.key, r.status, r.stream) for r in up.requests] == [(1, KEY, 200, False)]


async def test_who_clears_the_list_of_requests_clears_no_number() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        ids: list[str] = []
        for _ in range(2):
            ids.append((await client.chat.completions.create(model=MODEL, messages=ASKED)).id)
            up.requests.clear()
    assert ids[0] != ids[1]


def _choices(_: LLMRequest) -> LLMResponse:
    token = TokenLogprob("Yes", -0.5, b"Yes", (TokenLogprob("No", -1.0, b"No"),))
    refusal = OurChoice("I cannot.", "content_filter", refused=True)
    return LLMResponse(content="Yes", logprobs=(token,), alternatives=(OurChoice("No", "stop"), refusal))


async def test_openais_client_takes_several_choices_with_logprobs_and_refusals() -> None:
    expected = [("Yes", None, "stop"), ("No", None, "stop"), (None, "I cannot.", "stop")]
    async with MockUpstream("openai", answer=_choices) as up, _openai(up) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=ASKED, n=3, logprobs=True)
        async with client.chat.completions.stream(model=MODEL, messages=ASKED, n=3, logprobs=True) as stream:
            streamed = await stream.get_final_completion()
    for choices in (answer.choices, streamed.choices):
        said = [(choice.message.content or None, choice.message.refusal, choice.finish_reason) for choice in choices]
        assert said == expected
        assert choices[0].logprobs is not None
        assert [(token.token, token.bytes) for token in choices[0].logprobs.content or ()] == [("Yes", [89, 101, 115])]


async def test_anthropics_client_takes_a_whole_answer() -> None:
    async with MockUpstream("anthropic") as up, _anthropic(up) as client:
        answer = await client.messages.create(model=CLAUDE, max_tokens=2, messages=[{"role": "user", "content": TEXT}])
    block = answer.content[0]
    assert block.type == "text"
    assert (block.text, answer.stop_reason) == (TEXT[:8], "max_tokens")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (6, 2)


async def test_openais_client_takes_a_stream_with_its_usage() -> None:
    async with MockUpstream("openai") as up, _openai(up) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_anthropics_client_takes_a_stream_with_its_usage() -> None:
    async with (
        MockUpstream("anthropic") as up,
        _anthropic(up) as client,
        client.messages.stream(model=CLAUDE, max_tokens=100, messages=[{"role": "user", "content": TEXT}]) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        whole = await stream.get_final_message()
    assert text == TEXT
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 6, 6)


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_client_takes_tool_calls(*, stream: bool) -> None:
    async with MockUpstream("openai", answer=_tools) as up, _openai(up) as client:
        if stream:
            async with client.chat.completions.stream(model=MODEL, messages=ASKED) as events:
                async for _ in events:
                    pass
                choice: Choice = (await events.get_final_completion()).choices[0]
        else:
            choice = (await client.chat.completions.create(model=MODEL, messages=ASKED)).choices[0]
    calls = [(c.id, c.function) for c in choice.message.tool_calls or [] if c.type == "function"]
    assert [(name, function.name, function.arguments) for name, function in calls] == [
        ("call_1", "look", '{"at": "tree"}'),
        ("call_2", "wait", "{}"),
    ]
    assert (choice.message.content, choice.finish_reason) == ("let me see", "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_client_takes_tool_calls(*, stream: bool) -> None:
    async with MockUpstream("anthropic", answer=_tools) as up, _anthropic(up) as client:
        asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": TEXT}]
        if stream:
            async with client.messages.stream(model=CLAUDE, max_tokens=9, messages=asked) as events:
                answer: anthropic.types.Message = await events.get_final_message()
        else:
            answer = await client.messages.create(model=CLAUDE, max_tokens=9, messages=asked)
    tools = [(b.id, b.name, b.input) for b in answer.content if b.type == "tool_use"]
    assert tools == [("call_1", "look", {"at": "tree"}), ("call_2", "wait", {})]
    assert ([b.text for b in answer.content if b.type == "text"], answer.stop_reason) == (["let me see"], "tool_use")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", openai.RateLimitError),
        ("auth", openai.AuthenticationError),
        ("forbidden", openai.PermissionDeniedError),
        ("invalid", openai.BadRequestError),
        ("server_error", openai.InternalServerError),
        ("overloaded", openai.InternalServerError),
        ("reset_before", openai.APIConnectionError),
    ],
)
async def test_openais_client_reads_the_errors(kind: str, error: type[openai.APIError]) -> None:
    async with MockUpstream("openai", faults=[Fault(kind, at=1)]) as up, _openai(up) as client:
        with pytest.raises(error):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert (await client.chat.completions.create(model=MODEL, messages=ASKED)).choices


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", anthropic.RateLimitError),
        ("auth", anthropic.AuthenticationError),
        ("forbidden", anthropic.PermissionDeniedError),
        ("invalid", anthropic.BadRequestError),
        ("server_error", anthropic.InternalServerError),
        ("overloaded", anthropic.InternalServerError),
        ("reset_before", anthropic.APIConnectionError),
    ],
)
async def test_anthropics_client_reads_the_errors(kind: str, error: type[anthropic.APIError]) -> None:
    async with MockUpstream("anthropic", faults=[Fault(kind, at=1)]) as up, _anthropic(up) as client:
        with pytest.raises(error):
            await client.messages.create(model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": TEXT}])


async def test_an_error_event_raises_in_both_clients() -> None:
    fault = Fault("error_event", at=1, after_chunks=2)
    async with MockUpstream("openai", faults=[fault]) as up, _openai(up) as client:
        chunks = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="overloaded"):
            [chunk async for chunk in chunks]
    async with MockUpstream("anthropic", faults=[fault]) as up, _anthropic(up) as claude:
        asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": TEXT}]
        events = await claude.messages.create(model=CLAUDE, max_tokens=9, messages=asked, stream=True)
        with pytest.raises(anthropic.APIError, match="Overloaded"):
            [event async for event in events]


async def test_openais_client_takes_vectors_and_models() -> None:
    async with MockUpstream("openai", models=[MODEL, "emb"]) as up, _openai(up) as client:
        packed = await client.embeddings.create(model="emb", input=["a", "b"], dimensions=4)
        plain = await client.embeddings.create(model="emb", input="b", dimensions=4, encoding_format="float")
        names = [model.id async for model in client.models.list()]
    assert packed.data[1].embedding == plain.data[0].embedding == list(vector("b", 4))
    assert [item.index for item in packed.data] == [0, 1]
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens, packed.model) == (2, 2, "emb")
    assert names == [MODEL, "emb"]
    assert (len(up.requests), len(up.probes)) == (2, 1)


async def test_vectors_are_charged_their_texts_under_the_keys_limits() -> None:
    limits = {KEY: {"tokens_per_minute": 100, "requests_per_minute": 10}}
    async with MockUpstream("openai", limits=limits) as up, _openai(up) as client:
        sent = await client.embeddings.with_raw_response.create(model="emb", input=["x" * 100, "x" * 100])
        assert sent.headers["x-ratelimit-remaining-tokens"] == "50"
        with pytest.raises(openai.RateLimitError, match="tokens_per_minute"):
            await client.embeddings.create(model="emb", input="x" * 300)
        with pytest.raises(openai.BadRequestError, match="1 to 2048"):
            await client.embeddings.create(model="emb", input=["x"] * 2049)
    assert [request.charge and request.charge.total_tokens for request in up.requests] == [50, None, None]


async def test_anthropics_client_takes_counts_and_models() -> None:
    async with MockUpstream("anthropic", models=[CLAUDE]) as up, _anthropic(up) as client:
        count = await client.messages.count_tokens(model=CLAUDE, messages=[{"role": "user", "content": TEXT}])
        names = [model.id async for model in client.models.list()]
    assert (count.input_tokens, names) == (6, [CLAUDE])


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_bad_requests_get_the_vendors_envelope(dialect: Dialect) -> None:
    path = "/v1/chat/completions" if dialect == "openai" else "/v1/messages"
    asked = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    up = MockUpstream(dialect, models=["m"], api_keys=["k1"], clock=FakeClock())

    async def status(body: Mapping[str, object] | bytes, key: str = "k1", at: str = path) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {key}"}
        reply = await up.transport().request("POST", f"http://x{at}", headers=headers, body=data)
        assert json.loads(await reply.read())["error" if reply.status != 200 else "id"]
        return reply.status

    assert await status(asked) == 200
    assert await status(asked, "k2") == 401
    assert await status({**asked, "model": "other"}) == 404
    assert await status({**asked, "messages": []}) == 400
    assert await status({**asked, "model": None}) == 400
    assert await status(b"{") == 400
    assert await status(b"[]") == 400
    assert await status(asked, at="/v1/nowhere") == 404


async def test_an_answer_may_be_a_text_a_response_or_an_exception() -> None:
    script: Iterator[str | Exception] = iter(
        ["one", LLMContextLengthError("too long"), LLMServerError("down", status=502), KeyError("mine")]
    )
    async with MockUpstream("openai", answer=lambda _: next(script)) as up, _openai(up) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert answer.choices[0].message.content == "one"
        with pytest.raises(openai.BadRequestError, match="too long"):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
        with pytest.raises(openai.InternalServerError, match="down"):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
        with pytest.raises(openai.InternalServerError, match="mine"):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert [request.status for request in up.requests] == [200, 400, 502, 500]


@pytest.mark.parametrize(
    ("kind", "stream", "error"),
    [
        ("reset_before", False, aiohttp.ClientOSError),
        ("reset_after", False, aiohttp.ClientError),
        ("reset_after", True, aiohttp.ClientError),
        ("truncated", False, aiohttp.ClientPayloadError),
        ("truncated", True, aiohttp.ClientPayloadError),
    ],
)
async def test_a_socket_breaks_as_the_script_says(kind: str, error: type[Exception], *, stream: bool) -> None:
    async with MockUpstream("openai", faults=[Fault(kind, at=1)]) as up, aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": ASKED, "stream": stream}
        with pytest.raises(error):
            async with session.post(f"{up.base_url}/chat/completions", json=body) as reply:
                await reply.read()
        async with session.post(f"{up.base_url}/chat/completions", json=body) as reply:
            assert await reply.read()


async def test_a_polite_cut_looks_whole_to_a_socket() -> None:
    faults = [Fault("polite_cut", at=1)]
    async with MockUpstream("openai", faults=faults) as up, aiohttp.ClientSession() as session:
        body = {"model": "m", "messages": ASKED, "stream": True}
        async with session.post(f"{up.base_url}/chat/completions", json=body) as reply:
            assert b"[DONE]" not in await reply.read()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_is_seen(*, stream: bool) -> None:
    async with MockUpstream("openai", faults=[Fault("stalled", at=1)]) as up:
        async with aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": ASKED, "stream": stream}
            async with session.post(f"{up.base_url}/chat/completions", json=body) as reply:
                await reply.content.readany()
                assert (up.requests[0].left, up.active) == (False, 1)
        await until(lambda: up.requests[0].left)
    assert (up.active, up.requests[0].ended is not None) == (0, True)


async def test_service_time_spreads_a_stream_and_holds_a_whole_answer() -> None:
    clock = FakeClock()
    up = MockUpstream("openai", service=10.0, network=(1.0, 1.0), chunk_size=6, clock=clock)
    body = json.dumps({"model": "m", "messages": ASKED, "stream": True}).encode()
    asking = asyncio.create_task(up.transport().request("POST", "http://x/v1/chat/completions", headers={}, body=body))
    await clock.advance(3.9)
    assert not asking.done()
    await clock.advance(0.1)
    reply, times = await asking, list[float]()
    reading = asyncio.create_task(_read(reply, clock, times))
    await clock.advance(60)
    await reading
    assert times == [4.0, 6.0, 8.0, 10.0, 12.0, 12.0, 12.0]
    assert up.requests[0].at == 1.0


async def _read(reply: Reply, clock: FakeClock, times: list[float]) -> None:
    while True:
        data = await reply.chunk()
        times.append(clock.now())
        if not data:
            return


async def test_a_request_is_shown_without_key_and_content() -> None:
    up = MockUpstream("openai", clock=FakeClock())
    body = json.dumps({"model": "m", "messages": ASKED}).encode()
    headers = {"Authorization": f"Bearer {KEY}"}
    await up.transport().request("POST", "http://x/v1/chat/completions", headers=headers, body=body)
    shown = repr(up.requests)
    assert KEY not in shown
    assert TEXT not in shown
    assert up.requests[0].body["messages"][0]["content"] == TEXT


def test_an_unknown_dialect_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown dialect 'klingon'; expected one of openai, anthropic"):
        MockUpstream("klingon")  # type: ignore[arg-type]  # the mistake that is tested
