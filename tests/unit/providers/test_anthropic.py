from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from anthropic.types import Message as TheirMessage
from hypothesis import given
from hypothesis import strategies as st

from llm.core.assembly import assemble
from llm.core.call import Charge
from llm.core.exceptions import LLMException, LLMInvalidRequestError, LLMOverloadedError, LLMServerError
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
from llm.core.types import LLMRequest, LLMResponse, TokenUsage, ToolDefinition
from llm.providers.anthropic import AnthropicDialect
from llm.providers.anthropic.thinking import DEFAULT_MAX_TOKENS
from llm.utils.redact import Secret
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

DIALECT = AnthropicDialect()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = ToolDefinition("weather", "Tells it", SCHEMA, strict=True)
USER = Message(MessageRole.USER, "Hi")


def encode(*messages: Message, stream: bool = False, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the request's
    request = LLMRequest(messages or "Hi", model="m", **options)
    body: dict[str, Any] = orjson.loads(DIALECT.encode(request, stream=stream))
    return body


def decode(body: bytes) -> LLMResponse:
    return DIALECT.decode(body, provider="p", key=None)


def read(stream: bytes) -> LLMResponse:
    reader = DIALECT.events()
    chunks = [chunk for event in EventDecoder().feed(stream) if (chunk := reader.feed(event)) is not None]
    assert reader.done
    return assemble(chunks, id=reader.id, model=reader.model)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (None, "https://api.anthropic.com/v1/messages"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/v1/messages"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/v1/messages"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000/v1/messages"),
        ("http://127.0.0.1:9000/v1/", "http://127.0.0.1:9000/v1/messages"),
        ("https://example.com/anthropic", "https://example.com/anthropic/v1/messages"),
    ],
)
def test_a_base_url_is_understood_with_and_without_its_version(base_url: str | None, url: str) -> None:
    assert AnthropicDialect(base_url).url == url


def test_the_key_goes_in_the_vendors_own_header() -> None:
    headers = DIALECT.headers(Secret("sk-ant-0123456789"))
    assert dict(headers) == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": "sk-ant-0123456789",
    }
    assert "sk-ant" not in repr(headers)
    assert "x-api-key" not in DIALECT.headers(None)


def test_a_body_has_every_option_by_its_wire_name() -> None:
    body = encode(
        temperature=0.5, top_p=0.9, max_tokens=7, stop=("END",), reasoning_effort="low", tools=[TOOL],
        tool_choice="weather", extra={"top_k": 5}, stream=True,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    )  # fmt: skip
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "tools": [{"name": "weather", "description": "Tells it", "input_schema": SCHEMA, "strict": True}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "top_k": 5,
        "stream": True,
    }


