"""Servers that speak OpenAI's chat dialect: where each is asked, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from pydantic import BaseModel

from llm.core import kinds
from llm.core.assembly import assemble
from llm.core.exceptions import LLMConfigurationError, LLMConnectionError, LLMInvalidRequestError, LLMServerError
from llm.core.messages import Message, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.core.protocols import ProviderSettings
from llm.core.structured import shape_of
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, StreamChunk
from llm.providers import SERVERS, Flavor, OpenAICompatible, Server
from llm.providers.compatible import CompatibleDialect
from llm.providers.structured import Way
from llm.runtime.registry import provider_factory
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.providers.conftest import Server as Upstream

    from llm.core.protocols import Reply

KEY = Secret("sk-test-0123456789abcdef")
TURNS = [Message(MessageRole.DEVELOPER, "Be brief."), Message(MessageRole.USER, "Hi", name="ann")]
REQUEST = LLMRequest(TURNS, model="m", max_tokens=5, seed=7)


class City(BaseModel):
    name: str


class Wire:
    """Notes what would be sent, and is cut."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {}

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        assert method == "POST"
        self.url, self.headers, self.body = url, dict(headers), orjson.loads(body or b"{}")
        raise LLMConnectionError("cut", sent=True)

    async def close(self) -> None: ...


def settings(wire: Wire, *, key: Secret | None = KEY, base_url: str | None = None) -> ProviderSettings:
    return ProviderSettings("mine", ("m",), SystemClock(), wire, key=key, base_url=base_url)


async def sent(
    name: str,
    request: LLMRequest = REQUEST,
    *,
    stream: bool = False,
    key: Secret | None = KEY,
    base_url: str | None = None,
) -> Wire:
    wire = Wire()
    provider = provider_factory(name)(settings(wire, key=key, base_url=base_url))
    with pytest.raises(LLMConnectionError, match="cut"):
        await (provider.stream(request) if stream else provider.complete(request))
    return wire


def test_a_configuration_knows_the_same_servers_and_which_need_keys() -> None:
    assert set(SERVERS) == set(kinds.COMPATIBLE)
    assert {name for name, server in SERVERS.items() if server.needs_key} == set(kinds.HOSTED)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("deepseek", "https://api.deepseek.com/v1"),
        ("fireworks", "https://api.fireworks.ai/inference/v1"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("groq", "https://api.groq.com/openai/v1"),
        ("llamacpp", "http://127.0.0.1:8080/v1"),
        ("lmstudio", "http://127.0.0.1:1234/v1"),
        ("mistral", "https://api.mistral.ai/v1"),
        ("ollama", "http://127.0.0.1:11434/v1"),
        ("together", "https://api.together.ai/v1"),
        ("vllm", "http://127.0.0.1:8000/v1"),
        ("xai", "https://api.x.ai/v1"),
    ],
)
async def test_a_server_is_asked_where_its_documentation_says(name: str, url: str) -> None:
    wire = await sent(name)
    assert wire.url == f"{url}/chat/completions"
    assert wire.headers["authorization"] == f"Bearer {KEY.reveal()}"


@pytest.mark.parametrize("name", SERVERS)
async def test_a_base_url_of_the_section_goes_before(name: str) -> None:
    assert (await sent(name, base_url="http://127.0.0.1:9/v1")).url == "http://127.0.0.1:9/v1/chat/completions"


@pytest.mark.parametrize("name", kinds.SELF_HOSTED)
async def test_servers_of_ones_own_are_asked_without_a_key(name: str) -> None:
    assert "authorization" not in (await sent(name, key=None)).headers


@pytest.mark.parametrize("name", [*kinds.COMPATIBLE])
async def test_a_developers_turn_is_a_systems(name: str) -> None:
    assert [turn["role"] for turn in (await sent(name)).body["messages"]] == ["system", "user"]


async def test_an_ordinary_server_gets_the_common_fields() -> None:
    body = (await sent("together", stream=True)).body
    assert (body["max_tokens"], body["seed"], body["stream_options"]) == (5, 7, {"include_usage": True})
    assert body["messages"][1]["name"] == "ann"


@pytest.mark.parametrize("name", ["groq", "xai"])
async def test_these_take_the_newer_name_of_the_limit(name: str) -> None:
    body = (await sent(name)).body
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


