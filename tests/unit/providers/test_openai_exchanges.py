from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm.core.assembly import assemble
from llm.core.choices import Choice, TokenLogprob
from llm.core.messages import AudioPart, DocumentPart, ImagePart, Message, MessageRole, TextPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse, TokenUsage, ToolDefinition
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.providers.serving import openai_read
from llm.providers.serving.openai_write import OpenAIStream
from llm.testing.script import cut
from llm.testing.vendor import Stamp
from llm.testing.vendor_openai import OpenAIVendor
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from llm.core.protocols import ProviderSettings
    from llm.core.types import StreamChunk
    from llm.providers.dialect import EventReader

    class Server(Protocol):
        url: str

        def streams(self, *pieces: bytes) -> None: ...


WIRE = Path(__file__).parents[2] / "wire" / "openai"
OWN = OpenAIDialect()
MINI = "gpt-4o-mini-2024-07-18"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = ToolDefinition(
    "weather",
    "Tells the weather of a city",
    {**CITY, "required": ["city"], "additionalProperties": False},
    strict=True,
)
CLOCK = ToolDefinition("clock", "Tells the time of a city", CITY)
STEPS: dict[str, Any] = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": {"type": "string"}}},
    "required": ["steps"],
    "additionalProperties": False,
}
ONLY = [{"type": "function", "function": {"name": name}} for name in ("weather", "clock")]
SHELL: dict[str, Any] = {
    "name": "shell",
    "description": "Runs a command",
    "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "^[a-z ]+$"}},
}
REQUESTS = {
    "choices": LLMRequest("Name a colour", model="gpt-4o-mini", temperature=1.2, max_tokens=8, extra={"n": 3}),
    "choices_tools": LLMRequest(
        "Weather and time in Rome?",
        model="gpt-4o-mini",
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": ONLY}},
        extra={"n": 2, "parallel_tool_calls": True},
    ),
    "logprobs": LLMRequest("Greet me", model="gpt-4o-mini", extra={"logprobs": True, "top_logprobs": 2}),
    "refusal": LLMRequest(
        [
            Message(MessageRole.USER, "How do I pick a lock?"),
            LLMResponse(content="I can't help.", finish_reason="content_filter", refused=True).message,
            Message(MessageRole.USER, "Please"),
        ],
        model="gpt-4o-2024-08-06",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "steps", "strict": True, "schema": STEPS},
        },
        extra={"logprobs": True},
    ),
    "reasoning": LLMRequest(
        [
            Message(MessageRole.DEVELOPER, "Answer in one word"),
            Message(MessageRole.USER, "Capital of Italy?", name="ann"),
        ],
        model="o4-mini",
        max_tokens=500,
        reasoning_effort="low",
        extra={
            "service_tier": "flex",
            "prediction": {"type": "content", "content": "Rome"},
            "metadata": {"team": "maps"},
            "store": True,
            "verbosity": "low",
        },
    ),
    "inputs": LLMRequest(
        [
            Message(MessageRole.SYSTEM, "Be short"),
            Message(
                MessageRole.USER,
                (
                    TextPart("What are these?"),
                    ImagePart(url="https://example.com/cat.png", detail="low"),
                    ImagePart(data=b"\x89PNG\r\n", media_type="image/png", detail="high"),
                    DocumentPart(data=b"%PDF-1.7", media_type="application/pdf", title="a.pdf"),
                    DocumentPart(file_id="file-6F2ksmvXxt4VdoqmHRw6kL"),
                    AudioPart(data=b"RIFF\x00\x00WAVE", format="wav"),
                ),
            ),
        ],
        model="gpt-4o",
    ),
    "results": LLMRequest(
        [
            Message(MessageRole.USER, "Weather?"),
            Message(
                MessageRole.ASSISTANT,
                "I look.",
                tool_calls=(
                    ToolCall("call_a", "weather", '{"city":"Rome"}'),
                    ToolCall("call_x", "shell", "date -u", custom=True),
                ),
            ),
            Message(MessageRole.TOOL, "sunny, 30 °C", tool_call_id="call_a"),
            Message(MessageRole.TOOL, "Sat Nov 21", tool_call_id="call_x"),
        ],
        model="gpt-4o-mini",
        tools=[WEATHER],
        tool_choice="none",
    ),
    "custom_tool": LLMRequest(
        "List files",
        model="gpt-5-mini",
        tools=[{"type": "custom", "custom": SHELL}],
        tool_choice={"type": "custom", "custom": {"name": "shell"}},
    ),
    "audio": LLMRequest(
        "Say good day",
        model="gpt-4o-audio-preview",
        extra={"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}},
    ),
    "annotations": LLMRequest(
        "News?", model="gpt-4o-search-preview", extra={"web_search_options": {"search_context_size": "low"}}
    ),
}