def test_what_is_ours_or_a_hint_is_never_sent_and_the_most_tokens_always_are() -> None:
    body = encode(user="u", priority=3, cache=False, timeout=5, metadata={"a": 1}, seed=4, response_format="text")
    assert body == {"model": "m", "max_tokens": DEFAULT_MAX_TOKENS, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
def test_a_tool_choice_is_translated(choice: object, wire: object) -> None:
    assert encode(tools=[TOOL], tool_choice=choice)["tool_choice"] == wire


def test_tools_in_openais_form_are_translated_and_the_vendors_own_stay() -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    theirs = {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": SCHEMA}}
    assert encode(tools=[theirs, own, {"type": "function", "function": {"name": "now"}}])["tools"] == [
        {"name": "weather", "description": "Tells it", "input_schema": SCHEMA},
        own,
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_turns_of_all_roles_and_parts_are_written() -> None:
    body = encode(
        Message(MessageRole.SYSTEM, "Be short"),
        Message(
            MessageRole.USER,
            (
                TextPart("See"),
                TextPart(""),
                ImagePart(url="https://x/y.png"),
                ImagePart(url="data:image/png;base64,AA=="),
                ImagePart(data=b"\x00", media_type="image/png"),
                DocumentPart(data=b"%PDF", media_type="application/pdf", title="a.pdf"),
                DocumentPart(data=b"text", media_type="text/plain"),
                DocumentPart(url="data:text/html,a%20b"),
            ),
            name="ann",
        ),
        Message(MessageRole.DEVELOPER, (TextPart("Be kind"),)),
        Message(
            MessageRole.ASSISTANT,
            (ThinkingPart("hm", "sig"), ThinkingPart("", redacted="xx"), ThinkingPart("another's"), TextPart("I look")),
            tool_calls=(ToolCall("c1", "weather", '{"city":"Rome"}'),),
        ),
        Message(MessageRole.TOOL, "sunny", tool_call_id="c1"),
        Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("c2", "now", ""),)),
        Message(MessageRole.TOOL, (TextPart("noon"),), tool_call_id="c2"),
    )
    assert body["system"] == [{"type": "text", "text": "Be short"}, {"type": "text", "text": "Be kind"}]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                    "title": "a.pdf",
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "text"}},
                {"type": "document", "source": {"type": "base64", "media_type": "text/html", "data": "YSBi"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xx"},
                {"type": "text", "text": "I look"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c2", "name": "now", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "noon"}]}],
        },
    ]


@pytest.mark.parametrize(
    "document",
    [
        DocumentPart(url="data:text/plain;base64,aMOp"),
        DocumentPart(url="data:text/plain;charset=utf-8,h%C3%A9"),
        DocumentPart(url="data:text/plain;charset=utf-8;base64,aMOp"),
        DocumentPart(data="hé".encode(), media_type="text/plain; charset=utf-8"),
    ],
)
def test_plain_text_goes_as_text_however_it_is_given_for_in_base64_it_is_refused(document: DocumentPart) -> None:
    body = encode(Message(MessageRole.USER, (document,)))
    source = {"type": "text", "media_type": "text/plain", "data": "hé"}
    assert body["messages"][0]["content"] == [{"type": "document", "source": source}]


def test_a_media_type_goes_without_its_parameters() -> None:
    body = encode(Message(MessageRole.USER, (ImagePart(url="data:image/png;name=a.png;base64,AA=="),)))
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    assert body["messages"][0]["content"] == [{"type": "image", "source": source}]


_REFUSED: list[tuple[list[Message], dict[str, Any], str]] = [
    ([Message(MessageRole.USER, (DocumentPart(url="data:text/plain;base64,a"),))], {}, r"messages\[0\].*base64"),
    ([USER], {"response_format": "json_object"}, "response_format"),
    ([USER], {"tools": [{"type": "function", "function": {}}]}, "tools"),
    ([Message(MessageRole.USER, (AudioPart(data=b"", format="wav"),))], {}, r"messages\[0\].*audio"),
    ([Message(MessageRole.USER, (ImagePart(url="data:,x"),))], {}, r"messages\[0\].*media type"),
    ([USER, Message(MessageRole.TOOL, "x")], {}, r"messages\[1\].*tool_call_id"),
    ([Message(MessageRole.SYSTEM, "x")], {}, "user's turn"),
    ([USER, Message(MessageRole.SYSTEM, (ImagePart(url="https://x"),))], {}, r"messages\[1\].*system"),
    ([Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("1", "x", "[]"),))], {}, r"messages\[0\].*arguments"),
    ([Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("1", "x", "{"),))], {}, r"messages\[0\].*arguments"),
]


@pytest.mark.parametrize(("messages", "options", "names"), _REFUSED)
def test_what_cannot_be_expressed_is_refused_by_its_name(
    messages: list[Message], options: dict[str, Any], names: str
) -> None:
    with pytest.raises(LLMInvalidRequestError, match=names):
        encode(*messages, **options)