async def test_groq_is_told_no_names_which_it_refuses() -> None:
    assert "name" not in (await sent("groq")).body["messages"][1]


async def test_deepseek_gets_the_thoughts_of_a_turn_back_and_a_call_never_comes_without() -> None:
    called = (ToolCall("c1", "t", "{}"),)
    messages = (
        Message(MessageRole.USER, "Hi"),
        Message(MessageRole.ASSISTANT, (ThinkingPart("I "), ThinkingPart("look.")), tool_calls=called),
        Message(MessageRole.ASSISTANT, "", tool_calls=called),
        Message(MessageRole.ASSISTANT, (ThinkingPart("So."), TextPart("3"))),
        Message(MessageRole.ASSISTANT, "3"),
    )
    turns = (await sent("deepseek", LLMRequest(messages, model="m"))).body["messages"]
    assert [turn.get("reasoning_content") for turn in turns] == [None, "I look.", "", "So.", None]
    assert turns[3]["content"] == "3"
    others = (await sent("together", LLMRequest(messages, model="m"))).body["messages"]
    assert not any("reasoning_content" in turn for turn in others)


SEALED: Final = {
    "id": "c1",
    "type": "function",
    "function": {"name": "t", "arguments": "{}"},
    "extra_content": {"google": {"thought_signature": "seal"}},
}
"""A call of Gemini's. Source: https://ai.google.dev/gemini-api/docs/thought-signatures"""


