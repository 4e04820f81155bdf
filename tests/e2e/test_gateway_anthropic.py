"""Anthropic's own client, unchanged but for its base URL on the gateway, or its transport on a manager."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    PermissionDeniedError,
    RateLimitError,
)
from tests.patience import PATIENCE, until

from llm import LLMManager
from llm.core.messages import ToolCall
from llm.core.types import LLMResponse
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from llm.core.types import LLMRequest

    Dialect = Literal["openai", "anthropic"]
    Gateways = Callable[..., AbstractAsyncContextManager[Any]]
    Clients = Callable[..., AbstractAsyncContextManager[Any]]

MODEL = "claude-haiku-4-5"
HELLO: Any = [{"role": "user", "content": "Hello there, who are you?"}]
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
KEYS = {
    "alice": {"key": "gw-alice-0123456789", "user": "alice"},
    "bob": {"key": "gw-bob-0123456789", "user": "bob", "models": ["other"]},
}


@asynccontextmanager
async def by_socket(gateway: Gateways, told: dict[str, Any], key: str) -> AsyncGenerator[AsyncAnthropic]:
    async with gateway(told) as it, AsyncAnthropic(base_url=it.url, api_key=key, max_retries=0) as asked:
        yield asked


@asynccontextmanager
async def by_transport(_: Gateways, told: dict[str, Any], key: str) -> AsyncGenerator[AsyncAnthropic]:
    async with LLMManager.open(told) as manager:
        within = httpx2.AsyncClient(transport=manager.http_transport(user="alice"))
        async with AsyncAnthropic(api_key=key, max_retries=0, http_client=within) as asked:
            yield asked


WAYS = {"socket": by_socket, "transport": by_transport}


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, gateway: Gateways) -> Clients:
    """Anthropic's client on a gateway, or on a manager's transport: `async with client(up) as asked`."""

    def opened(up: MockUpstream, *, key: str = "gw-alice-0123456789", **config: object) -> Any:  # noqa: ANN401 - as it is
        kind = "openai" if up.base_url.endswith("/v1") else "anthropic"
        section = {"base_url": up.base_url, "api_keys": ["k1"], "models": [MODEL]}
        told = {"providers": {kind: section}, "gateway": {"api_keys": KEYS}, **config}
        return WAYS[request.param](gateway, told, key)

    return opened


gateway_only = pytest.mark.parametrize("client", ["socket"], indirect=True)


def speak(request: LLMRequest) -> LLMResponse | str:
    if request.messages[-1].role == "tool":
        return f"It is {request.messages[-1].content} there."
    if request.tools:
        return LLMResponse(tool_calls=(ToolCall("toolu_1", "weather", '{"city":"Paris"}'),), finish_reason="tool_calls")
    if request.response_format is not None:
        return '{"name": "Paris"}'
    return str(request.messages[-1].content)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_anthropics_client_gets_a_whole_answer_of_any_provider(client: Clients, dialect: Dialect) -> None:
    async with MockUpstream(dialect) as up, client(up) as asked:
        raw = await asked.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=HELLO, system="Hi.")
        answer: Any = await raw.parse()
    assert answer.content[0].text == "Hello there, who are you?"
    assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", MODEL)
    assert answer.usage.output_tokens > 0
    assert raw.headers["request-id"] == raw.headers["x-request-id"]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_anthropics_client_gets_a_stream_with_its_usage(client: Clients, dialect: Dialect) -> None:
    async with (
        MockUpstream(dialect) as up,
        client(up) as asked,
        asked.messages.stream(model=MODEL, max_tokens=50, messages=HELLO) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        answer = await stream.get_final_message()
    assert text == "Hello there, who are you?"
    assert answer.usage.output_tokens > 0
    assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_client_makes_a_tools_round(client: Clients, *, stream: bool) -> None:
    async with MockUpstream("anthropic", answer=speak) as up, client(up) as asked:
        options: Any = {"model": MODEL, "max_tokens": 50, "tools": [WEATHER]}
        if stream:
            async with asked.messages.stream(messages=HELLO, **options) as events:
                first: Any = await events.get_final_message()
        else:
            first = await asked.messages.create(messages=HELLO, **options)
        assert first.stop_reason == "tool_use"
        use = first.content[-1]
        assert use.input == {"city": "Paris"}
        told = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
        messages = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [told]}]
        second: Any = await asked.messages.create(messages=messages, **options)
    assert second.content[0].text == "It is sunny there."


async def test_anthropics_client_gets_a_structured_answer(client: Clients) -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {"name": {"type": "string"}}}}
    async with MockUpstream("openai", answer=speak) as up, client(up) as asked:
        answer: Any = await asked.messages.create(
            model=MODEL, max_tokens=50, messages=HELLO, extra_body={"output_config": {"format": form}}
        )
    assert answer.content[0].text == '{"name": "Paris"}'
    assert up.requests[0].body["response_format"]["json_schema"]["schema"] == form["schema"]


async def test_anthropics_client_counts_tokens_of_tools_too(client: Clients) -> None:
    async with MockUpstream("anthropic") as up, client(up) as asked:
        count = await asked.messages.count_tokens(model=MODEL, messages=HELLO, tools=[WEATHER])
    assert count.input_tokens > 0
    assert up.probes[0].body["tools"] == [WEATHER]


@gateway_only
async def test_anthropics_client_hears_that_its_key_is_wrong(client: Clients) -> None:
    async with MockUpstream("anthropic") as up, client(up, key="gw-mallory-123456") as asked:
        with pytest.raises(AuthenticationError) as refused:
            await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
    body: Any = refused.value.body
    assert body["error"]["type"] == "authentication_error"
    assert body["request_id"] == refused.value.request_id
    assert "mallory" not in str(refused.value)


async def test_anthropics_client_hears_what_is_wrong(client: Clients) -> None:
    wrong: Any = [{"role": "judge", "content": "x"}]
    async with MockUpstream("anthropic") as up, client(up) as asked:
        with pytest.raises(BadRequestError, match=r"messages\[0\].role"):
            await asked.messages.create(model=MODEL, max_tokens=50, messages=wrong)


@gateway_only
async def test_anthropics_client_hears_which_models_its_key_may_use(client: Clients) -> None:
    async with MockUpstream("anthropic") as up, client(up, key="gw-bob-0123456789") as asked:
        with pytest.raises(PermissionDeniedError):
            await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)


async def test_anthropics_client_hears_of_a_limit_and_how_long_to_wait(client: Clients) -> None:
    faults = [Fault("rate_limit", at=1, times=100, retry_after=300)]
    async with MockUpstream("anthropic", faults=faults) as up, client(up) as asked:
        with pytest.raises(RateLimitError) as refused:
            await asked.messages.create(model=MODEL, max_tokens=50, messages=HELLO)
    assert refused.value.response.headers["retry-after"] == "300"


async def test_a_stream_that_anthropics_client_leaves_ends_upstream_at_once(client: Clients) -> None:
    async with MockUpstream("anthropic", service=2 * PATIENCE, chunk_size=1) as up, client(up) as asked:
        async with asked.messages.stream(model=MODEL, max_tokens=50, messages=HELLO) as stream:
            async for _ in stream:
                break
        await until(lambda: not up.active)
    assert up.requests[0].left


async def test_a_stream_that_breaks_tells_anthropics_client(client: Clients) -> None:
    faults = [Fault("polite_cut", every=1, after_chunks=3)]
    async with MockUpstream("anthropic", faults=faults) as up, client(up) as asked:
        with pytest.raises(APIStatusError) as broken:
            async with asked.messages.stream(model=MODEL, max_tokens=50, messages=HELLO) as stream:
                await stream.until_done()
    body: Any = broken.value.body
    assert body["error"]["type"] == "api_error"


async def test_anthropics_client_lists_models(client: Clients) -> None:
    async with MockUpstream("anthropic") as up, client(up) as asked:
        listed: Any = [model async for model in asked.models.list()]
        one = await asked.models.retrieve(MODEL)
    assert [model.id for model in listed] == [one.id] == [MODEL]
    assert one.created_at == listed[0].created_at
