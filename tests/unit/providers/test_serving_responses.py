"""The Responses API from the server's side: what its client writes is read back, and the other way round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llm.core.assembly import assemble
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import DocumentPart, ImagePart, Message, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta, ToolDefinition
from llm.providers.responses import ResponsesDialect
from llm.providers.serving.responses_read import read_request
from llm.providers.serving.responses_stream import ResponsesStream
from llm.providers.serving.responses_write import write_error_event, write_response
from llm.testing.script import cut
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DIALECT = ResponsesDialect("http://127.0.0.1:9000/v1")
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
data = st.binary(max_size=9)
images = st.one_of(
    st.builds(ImagePart, url=st.just("https://x/a.png"), detail=st.sampled_from([None, "low"])),
    st.builds(ImagePart, data=data, media_type=st.just("image/png")),
    st.builds(ImagePart, file_id=names),
)  # fmt: skip
documents = st.one_of(
    st.builds(DocumentPart, data=data, media_type=st.just("application/pdf"), title=words),
    st.builds(DocumentPart, url=st.just("https://example.com/a.pdf")),
    st.builds(DocumentPart, file_id=names),
)
parts = st.lists(st.one_of(st.builds(TextPart, words), images, documents), min_size=1, max_size=3).map(tuple)
tools = st.builds(ToolDefinition, names, texts, st.just({"type": "object"}), st.sampled_from([None, True, False]))


@st.composite
def said(draw: st.DrawFn) -> LLMResponse:
    """Draw an answer whose thoughts lead to what is there, as those that the vendor gives do."""
    calls = tuple(
        ToolCall(f"call_{at}", draw(names), draw(st.sampled_from(["{}", '{"a":1}'])))
        for at in range(draw(st.integers(0, 2)))
    )
    text = draw(texts)
    thoughts: list[ThinkingPart] = []
    led_to: list[str | None] = [None] if text else []
    for at, before in enumerate([*led_to, *(call.id for call in calls)]):
        if draw(st.booleans()):
            told = draw(st.lists(words, max_size=2))
            encrypted = draw(words)
            thoughts += [ThinkingPart(one, id=f"rs_{at}") for one in told[:-1]]
            thoughts.append(ThinkingPart(told[-1] if told else "", None, encrypted, f"rs_{at}", before))
    sent, written = draw(st.integers(0, 99)), draw(st.integers(0, 99))
    return LLMResponse(
        f"resp_{draw(st.integers(0, 999))}",
        text,
        draw(names),
        usage=TokenUsage(sent, written, draw(st.integers(0, sent)), draw(st.integers(0, written))),
        finish_reason=draw(st.sampled_from(["tool_calls" if calls else "stop", "length", "content_filter"])),
        tool_calls=calls,
        thinking=tuple(thoughts),
    )


def asked(role: str) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(MessageRole(role)), st.one_of(texts, parts) if role == "user" else texts)


requests = st.builds(
    LLMRequest,
    st.lists(
        st.one_of(
            asked("system").map(lambda turn: [turn]),
            asked("developer").map(lambda turn: [turn]),
            asked("user").map(lambda turn: [turn]),
            st.tuples(said().map(lambda response: response.message), asked("user")).map(list),
            st.builds(Message, st.just(MessageRole.TOOL), st.one_of(texts, parts), tool_call_id=names)
            .filter(lambda turn: any(not isinstance(part, TextPart) for part in turn.content) or not turn.content)
            .map(lambda turn: [turn]),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda turns: [turn for some in turns for turn in some]),
    model=names,
    max_tokens=st.none() | st.integers(1, 9),
    temperature=st.sampled_from([None, 0.0, 0.5]),
    top_p=st.sampled_from([None, 0.5]),
    tools=st.none() | st.lists(st.one_of(tools, st.just({"type": "web_search"})), min_size=1, max_size=2),
    tool_choice=st.one_of(st.sampled_from([None, "auto", "none", "required"]), names.map("the_{}".format)),
    reasoning_effort=st.sampled_from([None, "low"]),
    response_format=st.sampled_from(
        [None, "text", "json_object", {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}]
    ),
    extra=st.sampled_from([None, {"user": "u", "text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}}]),
    stream=st.booleans(),
)


@settings(deadline=None)
@given(requests)
def test_reading_gives_back_what_its_client_writes(request: LLMRequest) -> None:
    body = orjson.loads(DIALECT.encode(request, stream=request.stream))
    added = {"include": body["include"]} if "include" in body else {}
    assert read_request(body) == replace(request, extra={**(request.extra or {}), **added} or None)


@settings(deadline=None)
@given(said(), st.integers(1, 5))
def test_its_client_reads_back_a_written_answer_whole_and_streamed(response: LLMResponse, size: int) -> None:
    body = orjson.dumps(write_response(response, {}, created=1))
    Response.model_validate_json(body)
    assert replace(DIALECT.decode(body, provider="", key=None), raw=None) == response
    assert streamed(response, cut(response, size)) == response


def events(response: LLMResponse, chunks: Iterable[StreamChunk]) -> list[tuple[str, bytes]]:
    stream = ResponsesStream(id=response.id, model=response.model, created=1, body={"temperature": 0.5})
    written = EventDecoder().feed(stream.begin() + b"".join(map(stream.chunk, chunks)) + stream.end())
    for number, (kind, told) in enumerate(written):
        read = EVENT.validate_json(told)
        assert (read.type, read.sequence_number) == (kind, number)
    return written


def streamed(response: LLMResponse, chunks: Iterable[StreamChunk]) -> LLMResponse:
    reader = DIALECT.events()
    read = [chunk for event in events(response, chunks) if (chunk := reader.feed(event)) is not None]
    assert reader.done
    return assemble(read, id=reader.id, model=reader.model)


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(said())
def test_a_streams_last_event_holds_what_the_whole_answer_would(response: LLMResponse) -> None:
    last = orjson.loads(events(response, cut(response, 3))[-1][1])["response"]
    whole = write_response(response, {"temperature": 0.5}, created=1)
    assert last == whole
    assert last["temperature"] == 0.5


def test_pieces_of_several_calls_may_come_mixed() -> None:
    pieces = [
        ToolCallDelta(0, "a", "look", '{"x"'),
        ToolCallDelta(1, "b", "wait"),
        ToolCallDelta(1, arguments="{"),
        ToolCallDelta(0, arguments=": 1}"),
        ToolCallDelta(1, arguments="}"),
    ]
    chunks = [StreamChunk("hm"), *(StreamChunk(tool_calls=(piece,)) for piece in pieces), StreamChunk("!")]
    response = streamed(LLMResponse("resp_1", model="m"), chunks)
    assert (response.content, response.finish_reason) == ("hm!", "tool_calls")
    assert response.tool_calls == (ToolCall("a", "look", '{"x": 1}'), ToolCall("b", "wait", "{}"))


def test_thoughts_of_other_vendors_are_shown_and_hidden_ones_left_out() -> None:
    thoughts = (ThinkingPart("one"), ThinkingPart("two", "signed"), ThinkingPart("", redacted="hidden"))
    response = LLMResponse("resp_1", "a", "m", thinking=thoughts)
    whole = DIALECT.decode(orjson.dumps(write_response(response, {}, created=1)), provider="", key=None)
    assert [part.text for part in whole.thinking] == ["one", "two"]
    chunks = [StreamChunk(thinking=ThinkingPart(piece)) for piece in ("on", "e")]
    again = streamed(response, [StreamChunk(thinking=thoughts[2]), *chunks, StreamChunk("a")])
    assert [(part.text, part.redacted) for part in again.thinking] == [("one", None)]
    assert again.thinking[0].id == "rs_100"


def test_an_error_event_has_the_number_that_it_is_given() -> None:
    [(kind, told)] = EventDecoder().feed(write_error_event("no", "server_error", number=7))
    error = EVENT.validate_json(told)
    assert (kind, error.code, error.message, error.sequence_number) == ("error", "server_error", "no", 7)


def test_a_text_is_a_users_turn_and_instructions_are_the_systems() -> None:
    request = read_request({"model": "m", "instructions": "Be short", "input": "Hi"})
    assert request.messages == (Message(MessageRole.SYSTEM, "Be short"), Message(MessageRole.USER, "Hi"))
    assert request.extra is None


@pytest.mark.parametrize("name", ["image", "structured", "turns"])
def test_a_recorded_request_is_read_with_nothing_dropped(name: str, wire: Callable[[str], bytes]) -> None:
    body = orjson.loads(wire(f"responses/request_{name}.json"))
    request = read_request(body)
    assert orjson.loads(DIALECT.encode(request, stream=False)) == {**body, "store": False}


def test_items_of_one_answer_are_one_turn_and_another_text_begins_another() -> None:
    def thought(name: str) -> dict[str, object]:
        return {"type": "reasoning", "id": name, "summary": [], "encrypted_content": "e"}

    def call(name: str) -> dict[str, object]:
        return {
            "type": "function_call",
            "call_id": name,
            "name": "t",
            "arguments": "{}",
            "id": "fc",
            "status": "completed",
        }

    def text(said: str) -> dict[str, object]:
        return {"type": "message", "id": "msg", "role": "assistant", "content": [{"type": "output_text", "text": said}]}

    items = [
        thought("1"), text("a"), thought("2"), call("c"), thought("3"), call("d"), thought("4"),
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "b"}]}, text("e"), thought("5"),
    ]  # fmt: skip
    turns = read_request({"model": "m", "input": items}).messages
    assert [(turn.text, [call.id for call in turn.tool_calls]) for turn in turns] == [
        ("a", ["c", "d"]), ("b", []), ("e", []),
    ]  # fmt: skip
    led = [[(part.id, part.before) for part in turn.content if isinstance(part, ThinkingPart)] for turn in turns]
    assert led == [[("1", None), ("2", "c"), ("3", "d")], [("4", None)], [("5", "")]]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": [5]}, r"input\[0\]"),
    ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\]"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, r"input\[0\]"),
    ({"input": [{"type": "function_call", "call_id": "c"}]}, r"input\[0\]"),
    ({"input": [{"type": "reasoning", "summary": [{}]}]}, r"input\[0\]"),
    ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, r"input\[0\]\.content\[0\]"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, r"input\[0\]\.content\[0\]"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]}, r"input\[0\]\.output"),
    ({"input": "x", "instructions": 5}, "instructions"),
    ({"input": "x", "tools": 5}, "tools"),
    ({"input": "x", "tools": [{"type": "function"}]}, r"tools\[0\]\.name"),
    ({"input": "x", "tool_choice": 5}, "tool_choice"),
    ({"input": "x", "text": 5}, "text"),
    ({"input": "x", "text": {"format": 5}}, r"text\.format"),
    ({"input": "x", "reasoning": {"effort": 5}}, r"reasoning\.effort"),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
def test_a_field_that_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=f"^{field}"):
        read_request({"model": "m", **body})


def test_what_the_vendor_has_and_we_have_not_passes_as_it_is() -> None:
    own: dict[str, Any] = {"type": "function", "name": "x", "parameters": {}, "defer_loading": True}
    body: dict[str, Any] = {
        "model": "m",
        "input": "x",
        "tools": [own],
        "tool_choice": {"type": "web_search"},
        "text": {"format": {"type": "grammar"}},
        "store": True,
    }
    request = read_request(body)
    assert (request.tools, request.tool_choice, request.response_format) == (
        (own,),
        {"type": "web_search"},
        {"type": "grammar"},
    )
    assert request.extra == {"store": True}
