# ruff: noqa: ANN401 - options and JSON as they come
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from llm.core.exceptions import LLMInvalidRequestError, LLMOverloadedError
from llm.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from llm.core.types import LLMRequest, StreamChunk, ToolDefinition
from llm.core.vendor import CachePoint
from llm.providers.openrouter import OpenRouterDialect
from llm.providers.openrouter.models import Accepted, find, read_models
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

DIALECT = OpenRouterDialect()
LLAMA, O3, MYTHOMAX = "meta-llama/llama-3.1-8b-instruct", "openai/o3-mini", "gryphe/mythomax-l2-13b"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
TOOL = ToolDefinition("t")


class Known:
    """Knows the recorded list, and notes what was left out."""

    def __init__(self, models: dict[str, Accepted]) -> None:
        self.models = models
        self.left_out: list[tuple[str, list[str]]] = []

    def accepted(self, model: str) -> Accepted | None:
        return find(self.models, model)

    def dropped(self, model: str, parameters: list[str]) -> None:
        self.left_out.append((model, parameters))


@pytest.fixture
def known(wire: Callable[[str], bytes]) -> Known:
    return Known(read_models(wire("openrouter/models.json")))


def body_of(request: LLMRequest, dialect: OpenRouterDialect = DIALECT) -> Any:
    return orjson.loads(dialect.encode(request, stream=False))


def test_it_is_openais_dialect_at_its_own_address() -> None:
    assert DIALECT.url == "https://openrouter.ai/api/v1/chat/completions"
    assert OpenRouterDialect("http://127.0.0.1:9000").url == "http://127.0.0.1:9000/v1/chat/completions"


def test_health_asks_for_the_key_because_the_list_of_models_is_for_everybody() -> None:
    assert DIALECT.health_url == "https://openrouter.ai/api/v1/key"
    assert DIALECT.models_url == "https://openrouter.ai/api/v1/models"


def test_what_it_takes_otherwise_is_written_its_way() -> None:
    turn = Message(MessageRole.USER, (DocumentPart(url="https://x/y.pdf"),))
    body = body_of(LLMRequest(turn, model=LLAMA, reasoning_effort="high", max_tokens=5))
    assert body["model"] == LLAMA
    assert body["reasoning"] == {"effort": "high"}
    assert body["max_tokens"] == 5
    assert body["messages"][0]["content"] == [
        {"type": "file", "file": {"filename": "document", "file_data": "https://x/y.pdf"}}
    ]
    assert not body.keys() & {"provider", "models"}


def test_a_mark_at_the_start_of_a_turn_is_that_of_the_turn_before() -> None:
    turns = (
        Message(MessageRole.SYSTEM, "Be kind"),
        Message(MessageRole.USER, (CachePoint("1h"), TextPart("Hi"), ImagePart(url="https://x/y.png"))),
        Message(MessageRole.ASSISTANT, (CachePoint(),), tool_calls=(ToolCall("1", "t", "{}"),)),
        Message(MessageRole.TOOL, (CachePoint(), TextPart("3")), tool_call_id="1"),
    )
    system, user, assistant, tool = body_of(LLMRequest(turns, model="m"))["messages"]
    hour = {"type": "ephemeral", "ttl": "1h"}
    assert system["content"] == [{"type": "text", "text": "Be kind", "cache_control": hour}]
    assert [part.get("cache_control") for part in user["content"]] == [None, {"type": "ephemeral"}]
    assert not assistant["content"]
    assert tool["content"] == [{"type": "text", "text": "3"}]


def test_comments_keep_a_stream_alive_and_a_late_error_raises() -> None:
    chunk = b'{"id":"gen-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}'
    error = (
        b'{"id":"gen-1","error":{"code":503,"message":"no provider"},'
        b'"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}'
    )
    stream = b": OPENROUTER PROCESSING\n\ndata: " + chunk + b"\n\n: OPENROUTER PROCESSING\n\ndata: " + error + b"\n\n"
    first, second = EventDecoder().feed(stream)
    reader = DIALECT.events()
    assert reader.feed(first) == StreamChunk("Hi")
    with pytest.raises(LLMOverloadedError, match="no provider"):
        reader.feed(second)


