"""Anthropic's own client on a manager's transport: what only that has; the rest is in `test_gateway_anthropic`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from anthropic import (
    APITimeoutError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
)
from pydantic import BaseModel

from llm import LLMManager
from llm.core.messages import ToolCall
from llm.core.types import LLMResponse
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.core.types import LLMRequest

MODEL = "claude-haiku-4-5"
HELLO: Any = [{"role": "user", "content": "Hello there, who are you?"}]


class City(BaseModel):
    name: str


async def program(base_url: str, http_client: httpx2.AsyncClient | None = None) -> list[Any]:
    """Do what a plain program does; only its `http_client` is another one on a transport."""
    said: list[Any] = []
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    options: Any = {"model": MODEL, "max_tokens": 50, "tools": [{"name": "weather", "input_schema": schema}]}
    asked: Any
    async with AsyncAnthropic(api_key="k1", base_url=base_url, http_client=http_client) as asked:
        first: Any = await asked.messages.create(messages=HELLO, **options)
        use = first.content[-1]
        result = {"type": "tool_result", "tool_use_id": use.id, "content": f"sunny in {use.input['city']}"}
        messages: Any = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        async with asked.messages.stream(messages=messages, **options) as stream:
            said.append("".join([text async for text in stream.text_stream]))
            said.append((await stream.get_final_message()).stop_reason)
        raw: Any = await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO, stream=True)
        said.append([event.type async for event in raw if event.type.startswith("message")])
        parsed = await asked.messages.parse(model=MODEL, max_tokens=50, messages=HELLO, output_format=City)
        said.append(parsed.parsed_output)
        said.append((await asked.messages.count_tokens(model=MODEL, messages=HELLO)).input_tokens > 0)
        try:
            wrong: Any = [{"role": "judge", "content": "x"}]
            await asked.messages.create(model=MODEL, max_tokens=50, messages=wrong)
        except BadRequestError as error:
            said.append(type(error))
    return said


def speak(request: LLMRequest) -> LLMResponse | str:
    if request.response_format is not None:
        return '{"name": "Paris"}'
    if request.messages[-1].role == "tool":
        return f"It is {request.messages[-1].content}."
    if request.tools:
        return LLMResponse(tool_calls=(ToolCall("toolu_1", "weather", '{"city":"Paris"}'),), finish_reason="tool_calls")
    return str(request.messages[-1].content)


def section(up: MockUpstream) -> dict[str, Any]:
    return {"base_url": up.base_url, "api_keys": ["k1"], "models": [MODEL]}


@asynccontextmanager
async def client(up: MockUpstream, *, max_retries: int = 2, **config: Any) -> AsyncGenerator[Any]:  # noqa: ANN401 - any section
    async with LLMManager.open({"providers": {"anthropic": section(up)}, **config}) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport())
        async with AsyncAnthropic(api_key="none", max_retries=max_retries, http_client=within) as asked:
            yield asked


async def test_a_plain_program_runs_unchanged_but_for_its_http_client() -> None:
    async with (
        MockUpstream("anthropic", answer=speak) as up,
        LLMManager.open({"providers": {"anthropic": section(up)}}) as manager,
    ):
        plain = await program(up.base_url)
        ours = await program(up.base_url, httpx2.AsyncClient(transport=manager.http_transport()))
        assert manager.get_status()["metrics"]["total_requests"] == 4
    assert ours == plain
    assert plain[0] == "It is sunny in Paris."


async def test_a_raw_and_a_streamed_response_are_as_on_a_socket() -> None:
    async with MockUpstream("anthropic") as up, client(up) as asked:
        options: Any = {"model": MODEL, "max_tokens": 50, "messages": HELLO}
        raw = await asked.messages.with_raw_response.create(**options)
        assert raw.headers["request-id"] == raw.headers["x-request-id"]
        async with asked.messages.with_streaming_response.create(**options, stream=True) as answer:
            lines = [line async for line in answer.iter_lines() if line.startswith("event:")]
    assert (lines[0], lines[-1]) == ("event: message_start", "event: message_stop")


async def test_what_the_chain_gave_up_on_is_not_asked_again() -> None:
    faults = [Fault("overloaded", every=1)]
    retry = {"max_attempts": 2, "initial_delay": 0.001}
    async with MockUpstream("anthropic", faults=faults) as up, client(up, max_retries=5, retry=retry) as asked:
        with pytest.raises(InternalServerError) as failed:
            await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
    assert failed.value.status_code == 529
    assert len(up.requests) == 2


async def test_where_no_layer_repeats_the_client_does() -> None:
    faults = [Fault("overloaded", at=1, retry_after="0.01")]
    chain: dict[str, Any] = {"global": {"middleware": ["rate_limit", "metrics"]}}
    async with MockUpstream("anthropic", faults=faults) as up, client(up, **chain) as asked:
        await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
    assert len(up.requests) == 2


async def test_errors_are_the_clients_own_classes() -> None:
    async with MockUpstream("anthropic", api_keys=["another"]) as up, client(up) as asked:
        with pytest.raises(AuthenticationError) as refused:
            await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
        assert refused.value.request_id
        with pytest.raises(NotFoundError, match="there is no GET /messages/batches"):
            await asked.messages.batches.list()
    assert len(up.requests) == 1


async def test_a_stream_that_stalls_is_the_clients_time_out() -> None:
    faults = [Fault("stalled", every=1, after_chunks=2)]
    async with MockUpstream("anthropic", faults=faults) as up, client(up, max_retries=0) as asked:
        options: Any = {"model": MODEL, "max_tokens": 50, "messages": HELLO, "timeout": 0.1}
        with pytest.raises((APITimeoutError, httpx2.ReadTimeout)):
            async with asked.messages.stream(**options) as stream:
                await stream.until_done()