async def test_gemini_gets_the_signature_of_a_call_back_however_it_came() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    message = {"role": "assistant", "content": None, "tool_calls": [SEALED]}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    whole = {"id": "i", "model": "m", "usage": usage, "choices": choices}
    dialect = CompatibleDialect(SERVERS["gemini"])
    answered = dialect.decode(orjson.dumps(whole), provider="gemini", key=None)
    events = dialect.events()
    pieces = [{"index": 0, **SEALED}, {"index": 0, "function": {"arguments": ""}}]
    chunks: list[StreamChunk] = []
    for piece, finish in zip(pieces, (None, "tool_calls"), strict=True):
        delta = {"tool_calls": [piece]}
        data = {"id": "i", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        chunk = events.feed(("", orjson.dumps(data)))
        assert isinstance(chunk, StreamChunk)
        chunks.append(chunk)
    assert answered.tool_calls == assemble(chunks).tool_calls == (ToolCall("c1", "t", "{}", signature="seal"),)
    turns: list[Any] = [answered.message, assemble(chunks).message, message]
    for turn in turns:
        request = LLMRequest((turn,), model="m")
        assert (await sent("gemini", request)).body["messages"][0]["tool_calls"] == [SEALED]
        unsealed = {name: value for name, value in SEALED.items() if name != "extra_content"}
        assert (await sent("groq", request)).body["messages"][0]["tool_calls"] == [unsealed]


async def test_mistral_gets_only_fields_that_it_knows() -> None:
    body = (await sent("mistral", stream=True)).body
    assert set(body) == {"model", "messages", "max_tokens", "random_seed", "stream"}
    assert body["random_seed"] == 7
    assert set(body["messages"][1]) == {"role", "content"}


async def test_mistral_is_asked_for_a_length_of_vectors_by_its_own_name() -> None:
    wire = Wire()
    provider = OpenAICompatible(settings(wire), SERVERS["mistral"])
    with pytest.raises(LLMConnectionError, match="cut"):
        await provider.embed(LLMRequest((), model="m", embed=EmbeddingInput(("a",), 4)))
    assert wire.body["output_dimension"] == 4
    assert "dimensions" not in wire.body


@pytest.mark.parametrize(("name", "texts"), [("gemini", 100), ("together", 2048)])
async def test_a_request_for_vectors_holds_no_more_texts_than_the_server_takes(name: str, texts: int) -> None:
    limits = OpenAICompatible(settings(Wire()), SERVERS[name]).embedding_limits
    assert limits is not None
    assert limits.texts == texts


@pytest.mark.parametrize("name", ["deepseek", "groq"])
async def test_who_makes_no_vectors_says_so_and_sends_nothing(name: str) -> None:
    wire = Wire()
    provider = OpenAICompatible(settings(wire), SERVERS[name])
    assert provider.embedding_limits is None
    with pytest.raises(LLMInvalidRequestError, match="makes no embeddings"):
        await provider.embed(LLMRequest((), model="m", embed=EmbeddingInput(("a",))))
    assert not wire.url


@pytest.mark.parametrize(("name", "first"), [("deepseek", Way.TOOL), ("groq", Way.NATIVE), ("ollama", Way.NATIVE)])
def test_a_form_is_asked_for_by_the_best_way_that_the_server_has(name: str, first: Way) -> None:
    assert CompatibleDialect(SERVERS[name]).ways(REQUEST, shape_of(City)).order[0] is first


def test_prompt_and_output_are_reserved_together_since_nobody_tells_a_rule() -> None:
    charge = CompatibleDialect(SERVERS["groq"]).charge(LLMRequest("x" * 400, model="m", max_tokens=50), 0)
    assert charge.total_tokens == charge.input_tokens + 50
    assert charge.input_tokens > 50


def test_a_missing_key_and_a_missing_address_are_told() -> None:
    with pytest.raises(LLMConfigurationError, match="provider 'mine': no key; add api_keys"):
        OpenAICompatible(settings(Wire(), key=None), SERVERS["groq"])
    with pytest.raises(LLMConfigurationError, match="no base_url"):
        OpenAICompatible(settings(Wire()))
    OpenAICompatible(settings(Wire(), key=None, base_url="http://127.0.0.1:9"), SERVERS["groq"])  # somebody's relay


async def test_a_subclass_is_a_factory_of_its_server() -> None:
    class Acme(OpenAICompatible):
        server = Server("https://api.acme.example/v1", Flavor(limit="limit"))

    wire = Wire()
    with pytest.raises(LLMConnectionError, match="cut"):
        await Acme(settings(wire)).complete(REQUEST)
    assert wire.url == "https://api.acme.example/v1/chat/completions"
    assert wire.body["limit"] == 5


async def test_what_one_key_learned_of_the_ways_the_others_of_its_section_know(
    server: Upstream, settings: ProviderSettings
) -> None:
    server.says(b'{"error": {"message": "json_schema is not supported by this model"}}', status=400)
    make = provider_factory("groq")
    asked = LLMRequest("Where?", model="m", response_model=City)
    for _ in range(2):
        with pytest.raises(LLMInvalidRequestError):
            await make(settings).complete(asked)
    assert [sorted(set(body) & {"response_format", "tools"}) for body in server.bodies] == [
        ["response_format"], ["tools"],
    ]  # fmt: skip


async def test_a_registered_class_is_called_for_each_key_and_they_know_it_together_all_the_same(
    server: Upstream, settings: ProviderSettings
) -> None:
    class Acme(OpenAICompatible):
        pass

    class Other(OpenAICompatible):
        pass

    server.says(b'{"error": {"message": "json_schema is not supported by this model"}}', status=400)
    asked = LLMRequest("Where?", model="m", response_model=City)
    keys = [Acme(settings), Acme(settings), Other(settings)]
    for key in keys:
        with pytest.raises(LLMInvalidRequestError):
            await key.complete(asked)
    assert ["tools" in body for body in server.bodies] == [False, True, False]


THOUGHT = b'[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]'
SAID = b'[{"type": "text", "text": "Par"}, {"type": "text", "text": "is"}]'


async def test_mistrals_thoughts_among_the_parts_of_an_answer_are_thoughts(
    server: Upstream, settings: ProviderSettings
) -> None:
    provider = provider_factory("mistral")(settings)
    both = THOUGHT[:-1] + b", " + SAID[1:]
    server.says(b'{"choices": [{"message": {"content": %s}, "finish_reason": "stop"}]}' % both)
    whole = await provider.complete(REQUEST)
    event = b'data: {"choices": [{"delta": {"content": %s}}]}\n\n'
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    server.streams(event % THOUGHT, event % SAID, end)
    streamed = await (await provider.stream(REQUEST)).response()
    for response in (whole, streamed):
        assert (response.content, [part.text for part in response.thinking]) == ("Paris", ["hm"])
    server.streams(event % b"5", end)
    with pytest.raises(LLMServerError, match="no part of a chat completion"):
        await (await provider.stream(REQUEST)).response()