def test_preferences_go_into_every_body_and_the_calls_extra_goes_before_them_field_by_field() -> None:
    routing = {"models": ["b"], "provider": {"sort": "price", "data_collection": "deny"}}
    dialect = OpenRouterDialect(routing=routing)
    assert body_of(LLMRequest("Hi", model="m"), dialect).items() >= routing.items()
    extra = {"provider": {"sort": "latency"}, "models": ["c"], "plugins": [{"id": "web"}]}
    body = body_of(LLMRequest("Hi", model="m", extra=extra), dialect)
    assert body["provider"] == {"sort": "latency", "data_collection": "deny"}
    assert (body["models"], body["plugins"]) == (["c"], [{"id": "web"}])
    assert routing["provider"] == {"sort": "price", "data_collection": "deny"}


def test_a_form_of_the_answer_goes_only_to_who_knows_it_unless_told_otherwise() -> None:
    request = LLMRequest("Hi", model="m", response_format="json_object")
    assert body_of(request)["provider"] == {"require_parameters": True}
    told = OpenRouterDialect(routing={"provider": {"require_parameters": False, "order": ["a"]}})
    assert body_of(request, told)["provider"] == {"require_parameters": False, "order": ["a"]}
    assert "provider" not in body_of(LLMRequest("Hi", model="m", response_format="text"))


def test_reasoning_is_steered_by_effort_and_extra_together() -> None:
    request = LLMRequest("Hi", model="m", reasoning_effort="low", extra={"reasoning": {"exclude": True}})
    assert body_of(request)["reasoning"] == {"effort": "low", "exclude": True}


def test_what_a_model_does_not_take_is_left_out_and_told(known: Known) -> None:
    dialect = OpenRouterDialect(knowledge=known)
    request = LLMRequest("Hi", model=O3, temperature=0.5, top_p=0.5, stop="x", seed=1, reasoning_effort="low")
    body = body_of(request, dialect)
    assert not body.keys() & {"temperature", "top_p", "stop"}
    assert (body["seed"], body["reasoning"]) == (1, {"effort": "low"})
    assert known.left_out == [(O3, ["stop", "temperature", "top_p"])]


def test_what_extra_says_is_sent_unread(known: Known) -> None:
    body = body_of(LLMRequest("Hi", model=O3, extra={"temperature": 0.5}), OpenRouterDialect(knowledge=known))
    assert body["temperature"] == 0.5
    assert known.left_out == []


def test_or_it_is_refused_by_name(known: Known) -> None:
    dialect = OpenRouterDialect(knowledge=known, on_unsupported="refuse")
    with pytest.raises(LLMInvalidRequestError, match=r"openai/o3-mini does not take stop, temperature; leave them out"):
        dialect.encode(LLMRequest("Hi", model=O3, temperature=0.5, stop="x"), stream=False)
    with pytest.raises(LLMInvalidRequestError, match=r"does not take seed; leave it out, .* on_unsupported: drop"):
        dialect.encode(LLMRequest("Hi", model=MYTHOMAX, seed=1), stream=False)
    assert known.left_out == []


