"""OpenAI's own client, unchanged but for its base URL on the gateway, or its transport on a manager."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai import (
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from pydantic import BaseModel
from tests.patience import PATIENCE, until

from llm import LLMManager
from llm.core.messages import ToolCall
from llm.core.types import LLMResponse
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from llm.core.types import LLMRequest

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]
    Clients = Callable[..., AbstractAsyncContextManager[Any]]

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Hello there, who are you?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
KEYS = {
    "alice": {"key": "gw-alice-0123456789", "user": "alice"},
    "bob": {"key": "gw-bob-0123456789", "user": "bob", "models": ["other"]},
}


class City(BaseModel):
    name: str
    people: int


@asynccontextmanager
async def by_socket(gateway: Gateways, told: dict[str, Any], key: str) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway(told) as it, AsyncOpenAI(base_url=f"{it.url}/v1", api_key=key, max_retries=0) as asked:
        yield asked


@asynccontextmanager
async def by_transport(_: Gateways, told: dict[str, Any], key: str) -> AsyncGenerator[AsyncOpenAI]:
    async with LLMManager.open(told) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport(user="alice"))
        async with AsyncOpenAI(api_key=key, max_retries=0, http_client=within) as asked:
            yield asked


WAYS = {"socket": by_socket, "transport": by_transport}


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, gateway: Gateways) -> Clients:
    """OpenAI's client on a gateway, or on a manager's transport: `async with client(up) as asked`."""

    def opened(up: MockUpstream, *, key: str = "gw-alice-0123456789", **config: object) -> Any:  # noqa: ANN401 - as it is
        section = {"base_url": up.base_url, "api_keys": ["k1"], "models": [MODEL]}
        told = {"providers": {"openai": section}, "gateway": {"api_keys": KEYS}, **config}
        return WAYS[request.param](gateway, told, key)

    return opened


gateway_only = pytest.mark.parametrize("client", ["socket"], indirect=True)


def speak(request: LLMRequest) -> LLMResponse | str:
    """Ask for the weather first, then tell it; as JSON where that is asked for."""
    if request.response_format is not None:
        return '{"name": "Paris", "people": 2100000}'
    if request.messages[-1].role == "tool":
        return f"It is {request.messages[-1].content} there."
    if request.tools:
        return LLMResponse(tool_calls=(ToolCall("call_1", "weather", '{"city": "Paris"}'),), finish_reason="tool_calls")
    return str(request.messages[-1].content)


async def test_openais_client_gets_a_whole_answer(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        raw = await asked.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
        answer = raw.parse()
    assert answer.choices[0].message.content == "Hello there, who are you?"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert raw.headers["x-request-id"]
    assert raw.elapsed.total_seconds() > 0
    assert up.requests[0].key == "k1"  # ours, not the client's


async def test_openais_client_gets_a_stream_with_its_usage(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        stream: Any = await asked.chat.completions.create(model=MODEL, messages=HELLO, **options)
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there, who are you?"
    assert chunks[-1].usage.completion_tokens > 0


async def test_openais_client_gets_several_choices(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        await asked.chat.completions.create(model=MODEL, messages=HELLO, n=2, user="me", logit_bias={"1": 2})
    assert up.requests[0].body["n"] == 2
    assert up.requests[0].body["user"] == "me"
    assert up.requests[0].body["logit_bias"] == {"1": 2}


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_client_makes_a_tools_round(client: Clients, *, stream: bool) -> None:
    async with MockUpstream(answer=speak) as up, client(up) as asked:
        messages = list(HELLO)
        if stream:
            async with asked.chat.completions.stream(model=MODEL, messages=messages, tools=[WEATHER]) as events:
                async for _ in events:
                    pass
                first: Any = (await events.get_final_completion()).choices[0].message
        else:
            answer = await asked.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
            first = answer.choices[0].message
        assert first.tool_calls is not None
        call: Any = first.tool_calls[0]
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        messages += [
            first.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        second = await asked.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "It is sunny there."


async def test_openais_client_gets_a_structured_answer(client: Clients) -> None:
    async with MockUpstream(answer=speak) as up, client(up) as asked:
        answer = await asked.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", people=2_100_000)


@gateway_only
async def test_openais_client_hears_that_its_key_is_wrong(client: Clients) -> None:
    async with MockUpstream() as up, client(up, key="gw-mallory-123456") as asked:
        with pytest.raises(AuthenticationError) as refused:
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id
    assert "mallory" not in str(refused.value)
    assert not up.requests


@gateway_only
async def test_openais_client_hears_which_models_its_key_may_use(client: Clients) -> None:
    async with MockUpstream() as up, client(up, key="gw-bob-0123456789") as asked:
        with pytest.raises(PermissionDeniedError, match="gpt-4o-mini"):
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
        with pytest.raises(NotFoundError) as refused:
            await asked.chat.completions.create(model="other", messages=HELLO)
    assert refused.value.code == "model_not_found"


async def test_openais_client_hears_of_a_limit_and_how_long_to_wait(client: Clients) -> None:
    faults = [Fault("rate_limit", at=1, times=100, retry_after=300)]
    async with MockUpstream(faults=faults) as up, client(up) as asked:
        with pytest.raises(RateLimitError) as refused:
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
    assert refused.value.response.headers["retry-after"] == "300"
    assert refused.value.response.headers["retry-after-ms"] == "300000"


@gateway_only
async def test_a_provider_that_refuses_the_gateways_key_is_not_the_clients_fault(client: Clients) -> None:
    async with MockUpstream(api_keys=["another"]) as up, client(up) as asked:
        with pytest.raises(APIStatusError) as refused:
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
    assert refused.value.status_code == 502


async def test_a_stream_that_openais_client_leaves_ends_upstream_at_once(client: Clients) -> None:
    async with MockUpstream(service=2 * PATIENCE, chunk_size=1) as up, client(up) as asked:
        stream: Any = await asked.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await gone(up)


async def test_a_call_that_openais_client_gives_up_ends_upstream_at_once(client: Clients) -> None:
    async with MockUpstream(service=2 * PATIENCE) as up, client(up) as asked:
        with pytest.raises(APITimeoutError):
            await asked.chat.completions.create(model=MODEL, messages=HELLO, timeout=0.4)
        await gone(up)


async def gone(up: MockUpstream) -> None:
    """Return once nobody asks upstream any more."""
    await until(lambda: not up.active)
    assert up.requests[-1].left


async def test_a_stream_that_breaks_tells_openais_client(client: Clients) -> None:
    faults = [Fault("polite_cut", every=1, after_chunks=2)]
    async with MockUpstream(faults=faults) as up, client(up) as asked:
        stream: Any = await asked.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        with pytest.raises(Exception, match="stream") as broken:
            async for _ in stream:
                pass
    assert type(broken.value).__name__ == "APIError"


async def test_openais_client_lists_models_and_makes_vectors(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        assert [model.id async for model in asked.models.list()] == [MODEL]
        assert (await asked.models.retrieve(MODEL)).owned_by == "openai"
        as_base64 = await asked.embeddings.create(model=MODEL, input=["one", "two"])
        as_numbers = await asked.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    assert len(as_base64.data) == 2
    assert as_base64.data[1].embedding == pytest.approx(as_numbers.data[1].embedding, rel=1e-6)


async def test_openais_client_uses_the_responses_api(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        answer = await asked.responses.create(model=MODEL, input="Hello there")
        assert answer.output_text == "Hello there"
        assert answer.id.startswith("resp_")
        stream: Any = await asked.responses.create(model=MODEL, input="Hello there", stream=True)
        events = [event async for event in stream]
    assert events[0].type == "response.created"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello there"
    assert events[-1].response.usage.output_tokens > 0


async def test_openais_client_uses_the_older_route_for_texts(client: Clients) -> None:
    async with MockUpstream() as up, client(up) as asked:
        both = await asked.completions.create(model=MODEL, prompt=["Once", "Twice"], echo=True)
        stream: Any = await asked.completions.create(model=MODEL, prompt="Once upon a time", stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert [choice.text for choice in both.choices] == ["OnceOnce", "TwiceTwice"]
    assert text == "Once upon a time"
    assert {request.body["max_tokens"] for request in up.requests} == {16}
