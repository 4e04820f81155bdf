"""OpenAI's own client on a manager's transport: what only that has; the rest is in `test_gateway_openai`."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai import (
    APIConnectionError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
)
from pydantic import BaseModel
from tests.patience import PATIENCE, until

from llm import LLMManager
from llm.core.messages import ToolCall
from llm.core.types import LLMResponse
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.core.types import LLMRequest

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Hello there, who are you?"}]


class City(BaseModel):
    name: str


async def program(base_url: str, http_client: httpx2.AsyncClient | None = None) -> list[Any]:
    """Do what a plain program does; only its `http_client` is another one on a transport."""
    said: list[Any] = []
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    async with AsyncOpenAI(api_key="k1", base_url=base_url, http_client=http_client) as client:
        messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
        first = await client.chat.completions.create(model=MODEL, messages=messages, tools=[tool])
        call: Any = (first.choices[0].message.tool_calls or [])[0]
        city = json.loads(call.function.arguments)["city"]
        messages.append(first.choices[0].message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"})
        stream = await client.chat.completions.create(model=MODEL, messages=messages, tools=[tool], stream=True)
        said.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
        async with client.chat.completions.stream(model=MODEL, messages=HELLO) as events:
            said.extend([event.delta async for event in events if event.type == "content.delta"])
        parsed = await client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
        said.append(parsed.choices[0].message.parsed)
        said.append((await client.responses.create(model=MODEL, input="Hello")).output_text)
        said.append(len((await client.embeddings.create(model=MODEL, input=["a", "b"])).data[1].embedding))
        try:
            await client.chat.completions.create(model=MODEL, messages=HELLO, temperature=9)
        except BadRequestError as error:
            said.append(type(error))
    return said


def speak(request: LLMRequest) -> LLMResponse | str | Exception:
    if request.response_format is not None:
        return '{"name": "Paris"}'
    if request.messages and request.messages[-1].role == "tool":
        return f"It is {request.messages[-1].content}."
    if request.tools:
        return LLMResponse(tool_calls=(ToolCall("call_1", "weather", '{"city": "Paris"}'),), finish_reason="tool_calls")
    return str(request.messages[-1].content) if request.messages else ""


def section(up: MockUpstream, **more: object) -> dict[str, Any]:
    return {"type": "openai", "base_url": up.base_url, "api_keys": ["k1"], "models": [MODEL], **more}


@asynccontextmanager
async def client(up: MockUpstream, *, max_retries: int = 2, **config: object) -> AsyncGenerator[Any]:
    async with LLMManager.open({"providers": {"openai": section(up)}, **config}) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport())
        async with AsyncOpenAI(api_key="none", max_retries=max_retries, http_client=within) as asked:
            yield asked


async def test_a_plain_program_runs_unchanged_but_for_its_http_client() -> None:
    async with (
        MockUpstream(answer=speak) as up,
        LLMManager.open({"providers": {"openai": section(up)}, "cache": {}}) as manager,
    ):
        plain = await program(up.base_url)
        ours = await program(up.base_url, httpx2.AsyncClient(transport=manager.http_transport()))
        assert ours == plain
        assert manager.get_status()["metrics"]["total_requests"] == 6
        again = await program(up.base_url, httpx2.AsyncClient(transport=manager.http_transport()))
        assert again == plain
        assert manager.get_status()["metrics"]["cache"]["hits"] == 6
    assert plain[0] == "It is sunny in Paris."


async def test_the_first_event_is_there_before_upstream_has_sent_its_second(peer: Any) -> None:  # noqa: ANN401 - as it is
    first = b'data: {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
    peer.plays(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        b"%x\r\n%b\r\n" % (len(first), first),
        end="hold",
    )
    told = {"base_url": f"{peer.url}/v1", "api_keys": ["k1"], "models": ["m"]}
    async with LLMManager.open({"providers": {"openai": told}}) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport())
        async with AsyncOpenAI(api_key="none", http_client=within) as asked:
            stream = await asked.chat.completions.create(model="m", messages=HELLO, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            await stream.close()
            await until(lambda: not peer.open)
    assert peer.requests == 1


async def test_a_raw_and_a_streamed_response_are_as_on_a_socket() -> None:
    async with MockUpstream() as up, client(up) as asked:
        raw = await asked.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
        assert raw.headers["x-request-id"] == raw.request_id
        assert raw.http_response.elapsed.total_seconds() > 0
        async with asked.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as answer:
            assert json.loads(await answer.text())["choices"][0]["message"]["content"] == HELLO[0]["content"]
        wanted: Any = {"model": MODEL, "messages": HELLO, "stream": True}
        async with asked.chat.completions.with_streaming_response.create(**wanted) as answer:
            lines = [line async for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


async def test_what_the_chain_gave_up_on_is_not_asked_again() -> None:
    faults = [Fault("server_error", every=1)]
    retry = {"max_attempts": 2, "initial_delay": 0.001}
    async with MockUpstream(faults=faults) as up, client(up, max_retries=5, retry=retry) as asked:
        with pytest.raises(InternalServerError):
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
    assert len(up.requests) == 2


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
async def test_where_no_layer_repeats_the_client_does(kind: str) -> None:
    faults = [Fault(kind, at=1, retry_after="0.01")]
    chain: dict[str, Any] = {"global": {"middleware": ["rate_limit", "metrics"]}}
    async with MockUpstream(faults=faults) as up, client(up, **chain) as asked:
        answer = await asked.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == HELLO[0]["content"]
    assert len(up.requests) == 2


async def test_errors_are_the_clients_own_classes() -> None:
    async with MockUpstream(api_keys=["another"]) as up, client(up) as asked:
        with pytest.raises(AuthenticationError) as refused:
            await asked.chat.completions.create(model=MODEL, messages=HELLO)
        assert refused.value.request_id
        with pytest.raises(NotFoundError) as missing:
            await asked.chat.completions.create(model="nobodys", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(NotFoundError, match="there is no GET /files"):
            await asked.files.list()
    assert len(up.requests) == 1


async def test_a_time_out_is_the_clients_and_its_repeats_are_calls_of_their_own() -> None:
    async with MockUpstream(service=2 * PATIENCE) as up, client(up, max_retries=1) as asked:
        with pytest.raises(APITimeoutError):
            await asked.chat.completions.create(model=MODEL, messages=HELLO, timeout=0.2)
        await until(lambda: not up.active)
        assert [request.left for request in up.requests] == [True, True]


async def test_after_the_manager_is_closed_there_is_no_connection() -> None:
    async with MockUpstream() as up:
        async with client(up, max_retries=0) as asked:
            pass
        async with LLMManager.open({"providers": {"openai": section(up)}}) as manager:
            transport = manager.http_transport()
        asked = AsyncOpenAI(api_key="none", max_retries=0, http_client=httpx2.AsyncClient(transport=transport))
        with pytest.raises(APIConnectionError) as refused:
            await asked.models.list()
    assert "the manager behind this transport is closed" in str(refused.value.__cause__)


async def test_a_call_that_the_managers_end_cuts_off_says_so() -> None:
    async with (
        MockUpstream(service=2 * PATIENCE) as up,
        LLMManager.open({"providers": {"openai": section(up)}}) as manager,
    ):
        within = httpx2.AsyncClient(transport=manager.http_transport())
        async with AsyncOpenAI(api_key="none", http_client=within) as asked:
            running = asyncio.ensure_future(  # noqa: TID251 - cut off from outside
                asked.chat.completions.create(model=MODEL, messages=HELLO)
            )
            await until(lambda: up.active)
            await manager.close(drain=0.0)
            with pytest.raises(InternalServerError, match="closed"):
                await running


async def test_pool_and_fallback_come_by_one_argument() -> None:
    async with MockUpstream(faults=[Fault("unavailable", every=1)]) as down, MockUpstream() as up:
        providers = {"first": section(down), "second": section(up, api_keys=["k2", "k3"])}
        config = {"providers": providers, "global": {"fallback": ["first", "second"]}, "retry": {"max_attempts": 1}}
        async with LLMManager.open(config) as manager:
            within = httpx2.AsyncClient(transport=manager.http_transport())
            async with AsyncOpenAI(api_key="none", http_client=within) as asked:
                for _ in range(4):
                    answer = await asked.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
                    assert answer.headers["x-llm-provider"] == "second"
    assert sorted(request.key or "" for request in up.requests) == ["k2", "k2", "k3", "k3"]


async def test_langchains_client_takes_it() -> None:
    async with MockUpstream() as up, LLMManager.open({"providers": {"openai": section(up)}}) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport())
        options: Any = {"model": MODEL, "api_key": "none", "http_async_client": within}
        chat = import_module("langchain_openai").ChatOpenAI(**options)
        assert (await chat.ainvoke("Hello there")).content == "Hello there"
        assert "".join([str(chunk.content) async for chunk in chat.astream("Hello there")]) == "Hello there"
    assert {request.key for request in up.requests} == {"k1"}


@pytest.mark.parametrize(("vendor", "kind"), [("OpenAI", "OpenAIChatModel"), ("Anthropic", "AnthropicModel")])
async def test_pydantic_ais_providers_take_it(vendor: str, kind: str) -> None:
    provider = getattr(import_module(f"pydantic_ai.providers.{vendor.lower()}"), f"{vendor}Provider")
    model = getattr(import_module(f"pydantic_ai.models.{vendor.lower()}"), kind)
    agents = import_module("pydantic_ai")
    async with (
        MockUpstream() as up,
        LLMManager.open({"providers": {"openai": section(up)}}) as manager,
        httpx2.AsyncClient(transport=manager.http_transport()) as within,
    ):
        agent = agents.Agent(model(MODEL, provider=provider(api_key="none", http_client=within)))
        assert (await agent.run("Hello there")).output == "Hello there"
    assert up.requests[0].key == "k1"
