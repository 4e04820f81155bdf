"""What every provider keeps to: vendors' dialects, compatible servers, vendors' clients, a model on the box, doubles.

What one of them cannot do is in the `lacks` of its subject, with the reason; nothing is passed over in silence.
"""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import ast
import asyncio
import os
import re
import traceback
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, cast

import orjson
import pytest
from pydantic import BaseModel
from tests.patience import PATIENCE, until

from llm import (
    HealthStatus,
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMRequest,
    LLMResponse,
    LLMStream,
    Message,
    MessageRole,
    Provider,
    ProviderSettings,
    ToolCall,
    ToolDefinition,
    register_provider,
)
from llm.core.config.providers import ProviderConfig
from llm.core.embedding import limits_of
from llm.core.protocols import Embedding
from llm.core.texts import EmbeddingInput
from llm.providers import SERVERS
from llm.providers.direct.transport import DirectTransport
from llm.providers.local.fetch import fetch_model
from llm.providers.local.sharing import EngineLease
from llm.providers.sdk.clients import sdk_transport
from llm.providers.structured import ANSWER_TOOL
from llm.runtime.registry import provider_factory
from llm.testing import FakeProvider, Fault, MockUpstream
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from llm.core.protocols import Reply, Transport
    from llm.providers.sdk.transport import SDKTransport

KEY: Final = Secret("sk-contract-0123456789abcdef")
TEXT: Final = "one two three four five six seven eight nine ten"
# A model that is real writes what it likes: the forms leave it one call and one answer.
PLACE: Final = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]}
WEATHER: Final = ToolDefinition("weather", "Tells the weather", PLACE)
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class City(BaseModel):
    name: Literal["Paris"]
    sunny: Literal[True]


class Subject(Protocol):
    """A provider under test, and how it is brought into each situation."""

    model: str
    most: int
    """Tokens of an answer; a real model takes its time for each."""
    lacks: Mapping[str, str]

    def section(self) -> dict[str, Any]:
        """Return its section of a configuration."""
        ...

    def transport(self) -> Transport | None:
        """Return a manager's way to the network."""
        ...

    async def make(self) -> Provider:
        """Return one that serves."""
        ...

    async def stalling(self) -> tuple[Provider, LLMRequest]:
        """Return one whose answer begins and then takes long, and what to ask it."""
        ...

    async def failing(self) -> tuple[Provider, LLMRequest, type[LLMException]]:
        """Return one that fails, what to ask it, and the failure."""
        ...

    async def ill(self) -> Provider:
        """Return one whose health is bad."""
        ...

    async def ended(self) -> None:
        """Wait until all that was given up has ended, which by itself would take far longer."""
        ...


def speak(request: LLMRequest) -> LLMResponse | str:
    """Answer as a model does that repeats the user, calls the first tool, and keeps to a form."""
    if request.embed is not None:
        return ""  # the vectors are the double's
    last = request.messages[-1]
    text = next(turn.text for turn in reversed(request.messages) if turn.role is MessageRole.USER)
    names = [tool.name for tool in request.tools or () if isinstance(tool, ToolDefinition)]
    if ANSWER_TOOL in names:
        return LLMResponse(tool_calls=(ToolCall("call_1", ANSWER_TOOL, text),), finish_reason="tool_calls")
    if names and last.role is not MessageRole.TOOL:
        call = ToolCall("call_1", names[0], '{"city":"Paris"}')
        return LLMResponse(tool_calls=(call,), finish_reason="tool_calls")
    for stop in request.stop or ():
        text = text.partition(stop)[0]
    return text


