"""Clients of other vendors' servers, unchanged but for base URL and key, against `manifold serve` as a program.

Each does the same seven things: a whole answer, a stream with its usage, a tool's round, a structured answer, a wrong
key, a limit with the time to wait, and a stream that is left.
"""

# ruff: noqa: ANN401 - clients have types of their own, and are loaded by their own tests
from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from importlib import import_module
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import pytest
from pydantic import BaseModel
from tests.patience import PATIENCE

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

CLOCK: Final = SystemClock()
HELLO: Final = "Hello there, who are you?"
ASKED: Any = [{"role": "user", "content": HELLO}]
PARAMETERS: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MOST: Final = 256

T = TypeVar("T")

OPEN: Final = ExitStack()
"""Clients that a test has open: they end with it, for a socket that the collector finds open is an error."""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    OPEN.close()


class City(BaseModel):
    name: str
    people: int


class Told(NamedTuple):
    """A text, and the tokens that the client counted."""

    text: str
    tokens: int


class Refused(NamedTuple):
    """What a client says of a refusal: status, `retry-after`, and all its words."""

    status: int
    retry_after: str | None
    words: str


class Client(Protocol):
    """A client of a gateway, for one model."""

    def __init__(self, url: str, key: str, model: str) -> None: ...

    def whole(self) -> Told: ...

    def stream(self) -> Told: ...

    def tool(self) -> str: ...

    def structured(self) -> City: ...

    def leave(self) -> None:
        """Read a stream's beginning and leave it."""


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(work())


# --- OpenAI ---------------------------------------------------------------------------------------------------------

OF_OPENAI: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}


class OpenAISync:
    def __init__(self, url: str, key: str, model: str) -> None:
        client = import_module("openai").OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self.client: Any = OPEN.enter_context(client)
        self.model = model

    def whole(self) -> Told:
        answer = self.client.chat.completions.create(model=self.model, messages=ASKED)
        assert answer.usage is not None
        return Told(answer.choices[0].message.content or "", answer.usage.total_tokens)

    def stream(self) -> Told:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        chunks: list[Any] = list(self.client.chat.completions.create(model=self.model, messages=ASKED, **options))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return Told(text, chunks[-1].usage.total_tokens)

    def tool(self) -> str:
        create = self.client.chat.completions.create
        first: Any = create(model=self.model, messages=ASKED, tools=[OF_OPENAI]).choices[0].message
        call = first.tool_calls[0]
        told = {"role": "tool", "tool_call_id": call.id, "content": weather(**json.loads(call.function.arguments))}
        messages: Any = [*ASKED, first.model_dump(exclude_none=True), told]
        return create(model=self.model, messages=messages, tools=[OF_OPENAI]).choices[0].message.content or ""

    def structured(self) -> City:
        parse = self.client.chat.completions.parse
        found = parse(model=self.model, messages=ASKED, response_format=City).choices[0].message.parsed
        return City.model_validate(found)

    def leave(self) -> None:
        with self.client.chat.completions.create(model=self.model, messages=ASKED, stream=True) as stream:
            next(iter(stream))