@pytest.mark.parametrize("mode", ["drop", "refuse"])
@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        (MYTHOMAX, {"tools": [TOOL]}, "tools"),
        (MYTHOMAX, {"tool_choice": "required"}, "tool_choice"),
        (MYTHOMAX, {"tool_choice": {"type": "function", "function": {"name": "t"}}}, "tool_choice"),
        (MYTHOMAX, {"response_format": "json_object"}, "response_format"),
        (LLAMA, {"response_format": SCHEMA}, "a JSON schema as response_format"),
    ],
)
def test_what_changes_the_question_is_refused_by_name_in_both_modes(
    known: Known, mode: Any, model: str, options: Any, named: str
) -> None:
    dialect = OpenRouterDialect(knowledge=known, on_unsupported=mode)
    with pytest.raises(LLMInvalidRequestError, match=f"{model} does not take {named}, and the request means something"):
        dialect.encode(LLMRequest("Hi", model=model, **options), stream=False)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (ImagePart(url="https://x/y.png"), r"the image in messages\[1\]"),
        (AudioPart(data=b"x", format="wav"), r"the audio in messages\[1\]"),
    ],
)
def test_content_that_a_model_cannot_see_or_hear_is_refused_by_name(
    known: Known, part: ImagePart | AudioPart, named: str
) -> None:
    messages = [Message("user", "Hi"), Message("user", (TextPart("What is it?"), part))]  # type: ignore[arg-type]  # text is a role too
    with pytest.raises(LLMInvalidRequestError, match=named):
        OpenRouterDialect(knowledge=known).encode(LLMRequest(messages, model=LLAMA), stream=False)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (LLAMA, {"tools": [TOOL], "tool_choice": "required", "response_format": "json_object"}),
        (O3, {"response_format": SCHEMA}),
        (MYTHOMAX, {"tool_choice": "auto", "response_format": "text", "temperature": 1.0}),
        (f"{LLAMA}:nitro", {"tools": [TOOL], "seed": 1}),
        ("nobody/knows", {"tools": [TOOL], "temperature": 1.0, "response_format": SCHEMA}),
    ],
)
def test_what_a_model_takes_and_what_nobody_knows_is_sent(known: Known, model: str, options: Any) -> None:
    for mode in ("drop", "refuse"):
        body = body_of(
            LLMRequest("Hi", model=model, **options),
            OpenRouterDialect(knowledge=known, on_unsupported=mode),
        )
        assert body.keys() >= options.keys()
    assert known.left_out == []


def test_content_that_a_model_can_see_and_hear_is_sent(known: Known) -> None:
    known.models["all"] = Accepted(inputs=frozenset({"text", "image", "audio"}))
    parts = (ImagePart(url="https://x/y.png"), AudioPart(data=b"x", format="wav"))
    request = LLMRequest(Message(MessageRole.USER, parts), model="all")
    assert len(body_of(request, OpenRouterDialect(knowledge=known))["messages"][0]["content"]) == 2


def test_a_model_of_which_the_list_says_nothing_gets_all(known: Known) -> None:
    known.models["quiet"] = Accepted()
    image = Message(MessageRole.USER, (ImagePart(url="https://x/y.png"),))
    request = LLMRequest(image, model="quiet", temperature=1.0, tools=[TOOL], response_format="json_object")
    body = body_of(request, OpenRouterDialect(knowledge=known))
    assert body.keys() >= {"temperature", "tools", "response_format"}


def test_thoughts_go_back_with_the_turn_that_they_belong_to(wire: Callable[[str], bytes]) -> None:
    recorded = orjson.loads(wire("openrouter/answer.json"))
    answer = DIALECT.decode(wire("openrouter/answer.json"), provider="p", key=None)
    tool = Message(MessageRole.TOOL, "Rain", tool_call_id="toolu_01")
    turn = body_of(LLMRequest([Message(MessageRole.USER, "Hi"), answer.message, tool], model="m"))["messages"][1]
    assert turn["reasoning_details"] == recorded["choices"][0]["message"]["reasoning_details"]
    assert turn["content"] == "Let me look."
    assert turn["tool_calls"][0]["id"] == "toolu_01"


def test_thoughts_of_a_user_are_nobodys() -> None:
    turn = Message(MessageRole.USER, (ThinkingPart("x", details="[]"), TextPart("Hi")))
    assert body_of(LLMRequest(turn, model="m"))["messages"][0].keys() == {"role", "content"}