def test_a_whole_answer_is_one_that_the_vendors_client_reads_alike(wire: Callable[[str], bytes]) -> None:
    body = wire("anthropic/answer.json")
    theirs = TheirMessage.model_validate_json(body)
    ours = decode(body)
    assert (ours.id, ours.model) == (theirs.id, theirs.model)
    assert ours.content == "".join(block.text for block in theirs.content if block.type == "text")
    assert ours.tool_calls == (
        ToolCall("toolu_01D7", "weather", '{"city":"Rome"}'),
        ToolCall("toolu_02E8", "now", "{}"),
    )
    assert ours.thinking == (
        ThinkingPart("They greet me.", "EqQBCgIYAhIM"),
        ThinkingPart("", redacted="EmwKAhgBEgy3va3pzix"),
    )


def test_the_input_includes_what_the_cache_read_and_wrote(wire: Callable[[str], bytes]) -> None:
    assert decode(wire("anthropic/answer.json")).usage == TokenUsage(150, 50, 30, 12)


def test_a_stream_comes_to_the_same_answer_as_the_whole(wire: Callable[[str], bytes]) -> None:
    whole = decode(wire("anthropic/answer.json"))
    assert read(wire("anthropic/stream.sse")) == replace(whole, provider="", raw=None)


def test_thoughts_go_back_with_their_signatures_in_the_next_turn(wire: Callable[[str], bytes]) -> None:
    answer = decode(wire("anthropic/answer.json"))
    results = [Message(MessageRole.TOOL, "x", tool_call_id=call.id) for call in answer.tool_calls]
    sent = encode(USER, answer.message, *results)["messages"][1]["content"]
    assert sent[:2] == [
        {"type": "thinking", "thinking": "They greet me.", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("pause_turn", "stop"), ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"), ("tool_use", "tool_calls"), ("refusal", "content_filter"),
        ("something_new", "stop"), (None, None),
    ],
)  # fmt: skip
def test_every_reason_to_end_is_one_of_ours(reason: str | None, finish: str | None) -> None:
    body = orjson.dumps({"content": [{"type": "text", "text": "x"}], "stop_reason": reason})
    assert decode(body).finish_reason == finish


def test_a_call_whose_input_stands_in_its_blocks_start_has_it() -> None:
    whole: dict[str, Any] = {"type": "tool_use", "id": "0", "name": "f", "input": {"a": 1}}
    bodies: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "i", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": whole},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**whole, "id": "1", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"b":2}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    response = read(b"".join(b"data: " + orjson.dumps(body) + b"\n\n" for body in bodies))
    assert response.tool_calls == (ToolCall("0", "f", '{"a":1}'), ToolCall("1", "f", '{"b":2}'))


def test_blocks_and_events_that_the_vendor_adds_are_passed_over() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "text", "text": "x"},
    ]
    assert decode(orjson.dumps({"content": blocks})).tool_calls == ()
    reader = DIALECT.events()
    later: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": blocks[0]},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "something_new"},
    ]
    for body in later:
        assert reader.feed(("", orjson.dumps(body))) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"<html>", b"{", b"{}", b'{"content": null}', b'{"content": [5]}', b'{"content": [{}]}',
        b'{"content": [{"type": "text", "text": 5}]}', b'{"content": [{"type": "tool_use", "id": "1", "name": "x"}]}',
        b'{"content": [], "usage": {"input_tokens": -1}}', b'{"content": [], "stop_reason": 5}',
        b'{"content": [{"type": "tool_use", "id": "1", "name": "x", "input": "text"}]}',
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_typed_error_and_never_an_answer(body: bytes) -> None:
    with pytest.raises(LLMServerError):
        decode(body)


@pytest.mark.parametrize(
    "event",
    [
        b"{", b"[]", b"{}", b'{"type": "message_start"}', b'{"type": "content_block_delta", "index": 0}',
        b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}',
        b'{"type": "message_stop"}', b'{"type": "message_delta", "delta": 5}',
        b'{"type": "message_start", "message": {"usage": "text"}}',
    ],
)  # fmt: skip
def test_an_event_that_makes_no_sense_is_a_typed_error(event: bytes) -> None:
    with pytest.raises(LLMServerError):
        DIALECT.events().feed(("", event))