class OpenAIAsync:
    def __init__(self, url: str, key: str, model: str) -> None:
        self.how: Any = {"base_url": f"{url}/v1", "api_key": key, "max_retries": 0}
        self.model = model

    def whole(self) -> Told:
        async def ask() -> Told:
            async with self.client() as client:
                answer = await client.chat.completions.create(model=self.model, messages=ASKED)
            return Told(answer.choices[0].message.content, answer.usage.total_tokens)

        return run(ask)

    def stream(self) -> Told:
        async def ask() -> Told:
            options: Any = {"stream_options": {"include_usage": True}}
            async with (
                self.client() as client,
                client.chat.completions.stream(model=self.model, messages=ASKED, **options) as events,
            ):
                async for _ in events:
                    pass
                answer = await events.get_final_completion()
            return Told(answer.choices[0].message.content, answer.usage.total_tokens)

        return run(ask)

    def tool(self) -> str:
        async def ask() -> str:
            async with self.client() as client:
                tool = {"type": "function", "name": "weather", "parameters": PARAMETERS}
                create = client.responses.create  # the newer route has its own test here
                first = await create(model=self.model, input=HELLO, tools=[tool])
                call = next(item for item in first.output if item.type == "function_call")
                told = {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": weather(**json.loads(call.arguments)),
                }
                items = [{"role": "user", "content": HELLO}, call.model_dump(exclude_none=True), told]
                return str((await create(model=self.model, input=items, tools=[tool])).output_text)

        return run(ask)

    def structured(self) -> City:
        async def ask() -> City:
            async with self.client() as client:
                found = (await client.responses.parse(model=self.model, input=HELLO, text_format=City)).output_parsed
            return City.model_validate(found)

        return run(ask)

    def leave(self) -> None:
        async def ask() -> None:
            async with self.client() as client:
                stream = await client.chat.completions.create(model=self.model, messages=ASKED, stream=True)
                async with stream:
                    await anext(aiter(stream))

        run(ask)

    def client(self) -> Any:
        return import_module("openai").AsyncOpenAI(**self.how)


# --- Anthropic ------------------------------------------------------------------------------------------------------

OF_ANTHROPIC: Any = {"name": "weather", "input_schema": PARAMETERS}


class AnthropicSync:
    def __init__(self, url: str, key: str, model: str) -> None:
        client = import_module("anthropic").Anthropic(base_url=url, api_key=key, max_retries=0)
        self.client: Any = OPEN.enter_context(client)
        self.how: Any = {"model": model, "messages": ASKED, "max_tokens": MOST}

    def whole(self) -> Told:
        return _of_anthropic(self.client.messages.create(**self.how))

    def stream(self) -> Told:
        with self.client.messages.stream(**self.how) as stream:
            text = "".join(stream.text_stream)
            told = _of_anthropic(stream.get_final_message())
        assert text == told.text
        return told

    def tool(self) -> str:
        create = self.client.messages.create
        first = create(**self.how, tools=[OF_ANTHROPIC])
        return str(create(**_round(self.how, first), tools=[OF_ANTHROPIC]).content[0].text)

    def structured(self) -> City:
        found = self.client.messages.parse(**self.how, output_format=City).parsed_output
        assert isinstance(found, City)
        return found

    def leave(self) -> None:
        with self.client.messages.create(**self.how, stream=True) as stream:
            next(iter(stream))


class AnthropicAsync:
    def __init__(self, url: str, key: str, model: str) -> None:
        self.where: Any = {"base_url": url, "auth_token": key, "max_retries": 0}  # the other header
        self.how: Any = {"model": model, "messages": ASKED, "max_tokens": MOST}

    def whole(self) -> Told:
        async def ask() -> Told:
            async with self.client() as client:
                return _of_anthropic(await client.messages.create(**self.how))

        return run(ask)

    def stream(self) -> Told:
        async def ask() -> Told:
            async with self.client() as client, client.messages.stream(**self.how) as stream:
                return _of_anthropic(await stream.get_final_message())

        return run(ask)

    def tool(self) -> str:
        async def ask() -> str:
            async with self.client() as client:
                first = await client.messages.create(**self.how, tools=[OF_ANTHROPIC])
                second = await client.messages.create(**_round(self.how, first), tools=[OF_ANTHROPIC])
                return str(second.content[0].text)

        return run(ask)

    def structured(self) -> City:
        async def ask() -> City:
            async with self.client() as client:
                found = (await client.messages.parse(**self.how, output_format=City)).parsed_output
            return City.model_validate(found)

        return run(ask)

    def leave(self) -> None:
        async def ask() -> None:
            async with self.client() as client:
                stream = await client.messages.create(**self.how, stream=True)
                async with stream:
                    await anext(aiter(stream))

        run(ask)

    def client(self) -> Any:
        return import_module("anthropic").AsyncAnthropic(**self.where)