def likely(token: str, logprob: float, *top: tuple[str, float]) -> TokenLogprob:
    return TokenLogprob(token, logprob, token.encode(), tuple(TokenLogprob(t, p, t.encode()) for t, p in top))


HAND = TokenLogprob("\\xf0\\x9f\\x91", -0.5, b"\xf0\x9f\x91")
ANSWERS = {
    "choices": LLMResponse(
        "chatcmpl-choices",
        "Deep blue",
        MINI,
        usage=TokenUsage(10, 14),
        finish_reason="stop",
        alternatives=(Choice("Olive green and so", "length"), Choice("Red.", "stop")),
    ),
    "choices_tools": LLMResponse(
        "chatcmpl-choices-tools",
        "",
        MINI,
        usage=TokenUsage(96, 51),
        finish_reason="tool_calls",
        tool_calls=(ToolCall("call_a", "weather", '{"city":"Rome"}'), ToolCall("call_b", "clock", '{"city":"Rome"}')),
        alternatives=(Choice("", "tool_calls", (ToolCall("call_c", "weather", '{"city":"Roma"}'),)),),
    ),
    "logprobs": LLMResponse(
        "chatcmpl-logprobs",
        "Hi\U0001f44b",
        MINI,
        usage=TokenUsage(9, 4),
        finish_reason="stop",
        logprobs=(
            likely("Hi", -0.25, ("Hi", -0.25), ("Hello", -1.5)),
            replace(HAND, top=(HAND,)),
            TokenLogprob("\\x8b", 0.0, b"\x8b"),
            TokenLogprob("<|end|>", -9999.0),
        ),
    ),
    "refusal": LLMResponse(
        "chatcmpl-refusal",
        "I'm sorry.",
        "gpt-4o-2024-08-06",
        usage=TokenUsage(81, 11),
        finish_reason="content_filter",
        logprobs=(likely("I'm", -0.125), likely(" sorry", -0.0625), likely(".", -0.5)),
        refused=True,
    ),
    "reasoning": LLMResponse(
        "chatcmpl-reasoning", "Rome", "o4-mini-2025-04-16", usage=TokenUsage(1210, 74, 1024, 64), finish_reason="stop"
    ),
    "inputs": LLMResponse(
        "chatcmpl-inputs", "A cat.", "gpt-4o-2024-08-06", usage=TokenUsage(2210, 3), finish_reason="stop"
    ),
    "results": LLMResponse(
        "chatcmpl-results", "Sunny, thirty degrees.", MINI, usage=TokenUsage(132, 8), finish_reason="stop"
    ),
    "custom_tool": LLMResponse(
        "chatcmpl-custom",
        "",
        "gpt-5-mini-2025-08-07",
        usage=TokenUsage(60, 20, 0, 8),
        finish_reason="tool_calls",
        tool_calls=(ToolCall("call_x", "shell", 'ls "my files"', custom=True),),
    ),
    "audio": LLMResponse(
        "chatcmpl-audio",
        "Good day",
        "gpt-4o-audio-preview-2025-06-03",
        usage=TokenUsage(14, 40),
        finish_reason="stop",
    ),
    "annotations": LLMResponse(
        "chatcmpl-annotations",
        "It rains",
        "gpt-4o-search-preview-2025-03-11",
        usage=TokenUsage(8, 3),
        finish_reason="stop",
    ),
}
# The vendor's client does not know this form in a stream yet, though the vendor sends it.
UNKNOWN_TO_THE_CLIENT = {"custom_tool"}


def sent(name: str) -> Any:  # noqa: ANN401 - JSON
    return orjson.loads((WIRE / f"{name}.request.json").read_bytes())


def flat(read: StreamChunk | tuple[StreamChunk, ...] | None) -> tuple[StreamChunk, ...]:
    if isinstance(read, tuple):
        return read
    return () if read is None else (read,)


def chunks_of(stream: bytes) -> tuple[list[StreamChunk], EventReader]:
    reader = OWN.events()
    chunks: list[StreamChunk] = []
    for event in EventDecoder().feed(stream):
        chunks += flat(reader.feed(event))
    assert reader.done
    return chunks, reader


def gathered(stream: bytes) -> LLMResponse:
    chunks, reader = chunks_of(stream)
    return assemble(chunks, id=reader.id, model=reader.model, raw=reader.raw)