def test_an_error_inside_an_answer_or_a_stream_raises() -> None:
    error = orjson.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    with pytest.raises(LLMOverloadedError, match="Overloaded"):
        decode(error)
    for name in ("error", ""):
        with pytest.raises(LLMOverloadedError, match="Overloaded"):
            DIALECT.events().feed((name, error))


def test_numbers_of_a_call_keep_every_digit_there_and_back() -> None:
    wei = '{"wei":123456789012345678901234567890,"to":"né"}'
    block = f'{{"type": "tool_use", "id": "1", "name": "pay", "input": {wei}}}'
    response = decode(f'{{"content": [{block}], "stop_reason": "tool_use"}}'.encode())
    assert response.tool_calls == (ToolCall("1", "pay", wei),)
    body = DIALECT.encode(LLMRequest([USER, response.message], model="m"), stream=False)
    assert wei.encode() in body
    with pytest.raises(LLMServerError):
        decode(b'{"content": [%b], "stop_reason": "tool_use"}' % block.replace("1234567890", "1" * 5000).encode())


def test_an_error_is_one_in_whichever_form_it_is_told() -> None:
    with pytest.raises(LLMServerError, match="gone"):
        DIALECT.events().feed(("", b'{"type": "error", "message": "gone"}'))


def test_input_of_a_call_that_never_began_is_not_dropped_in_silence() -> None:
    reader = DIALECT.events()
    reader.feed(("", b'{"type": "message_start", "message": {"id": "i"}}'))
    call = b'{"type": "tool_use", "id": "1", "name": "x", "input": {}}'
    reader.feed(("", b'{"type": "content_block_start", "index": 0, "content_block": %b}' % call))
    piece = b'{"type": "input_json_delta", "partial_json": "{\\"a\\":1}"}'
    with pytest.raises(LLMServerError):
        reader.feed(("", b'{"type": "content_block_delta", "index": 1, "delta": %b}' % piece))


def test_a_stream_that_lost_its_message_delta_is_no_answer(wire: Callable[[str], bytes]) -> None:
    # Source: https://docs.claude.com/en/docs/build-with-claude/streaming: one or more of them stand before the end.
    whole = [event for event in wire("anthropic/stream.sse").split(b"\n\n") if b"message_delta" not in event]
    with pytest.raises(LLMServerError, match="without its message_delta"):
        read(b"\n\n".join(whole))


def test_only_the_closing_event_ends_a_stream(wire: Callable[[str], bytes]) -> None:
    reader = DIALECT.events()
    *rest, last = EventDecoder().feed(wire("anthropic/stream.sse"))
    for event in rest:
        reader.feed(event)
    assert not reader.done
    reader.feed(last)
    assert reader.done


_FIELDS = ["type", "message", "delta", "content", "content_block", "index", "usage", "error", "name", "id", "text"]
_words = st.sampled_from(["message_start", "message_delta", "content_block_start", "content_block_delta", "text"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | _words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(st.dictionaries(st.sampled_from(_FIELDS), _json))
def test_no_object_makes_the_reading_fail_otherwise_than_typed(body: dict[str, object]) -> None:
    with suppress(LLMException, orjson.JSONEncodeError):
        decode(orjson.dumps(body))
    with suppress(LLMException, orjson.JSONEncodeError):
        DIALECT.events().feed(("", orjson.dumps(body)))


def test_input_and_output_are_charged_apart_and_cache_reads_not_at_all() -> None:
    assert DIALECT.charge(LLMRequest("x" * 41, model="m", max_tokens=5), 300) == Charge(11, 5, 16)
    assert DIALECT.charge(LLMRequest("x" * 41, model="m"), 300).output_tokens == DEFAULT_MAX_TOKENS
    assert DIALECT.used(TokenUsage(150, 50, 30)) == Charge(120, 50, 170)