def _of_anthropic(answer: Any) -> Told:
    return Told(answer.content[0].text, answer.usage.input_tokens + answer.usage.output_tokens)


def _round(how: dict[str, Any], first: Any) -> dict[str, Any]:
    call = next(block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)}
    turns = [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    return {**how, "messages": [*ASKED, *turns]}


# --- LangChain ------------------------------------------------------------------------------------------------------


class LangChain:
    """What both of its packages share."""

    model: Any

    def whole(self) -> Told:
        answer = self.model.invoke(HELLO)
        return Told(answer.text, answer.usage_metadata["total_tokens"])

    def stream(self) -> Told:
        whole = None
        for chunk in self.model.stream(HELLO):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        return Told(whole.text, whole.usage_metadata["total_tokens"])

    def tool(self) -> str:
        kinds = import_module("langchain_core.messages")
        model = self.model.bind_tools([weather])
        first = model.invoke([kinds.HumanMessage(HELLO)])
        call = first.tool_calls[0]
        told = kinds.ToolMessage(weather(**call["args"]), tool_call_id=call["id"])
        return str(model.invoke([kinds.HumanMessage(HELLO), first, told]).text)

    def structured(self) -> City:
        found = self.model.with_structured_output(City).invoke(HELLO)
        assert isinstance(found, City)
        return found

    def leave(self) -> None:
        stream = self.model.stream(HELLO)
        next(stream)
        stream.close()


class LangChainOpenAI(LangChain):
    def __init__(self, url: str, key: str, model: str) -> None:
        chat = import_module("langchain_openai").ChatOpenAI
        self.model = chat(model=model, base_url=f"{url}/v1", api_key=key, max_retries=0, stream_usage=True)


class LangChainAnthropic(LangChain):
    def __init__(self, url: str, key: str, model: str) -> None:
        chat = import_module("langchain_anthropic").ChatAnthropic
        self.model = chat(model=model, base_url=url, api_key=key, max_retries=0, max_tokens=MOST)


# --- Pydantic AI ----------------------------------------------------------------------------------------------------


class PydanticAI:
    """What its two models share."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self.url, self.key, self.model = url, key, model

    def whole(self) -> Told:
        async def ask() -> Told:
            async with self._agent() as agent:
                answer = await agent.run(HELLO)
            return Told(answer.output, answer.usage.total_tokens)

        return run(ask)

    def stream(self) -> Told:
        async def ask() -> Told:
            async with self._agent() as agent, agent.run_stream(HELLO) as answer:
                text = "".join([piece async for piece in answer.stream_text(delta=True)])
                return Told(text, answer.usage.total_tokens)

        return run(ask)

    def tool(self) -> str:
        async def ask() -> str:
            async with self._agent(tools=[weather]) as agent:
                return str((await agent.run(HELLO)).output)

        return run(ask)

    def structured(self) -> City:
        async def ask() -> City:
            async with self._agent(output_type=City) as agent:
                found = (await agent.run(HELLO)).output
            assert isinstance(found, City)
            return found

        return run(ask)

    def leave(self) -> None:
        async def ask(begun: asyncio.Event) -> None:
            async with self._agent() as agent, agent.run_stream(HELLO) as answer:
                await anext(answer.stream_text(delta=True, debounce_by=None))
                begun.set()

        async def left() -> None:
            begun = asyncio.Event()
            task = asyncio.create_task(ask(begun))
            async with CLOCK.timeout(PATIENCE):
                await begun.wait()
            task.cancel()
            await asyncio.wait([task])

        run(left)

    def _agent(self, **options: Any) -> Any:
        raise NotImplementedError

    def _over(self, model: str, provider: Any, options: dict[str, Any]) -> Any:
        provider.client.max_retries = 0
        module, _, name = model.partition(".")
        kind = getattr(import_module(f"pydantic_ai.models.{module}"), name)
        return import_module("pydantic_ai").Agent(kind(self.model, provider=provider), **options)


class PydanticAIOpenAI(PydanticAI):
    def _agent(self, **options: Any) -> Any:
        provider = import_module("pydantic_ai.providers.openai").OpenAIProvider
        return self._over("openai.OpenAIChatModel", provider(base_url=f"{self.url}/v1", api_key=self.key), options)


class PydanticAIAnthropic(PydanticAI):
    def _agent(self, **options: Any) -> Any:
        provider = import_module("pydantic_ai.providers.anthropic").AnthropicProvider
        return self._over("anthropic.AnthropicModel", provider(base_url=self.url, api_key=self.key), options)


# --- what each of them does -----------------------------------------------------------------------------------------

CLIENTS: Final[list[type[Client]]] = [
    OpenAISync,
    OpenAIAsync,
    AnthropicSync,
    AnthropicAsync,
    LangChainOpenAI,
    LangChainAnthropic,
    PydanticAIOpenAI,
    PydanticAIAnthropic,
]
MODELS: Final = ("gpt-4o-mini", "claude-haiku-4-5")

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
each_model = pytest.mark.parametrize("model", MODELS)


def refused(ask: Callable[[], object]) -> Refused:
    with pytest.raises(Exception, match=r".") as raised:
        ask()
    error: Any = raised.value
    while getattr(error, "response", None) is None:
        error = error.__cause__  # what wraps the vendor's own
    return Refused(error.response.status_code, error.response.headers.get("retry-after"), str(raised.value))


@each_client
@each_model
def test_gets_a_whole_answer_with_its_usage(gateway_process: Any, client: type[Client], model: str) -> None:
    told = client(gateway_process.url, gateway_process.key, model).whole()
    assert told.text == HELLO
    assert told.tokens > 10
    assert gateway_process.upstream(model).requests[-1].key == "k1"  # the gateway's key, never the client's


@each_client
@each_model
def test_gets_a_stream_with_its_usage(gateway_process: Any, client: type[Client], model: str) -> None:
    told = client(gateway_process.url, gateway_process.key, model).stream()
    assert told.text == HELLO
    assert told.tokens > 10


@each_client
@each_model
def test_calls_a_tool_and_tells_what_it_found(gateway_process: Any, client: type[Client], model: str) -> None:
    assert client(gateway_process.url, gateway_process.key, model).tool() == "It is sunny in Paris there."


@each_client
@each_model
def test_gets_a_structured_answer(gateway_process: Any, client: type[Client], model: str) -> None:
    assert client(gateway_process.url, gateway_process.key, model).structured() == City(name="Paris", people=2_100_000)


@each_client
def test_hears_that_its_key_is_wrong(gateway_process: Any, client: type[Client]) -> None:
    wrong = "sk-manifold-mallory"
    said = refused(client(gateway_process.url, wrong, MODELS[0]).whole)
    assert said.status == 401
    assert "does not know the key" in said.words
    assert wrong not in said.words


@each_client
def test_promise_39_hears_of_its_keys_own_quota_and_how_long_to_wait(
    gateway_process: Any, client: type[Client]
) -> None:
    asked = client(gateway_process.url, gateway_process.limited_key(), MODELS[0])
    assert asked.whole().text == HELLO
    for ask in (asked.whole, asked.stream):
        said = refused(ask)
        assert said.status == 429
        assert 3590 < int(said.retry_after or 0) <= 3601


@each_client
@pytest.mark.parametrize("model", ["slow-gpt", "slow-claude"])
def test_leaves_a_stream_which_ends_it_upstream(gateway_process: Any, client: type[Client], model: str) -> None:
    upstream = gateway_process.upstream(model)
    client(gateway_process.url, gateway_process.key, model).leave()
    due = CLOCK.now() + PATIENCE
    while upstream.active:
        assert CLOCK.now() < due
        Event().wait(0.005)
    assert upstream.requests[-1].key == "k-stalls"