def told(name: str) -> Any:  # noqa: ANN401 - JSON
    return orjson.loads((WIRE / f"{name}.json").read_bytes())


def streamed(name: str) -> LLMResponse:
    return gathered((WIRE / f"{name}.sse").read_bytes())


def strictly(model: type[ChatCompletion | ChatCompletionChunk], body: bytes) -> None:
    model.model_validate_json(body, strict=True)


def check_events(stream: bytes) -> None:
    for _, data in EventDecoder().feed(stream):
        if data != b"[DONE]":
            strictly(ChatCompletionChunk, data)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_written_as_recorded(name: str) -> None:
    body = sent(name)
    assert orjson.loads(OWN.encode(REQUESTS[name], stream=False)) == body
    form = {"stream": True, "stream_options": {"include_usage": True}}
    assert orjson.loads(OWN.encode(REQUESTS[name], stream=True)) == {**body, **form}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_recorded_request_is_read_as_the_one_that_was_written(name: str) -> None:
    assert openai_read.read_request(sent(name)) == REQUESTS[name]
    form = {"stream": True, "stream_options": {"include_usage": True}}
    assert openai_read.read_request({**sent(name), **form}) == replace(REQUESTS[name], stream=True)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_with_nothing_dropped(name: str) -> None:
    answer = OWN.decode((WIRE / f"{name}.json").read_bytes(), provider="", key=None)
    assert replace(answer, raw=None) == ANSWERS[name]
    assert answer.raw == told(name)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_is_gathered_to_the_same_answer_as_the_whole_one(name: str) -> None:
    assert replace(streamed(name), raw=None) == ANSWERS[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_every_field_of_a_stream_is_reachable_in_its_raw_answer(name: str) -> None:
    raw, whole = streamed(name).raw, told(name)
    assert raw is not None
    shared = {
        field: value for field, value in whole.items() if field not in {"object", "choices"} and value is not None
    }
    assert {field: raw.get(field) for field in shared} == shared
    assert raw["object"] == "chat.completion.chunk"
    said = {field: value for choice in raw["choices"] for field, value in choice["message"].items()}
    further = {field: whole["choices"][0]["message"].get(field) for field in ("audio", "annotations")}
    assert said == {field: value for field, value in further.items() if value}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_vendors_own_types_accept_what_is_recorded(name: str) -> None:
    strictly(ChatCompletion, (WIRE / f"{name}.json").read_bytes())
    if name not in UNKNOWN_TO_THE_CLIENT:
        check_events((WIRE / f"{name}.sse").read_bytes())


@pytest.mark.parametrize("name", ANSWERS)
def test_the_vendors_own_types_accept_what_a_mock_upstream_sends_and_it_is_read_back_whole(name: str) -> None:
    answer, vendor, stamp = ANSWERS[name], OpenAIVendor(), Stamp(1, 0.0, 1.7e9)
    body = vendor.whole(answer, stamp)
    strictly(ChatCompletion, body)
    assert replace(OWN.decode(body, provider="", key=None), raw=None) == answer
    options = {"stream_options": {"include_usage": True}}
    stream = b"".join(vendor.events(options, answer, list(cut(answer, 3)), stamp))
    if name not in UNKNOWN_TO_THE_CLIENT:
        check_events(stream)
    assert replace(gathered(stream), raw=None) == answer


@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_stream_passed_on_chunk_by_chunk_stays_the_same_answer(name: str) -> None:
    chunks, reader = chunks_of((WIRE / f"{name}.sse").read_bytes())
    passed = OpenAIStream(id=reader.id, model=reader.model, created=1, include_usage=True)
    stream = passed.begin() + b"".join(map(passed.chunk, chunks)) + passed.end()
    assert replace(gathered(stream), raw=None) == ANSWERS[name]


async def test_a_stream_over_the_wire_gives_every_choice_of_an_event_a_chunk(
    server: Server, settings: ProviderSettings
) -> None:
    server.streams((WIRE / "choices.sse").read_bytes())
    stream = await HTTPProvider(settings, OpenAIDialect(server.url)).stream(replace(REQUESTS["choices"], stream=True))
    assert [chunk.content for chunk in [chunk async for chunk in stream] if chunk.index == 1 and chunk.content] == [
        "Olive",
        " green",
        " and",
        " so",
    ]
    response = await stream.response()
    assert response.choices == ANSWERS["choices"].choices
    assert response.raw is not None
    assert response.raw["service_tier"] == "default"