class Strict:
    """Stands for Mistral in front of OpenAI's double: refuses fields of others, and tells usage without being asked."""

    KNOWN = frozenset(
        {"model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "response_format"}
        | {"tools", "tool_choice", "input", "encoding_format", "output_dimension"}
    )
    """Source: https://docs.mistral.ai/api/"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        if body is not None:
            fields = orjson.loads(body)
            assert set(fields) <= self.KNOWN, set(fields) - self.KNOWN
            assert not any("name" in turn for turn in fields.get("messages", ()) if turn["role"] != "tool")
            if fields.get("stream"):
                fields["stream_options"] = {"include_usage": True}
            if "output_dimension" in fields:
                fields["dimensions"] = fields.pop("output_dimension")
            body = orjson.dumps(fields)
        return await self._transport.request(method, url, headers=headers, body=body)

    async def close(self) -> None:
        await self._transport.close()


class OverHTTP:
    """A type of provider at a double of its vendor's server, on a real socket."""

    most = 24

    def __init__(  # noqa: PLR0913 - a row of the table below
        self,
        kind: str,
        dialect: Any = "openai",
        *,
        model: str = "some-model",
        key: Secret | None = KEY,
        api: str = "chat_completions",
        sdk: bool = False,
        lacks: Mapping[str, str] = NOTHING,
    ) -> None:
        self.kind, self.dialect, self.model, self.key, self.api, self.sdk = kind, dialect, model, key, api, sdk
        self.lacks = lacks if key is not None else {**lacks, "key": "the server needs no key"}
        self._ups: list[MockUpstream] = []
        self._ways: list[Transport] = []
        self._clients: list[SDKTransport] = []

    def __str__(self) -> str:
        return f"{self.kind}{'' if self.api == 'chat_completions' else '-' + self.api}{'-sdk' if self.sdk else ''}"

    def section(self) -> dict[str, Any]:
        section = {"type": self.kind, "base_url": self._ups[0].base_url, "models": [self.model], "api": self.api}
        keys = {} if self.key is None else {"api_keys": [self.key.reveal()]}
        return {**section, **keys, "transport": "sdk" if self.sdk else "direct"}

    def transport(self) -> Transport:
        return self._ways[0]

    async def make(self) -> Provider:
        return await self._provider(self._ups[0])

    async def stalling(self) -> tuple[Provider, LLMRequest]:
        up = await self._up(faults=[Fault("stalled", at=1, times=9)])
        return await self._provider(up), LLMRequest(TEXT, model=self.model, max_tokens=99)

    async def failing(self) -> tuple[Provider, LLMRequest, type[LLMException]]:
        up = await self._up(faults=[Fault("auth", times=9, message="no such key: {key}")])
        return await self._provider(up), LLMRequest(TEXT, model=self.model), LLMAuthenticationError

    async def ill(self) -> Provider:
        return await self._provider(await self._up(api_keys=["another"]))

    async def ended(self) -> None:
        await until(lambda: not any(up.active for up in self._ups))

    async def _up(self, **options: Any) -> MockUpstream:
        up = await MockUpstream(self.dialect, answer=speak, **options).__aenter__()
        self._ups.append(up)
        return up

    async def _provider(self, up: MockUpstream) -> Provider:
        settings = settings_for(self, self.key, base_url=up.base_url, transport=self._ways[0], api=self.api)
        if self.sdk:  # its parts load when the client is made, which would stop the loop
            section = ProviderConfig.model_validate({**self.section(), "base_url": up.base_url})
            client = await asyncio.to_thread(sdk_transport, "section", section, self.key, self._ways[0])
            self._clients.append(client)
            settings = replace(settings, transport=client)
        return provider_factory(self.kind)(settings)

    async def __aenter__(self) -> Self:
        direct = DirectTransport(connect_timeout=PATIENCE, trust_env=False)
        self._ways.append(Strict(direct) if self.kind == "mistral" else direct)
        await self._up()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        for way in self._ways:  # first, so that a leak fails its test, and does not have the server wait for it
            await way.close()
        for up in self._ups:
            await up.__aexit__()
        for made in (self._ups, self._ways, self._clients):
            made.clear()


class Nowhere:
    """The network of those who have none."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        raise AssertionError(f"{method} {url} was asked with {len(headers)} headers and {body!r}")

    async def close(self) -> None: ...


class InProcess:
    """What providers without a server have in common."""

    model: str
    most = 24
    lacks: Mapping[str, str]

    def transport(self) -> Transport | None:
        return Nowhere()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class Local(InProcess):
    model = "smollm2-135m"
    most = 5
    lacks: Mapping[str, str] = {"key": "a model on the box needs no key"}

    def __str__(self) -> str:
        return "local"

    def section(self) -> dict[str, Any]:
        return {"type": "local", "models": [self.model], "device": "cpu"}

    async def make(self) -> Provider:
        return provider_factory("local")(settings_for(self, None, device="cpu"))

    async def stalling(self) -> tuple[Provider, LLMRequest]:
        return await self.make(), LLMRequest("Count to a thousand.", model=self.model, max_tokens=1500)

    async def failing(self) -> tuple[Provider, LLMRequest, type[LLMException]]:
        return await self.make(), LLMRequest("Hi", model="no-such-model"), LLMConfigurationError

    async def ill(self) -> Provider:
        return provider_factory("local")(replace(settings_for(self, None), models=("no-such-model",), device="cpu"))

    async def ended(self) -> None:
        # One answer at a time: the next call is served when the one before has ended, and that would take minutes.
        provider = await self.make()
        async with SystemClock().timeout(PATIENCE):
            await provider.complete(ask(self, max_tokens=1))
        await provider.close()


class Fake(InProcess):
    model = "fake-model"
    lacks: Mapping[str, str] = {
        "closes": "a double serves many managers, one after the other; `closed` tells",
        "facts": "a double raises what its script says, and nothing else",
        "key": "a double knows a fingerprint only",
    }

    def __init__(self) -> None:
        self._made: list[FakeProvider] = []

    def __str__(self) -> str:
        return "fake"

    def section(self) -> dict[str, Any]:
        register_provider("contract-fake", lambda _: FakeProvider(speak))
        return {"type": "contract-fake", "models": [self.model]}

    async def make(self) -> Provider:
        return self._keep(FakeProvider(speak))

    async def stalling(self) -> tuple[Provider, LLMRequest]:
        return self._keep(FakeProvider([["Hel", ...]] * 9)), LLMRequest("Hi", model=self.model)

    async def failing(self) -> tuple[Provider, LLMRequest, type[LLMException]]:
        script: Any = [LLMAuthenticationError("refused")] * 9
        return self._keep(FakeProvider(script)), LLMRequest("Hi", model=self.model), LLMAuthenticationError

    async def ill(self) -> Provider:
        provider = FakeProvider()
        provider.healthy = False
        return provider

    async def ended(self) -> None:
        await until(lambda: not any(made.open_streams + made.in_flight for made in self._made))

    def _keep(self, made: FakeProvider) -> FakeProvider:
        self._made.append(made)
        return made


class OfTheGuide(InProcess):
    """The provider of `docs/providers.md`."""

    model = "grey"
    lacks: Mapping[str, str] = {
        "stalls": "its words are all there at once",
        "tools": "the page's provider refuses them",
        "embed": "the page's provider makes no vectors",
    }

    def __init__(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
        (code,) = [
            found
            for found in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
            if "class Parrot" in found
        ]
        tree = ast.parse(code)
        tree.body = [each for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom, ast.ClassDef))]
        names: dict[str, Any] = {}
        exec(compile(tree, "docs/providers.md", "exec"), names)  # noqa: S102 - our own page
        self._parrot: Callable[[ProviderSettings], Provider] = names["Parrot"]

    def __str__(self) -> str:
        return "guide"

    def section(self) -> dict[str, Any]:
        register_provider("contract-parrot", self._parrot)
        return {"type": "contract-parrot", "models": [self.model], "api_keys": [KEY.reveal()]}

    async def make(self) -> Provider:
        return self._parrot(settings_for(self, KEY))

    async def stalling(self) -> tuple[Provider, LLMRequest]:
        return await self.make(), LLMRequest(TEXT * 1000, model=self.model)

    async def failing(self) -> tuple[Provider, LLMRequest, type[LLMException]]:
        return await self.make(), LLMRequest("Hi", model=self.model, tools=[WEATHER]), LLMInvalidRequestError

    async def ill(self) -> Provider:
        provider = await self.make()
        await provider.close()
        return provider

    async def ended(self) -> None:
        """Nothing of it runs beside its reader."""


def settings_for(subject: OverHTTP | InProcess, key: Secret | None, **more: Any) -> ProviderSettings:
    given: dict[str, Any] = {"transport": Nowhere(), **more}
    return ProviderSettings("section", (subject.model,), SystemClock(), key=key, **given)


NO_VECTORS: Final = {"embed": "the server makes no vectors"}
SUBJECTS: Final[list[Any]] = [
    OverHTTP("openai"),
    OverHTTP("openai", api="responses", lacks={"stop": "the Responses API has none, and it is refused"}),
    OverHTTP(
        "anthropic", "anthropic", model="claude-3-5-haiku-20241022", lacks={"embed": "Anthropic makes no vectors"}
    ),
    OverHTTP("openrouter", "openrouter"),
    *(
        OverHTTP(name, key=KEY if row.needs_key else None, lacks=NOTHING if row.embeddings else NO_VECTORS)
        for name, row in SERVERS.items()
    ),
    OverHTTP("openai", sdk=True),
    OverHTTP(
        "anthropic", "anthropic", sdk=True, model="claude-sonnet-4-5", lacks={"embed": "Anthropic makes no vectors"}
    ),
    pytest.param(Local(), marks=pytest.mark.xdist_group("local")),  # one worker loads torch and the model, not each
    Fake(),
    OfTheGuide(),
]


@pytest.fixture(scope="module")
def loaded_model() -> Iterator[Path]:
    """The small model in memory, as long as this file needs it."""
    folder = fetch_model("smollm2-135m")
    before = os.environ.get("LLM_MODELS_DIR")
    os.environ["LLM_MODELS_DIR"] = str(folder.parent)
    lease = EngineLease("cpu")
    asyncio.run(lease.engine.load_model("smollm2-135m"))
    yield folder
    asyncio.run(lease.give_back())
    if before is None:
        del os.environ["LLM_MODELS_DIR"]
    else:
        os.environ["LLM_MODELS_DIR"] = before


@pytest.fixture
def prepared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be there before the loop runs."""
    for name in tuple(os.environ):  # what the vendors' clients would find by themselves
        if name.startswith(("OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    item = cast("Any", request.node)  # pyright: ignore[reportUnknownMemberType] # bare in pytest 9.1
    if isinstance(item.callspec.params["subject"], Local):
        request.getfixturevalue("loaded_model")


@pytest.fixture(params=SUBJECTS, ids=str)
async def subject(request: pytest.FixtureRequest, prepared: None) -> AsyncIterator[Subject]:
    assert prepared is None
    async with request.param as entered:
        yield entered


@pytest.fixture
async def provider(subject: Subject) -> AsyncIterator[Provider]:
    made = await subject.make()
    await made.initialize()
    yield made
    await made.close()


@pytest.fixture
async def manager(subject: Subject) -> AsyncIterator[LLMManager]:
    config = {"providers": {"section": subject.section()}}
    async with LLMManager.open(config, transport=subject.transport()) as opened:
        yield opened


def needs(subject: Subject, ability: str) -> None:
    if ability in subject.lacks:
        pytest.skip(f"{subject}: {subject.lacks[ability]}")


def ask(subject: Subject | InProcess, messages: Any = TEXT, **options: Any) -> LLMRequest:
    steering: dict[str, Any] = {"max_tokens": subject.most, "temperature": 0.0, **options}
    return LLMRequest(messages, model=subject.model, **steering)


async def first_chunks(provider: Provider, request: LLMRequest, ready: asyncio.Event) -> None:
    async with await provider.stream(request) as stream:
        async for _ in stream:
            ready.set()


async def test_it_is_a_provider_and_may_be_initialized_twice(subject: Subject, provider: Provider) -> None:
    assert isinstance(provider, Provider)
    await provider.initialize()
    assert (await provider.complete(ask(subject))).content


async def test_an_answer_is_whole(subject: Subject, provider: Provider) -> None:
    response = await provider.complete(ask(subject))
    assert response.content
    assert response.id
    assert response.model == subject.model
    assert response.finish_reason in {"stop", "length"}
    assert response.usage.input_tokens > 0
    assert 0 < response.usage.output_tokens <= subject.most
    if "facts" not in subject.lacks:
        assert response.provider == "section"
        assert response.key == (None if "key" in subject.lacks else KEY.fingerprint)


async def test_a_streams_chunks_join_to_the_whole_and_end_once_with_usage(subject: Subject, provider: Provider) -> None:
    whole = await provider.complete(ask(subject))
    async with await provider.stream(ask(subject)) as stream:
        chunks = [chunk async for chunk in stream]
        streamed = await stream.response()
    assert "".join(chunk.content for chunk in chunks) == streamed.content == whole.content
    assert len([chunk for chunk in chunks if chunk.content]) > 1
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [whole.finish_reason]
    assert (streamed.usage, streamed.finish_reason) == (whole.usage, whole.finish_reason)
    assert (streamed.model, streamed.provider, streamed.key) == (whole.model, whole.provider, whole.key)
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-2])


async def test_all_roles_are_taken(subject: Subject, provider: Provider) -> None:
    turns = [
        Message(MessageRole.SYSTEM, "Be brief."),
        Message(MessageRole.DEVELOPER, "Be kind."),
        Message(MessageRole.USER, "Hello there", name="ann"),
        Message(MessageRole.ASSISTANT, "Hi Ann"),
        Message(MessageRole.USER, TEXT),
    ]
    response = await provider.complete(ask(subject, turns))
    assert response.content
    assert response.usage.input_tokens > 10


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_tool_is_called_and_its_result_taken(subject: Subject, provider: Provider, *, streamed: bool) -> None:
    needs(subject, "tools")
    request = ask(subject, "How is the weather?", tools=[WEATHER], tool_choice="weather", max_tokens=60)
    response = await (await provider.stream(request)).response() if streamed else await provider.complete(request)
    (call,) = response.tool_calls
    assert (call.name, orjson.loads(call.arguments), response.finish_reason) == (
        "weather", {"city": "Paris"}, "tool_calls",
    )  # fmt: skip
    result = Message(MessageRole.TOOL, "sunny", tool_call_id=call.id)
    turns = [*request.messages, response.message, result]
    assert (await provider.complete(ask(subject, turns, tools=[WEATHER]))).content


async def test_an_answer_ends_before_a_stop(subject: Subject, provider: Provider) -> None:
    needs(subject, "stop")
    whole = (await provider.complete(ask(subject))).content
    stop = whole.split()[1]
    response = await provider.complete(ask(subject, stop=[stop]))
    assert response.content == whole.partition(stop)[0]
    assert response.finish_reason == "stop"


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_an_answer_cut_at_max_tokens_says_so(subject: Subject, provider: Provider, *, streamed: bool) -> None:
    request = ask(subject, max_tokens=2)
    response = await (await provider.stream(request)).response() if streamed else await provider.complete(request)
    assert response.finish_reason == "length"
    assert 0 < response.usage.output_tokens <= 2


async def test_options_that_steer_are_taken(subject: Subject, provider: Provider) -> None:
    assert (await provider.complete(ask(subject, temperature=0.5, top_p=0.9, seed=7))).content


async def test_a_cancelled_stream_closes_upstream(subject: Subject) -> None:
    needs(subject, "stalls")
    provider, request = await subject.stalling()
    await provider.initialize()
    ready = asyncio.Event()
    task = asyncio.create_task(first_chunks(provider, request, ready))
    await ready.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await subject.ended()
    await provider.close()


async def test_a_stream_left_early_closes_upstream(subject: Subject) -> None:
    provider, request = await subject.stalling()
    await provider.initialize()
    stream = await provider.stream(request)
    assert isinstance(stream, LLMStream)
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    await subject.ended()
    await provider.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_failure_is_an_llm_exception_that_says_where_and_shows_no_key(
    subject: Subject, *, streamed: bool
) -> None:
    provider, request, kind = await subject.failing()
    with pytest.raises(kind) as caught:
        await (provider.stream(request) if streamed else provider.complete(request))
    error = caught.value
    if "facts" not in subject.lacks:
        assert (error.provider, error.model) == ("section", request.model)
        assert error.key == (None if "key" in subject.lacks else KEY.fingerprint)
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert KEY.reveal() not in f"{error} {error!r} {error.__dict__} {told}"
    await provider.close()


async def test_nothing_shows_the_key(subject: Subject, provider: Provider) -> None:
    response = await provider.complete(ask(subject))
    assert response.key == (None if "key" in subject.lacks else KEY.fingerprint)
    assert KEY.reveal() not in f"{provider!r} {provider} {vars(provider)} {response!r}"


async def test_health_is_told_and_never_raised(subject: Subject, provider: Provider) -> None:
    assert isinstance(status := await provider.health_check(), HealthStatus)
    assert status.healthy, status.error
    ill = await subject.ill()
    status = await ill.health_check()
    assert not status.healthy
    assert KEY.reveal() not in f"{status!r}"
    await ill.close()


async def test_close_is_safe_twice_and_what_comes_after_fails_at_once(subject: Subject) -> None:
    provider = await subject.make()
    await provider.initialize()
    await provider.close()
    await provider.close()
    needs(subject, "closes")
    calls: list[Callable[[LLMRequest], Awaitable[object]]] = [provider.complete, provider.stream]
    for call in calls:
        with pytest.raises(LLMException, match=r"closed|flown") as caught:
            await call(ask(subject))
        assert not caught.value.retryable
    assert not (await provider.health_check()).healthy


async def test_vectors_come_one_a_text_or_are_refused_by_name(
    subject: Subject, provider: Provider, manager: LLMManager
) -> None:
    client = manager.get_client()
    if "embed" in subject.lacks:
        assert limits_of(provider) is None
        with pytest.raises(LLMInvalidRequestError, match="makes no embeddings"):
            await client.embed(["one", "two"])
        return
    assert isinstance(provider, Embedding)
    asked = LLMRequest((), model=subject.model, embed=EmbeddingInput(("one", "two"), 4))
    response = await provider.embed(asked)
    assert [len(vector) for vector in response.embeddings] == [4, 4]
    assert (await client.embed(["one", "two"])).embeddings[0] != response.embeddings[1]


async def test_a_client_counts_tokens(manager: LLMManager) -> None:
    few = await manager.get_client().count_tokens("Hi")
    assert 0 < few < await manager.get_client().count_tokens(TEXT * 9)


async def test_a_client_gets_the_instance_of_a_response_model(subject: Subject, manager: LLMManager) -> None:
    needs(subject, "response_model")
    wanted = City(name="Paris", sunny=True)
    response = await manager.get_client().complete(wanted.model_dump_json(), response_model=City)
    assert response.parsed == wanted
    async with manager.get_client().stream_complete(wanted.model_dump_json(), response_model=City) as stream:
        assert (await stream.response()).parsed == wanted
