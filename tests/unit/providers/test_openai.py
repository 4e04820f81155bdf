from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm.core.assembly import assemble
from llm.core.call import Charge
from llm.core.exceptions import (
    LLMConfigurationError,
    LLMException,
    LLMInvalidRequestError,
    LLMRateLimitError,
    LLMServerError,
)
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
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta, ToolDefinition
from llm.providers.openai import OpenAIDialect
from llm.utils.redact import Secret
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = OpenAIDialect("http://127.0.0.1:9000/v1")
OWN = OpenAIDialect()
TOOL = ToolDefinition("weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}})


def encode(
    *messages: Message,
    dialect: OpenAIDialect = ELSEWHERE,
    stream: bool = False,
    **options: Any,  # noqa: ANN401 - any of the request's
) -> dict[str, Any]:
    request = LLMRequest(messages or "Hi", model="m", **options)
    body: dict[str, Any] = orjson.loads(dialect.encode(request, stream=stream))
    return body


def message(*, finish: object = "stop", **fields: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish}
    return orjson.dumps({"id": "i", "model": "m", "choices": [choice]})


def decode(body: bytes) -> LLMResponse:
    return ELSEWHERE.decode(body, provider="p", key=None)


def flat(read: StreamChunk | tuple[StreamChunk, ...] | None) -> tuple[StreamChunk, ...]:
    if isinstance(read, tuple):
        return read
    return () if read is None else (read,)


def read(stream: bytes) -> LLMResponse:
    reader = ELSEWHERE.events()
    chunks = [chunk for event in EventDecoder().feed(stream) for chunk in flat(reader.feed(event))]
    assert reader.done
    return assemble(chunks, id=reader.id, model=reader.model)


def events(*bodies: object) -> bytes:
    return b"".join(b"data: " + orjson.dumps(body) + b"\n\n" for body in bodies) + b"data: [DONE]\n\n"


def delta(finish: str | None = None, **fields: object) -> dict[str, Any]:
    return {"id": "i", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (None, "https://api.openai.com/v1/chat/completions"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000/v1/chat/completions"),
        ("http://127.0.0.1:9000/v1/", "http://127.0.0.1:9000/v1/chat/completions"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/v1/chat/completions"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/v1/chat/completions"),
        ("https://example.com/v1beta/openai", "https://example.com/v1beta/openai/chat/completions"),
    ],
)
def test_a_base_url_is_understood_with_and_without_its_version(base_url: str | None, url: str) -> None:
    assert OpenAIDialect(base_url).url == url


@pytest.mark.parametrize("base_url", ["127.0.0.1:9000", "ftp://example.com", "https://", "/v1", "http://x/v1?a=b"])
def test_a_base_url_that_is_no_address_is_refused(base_url: str) -> None:
    with pytest.raises(LLMConfigurationError, match="base_url"):
        OpenAIDialect(base_url)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nx-admin: 1", "schlüssel", "a\n"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(LLMConfigurationError, match="api_keys"):
        OWN.headers(Secret(key))


def test_a_body_has_every_option_by_its_wire_name() -> None:
    body = encode(
        temperature=0.5, top_p=0.9, max_tokens=7, stop="END", seed=3, reasoning_effort="low",
        response_format="json_object", tools=[TOOL], tool_choice="weather", extra={"logit_bias": {"1": 2}},
    )  # fmt: skip
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "stop": ["END"],
        "seed": 3,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells it", "parameters": dict(TOOL.parameters)},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "logit_bias": {"1": 2},
    }


def test_what_is_ours_is_never_sent() -> None:
    ours = encode(user="u", priority=3, cache=False, timeout=5, metadata={"a": 1})
    assert ours == encode()


def test_the_vendors_own_host_gets_the_limit_that_its_thinking_models_know() -> None:
    assert encode(max_tokens=5, dialect=OWN)["max_completion_tokens"] == 5
    assert encode(max_tokens=5)["max_tokens"] == 5


def test_extra_goes_over_the_body_unread() -> None:
    assert encode(temperature=0.5, extra={"temperature": 1, "n": 2})["temperature"] == 1


def test_a_stream_asks_for_its_usage() -> None:
    body = encode(stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "function": {"name": "x"}}])
def test_a_tool_choice_of_the_dialect_stays(choice: object) -> None:
    assert encode(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice


def test_turns_of_all_roles_and_parts_are_written() -> None:
    body = encode(
        Message(MessageRole.DEVELOPER, "Be short"),
        Message(
            MessageRole.USER,
            (
                TextPart("See"),
                ImagePart(url="https://x/y.png", detail="low"),
                ImagePart(data=b"\x00", media_type="image/png"),
                DocumentPart(data=b"%PDF", media_type="application/pdf", title="a.pdf"),
                AudioPart(data=b"\x01", format="wav"),
            ),
            name="ann",
        ),
        Message(
            MessageRole.ASSISTANT,
            (ThinkingPart("hm"), TextPart("I "), TextPart("look")),
            tool_calls=(ToolCall("c1", "weather", '{"city":"Rome"}'),),
        ),
        Message(MessageRole.TOOL, "sunny", tool_call_id="c1"),
        Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("c2", "weather", "{}"),)),
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be short"},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
                {"type": "input_audio", "input_audio": {"data": "AQ==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
    ]
    assert encode(Message(MessageRole.DEVELOPER, "x"), dialect=OWN)["messages"][0]["role"] == "developer"


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        (Message(MessageRole.TOOL, "x"), r"messages\[0\].*tool_call_id"),
        (Message(MessageRole.USER, (DocumentPart(url="https://x/y.pdf"),)), r"messages\[0\].*document"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(bad: Message, names: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=names):
        encode(bad)


@pytest.mark.parametrize("request_", [LLMRequest("Hi"), LLMRequest("Hi", model="m", extra={"x": object()})])
def test_a_request_without_model_or_json_form_is_refused(request_: LLMRequest) -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"model|extra"):
        ELSEWHERE.encode(request_, stream=False)


def test_a_whole_answer_is_one_that_the_vendors_client_reads_alike(wire: Callable[[str], bytes]) -> None:
    body = wire("openai/answer.json")
    theirs = ChatCompletion.model_validate_json(body)
    ours = decode(body)
    assert ours.content == theirs.choices[0].message.content
    assert theirs.usage is not None
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (
        theirs.usage.prompt_tokens,
        theirs.usage.completion_tokens,
    )


def test_tool_calls_are_read_whole(wire: Callable[[str], bytes]) -> None:
    response = decode(wire("openai/tools.json"))
    assert response.tool_calls == (
        ToolCall("call_1", "weather", '{"city":"Rome"}'),
        ToolCall("call_2", "weather", '{"city":"Oslo"}'),
    )
    assert (response.content, response.finish_reason) == ("", "tool_calls")


def test_tool_calls_of_a_stream_come_interleaved_and_end_whole(wire: Callable[[str], bytes]) -> None:
    stream = wire("openai/tools.sse")
    for event in EventDecoder().feed(stream):
        if event[1] != b"[DONE]":
            ChatCompletionChunk.model_validate_json(event[1])
    response = read(stream)
    whole = decode(wire("openai/tools.json"))
    assert response.tool_calls == whole.tool_calls
    assert response.finish_reason == whole.finish_reason
    assert response.usage == TokenUsage(82, 34)


@pytest.mark.parametrize("content", [None, "No."])
def test_a_refusal_returns_as_a_content_filter(content: str | None) -> None:
    response = decode(message(content=content, refusal="I can't help."))
    assert response.finish_reason == "content_filter"
    assert response.content == (content or "I can't help.")
    streamed = read(events(delta(refusal="I can't "), delta(refusal="help."), delta("stop")))
    assert (streamed.content, streamed.finish_reason) == ("I can't help.", "content_filter")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_of_compatible_servers_are_kept_apart_from_the_text(field: str) -> None:
    whole = decode(message(**{"content": "4", field: "2+2"}))
    streamed = read(events(delta(**{field: "2+"}), delta(**{field: "2"}), delta("stop", content="4")))
    assert whole.thinking == streamed.thinking == (ThinkingPart("2+2"),)
    assert whole.content == streamed.content == "4"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls"),
        ("content_filter", "content_filter"), ("model_length", "length"), ("eos", "stop"), (None, None),
    ],
)  # fmt: skip
def test_every_reason_to_end_is_one_of_ours(reason: str | None, finish: str | None) -> None:
    assert decode(message(content="x", finish=reason)).finish_reason == finish


SENSELESS = [
    b"", b"null", b"[]", b'"text"', b"<html>", b'{"id": "x"', b"{}", b'{"choices": []}', b'{"choices": null}',
    b'{"choices": [null]}', b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": 5}}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": []}]}',
    b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}}',
    b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}',
    b'{"choices": [{"message": {"content": "x", "tool_calls": [{}]}}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}',
    b'{"choices": [{"message": {"content": "x"}}], "id": 5}', b"\xff\xfe",
    b'{"choices": [{"message": {"content": "x"}}, {"message": null}]}',
    b'{"choices": [{"message": {"content": "x"}, "index": "0"}, {"message": {"content": "y"}}]}',
    b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]}',
    b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": null}]}}]}',
    b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": 1, "logprob": 0}]}}]}',
    b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "", "logprob": 0, "bytes": 9}]}}]}',
    b'{"choices": [{"message": {}, "logprobs": {"refusal": [{"token": "", "logprob": 0, "bytes": [256]}]}}]}',
    b'{"choices": [{"message": {"content": null, "audio": {"transcript": 5}}}]}',
    b'{"choices": [{"message": {"content": null, "tool_calls": [{"function": {"name": 5, "arguments": ""}}]}}]}',
    b'{"choices": [{"message": {"content": null, "tool_calls": [{"function": {"name": "x", "arguments": 5}}]}}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", SENSELESS)
def test_what_makes_no_sense_is_a_typed_error_and_never_an_answer(body: bytes) -> None:
    with pytest.raises(LLMServerError) as caught:
        decode(body)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"choices": 5}',
        b'{"choices": [{"delta": 5}]}',
        b"[DONE]",
        b'{"choices": [{"index": "a", "delta": {"content": "x"}}]}',
    ],
)
def test_an_event_that_makes_no_sense_is_a_typed_error(event: bytes) -> None:
    with pytest.raises(LLMServerError):
        ELSEWHERE.events().feed(("", event))


def test_an_error_inside_an_answer_or_a_stream_raises() -> None:
    error = {"error": {"code": 429, "message": "slow down"}}
    with pytest.raises(LLMRateLimitError, match="slow down"):
        decode(orjson.dumps(error))
    with pytest.raises(LLMRateLimitError, match="slow down"):
        read(events(delta(content="a"), {**delta("error"), **error}))
    with pytest.raises(LLMRateLimitError, match="slow down"):
        ELSEWHERE.events().feed(("error", orjson.dumps(error)))
    with pytest.raises(LLMServerError):
        read(events(delta(content="a"), delta("error")))


@pytest.mark.parametrize("finish", ["error", "stop", None])
def test_a_failure_told_in_a_choice_is_none_of_its_words(finish: str | None) -> None:
    # Source: https://openrouter.ai/docs/api-reference/overview, `NonStreamingChoice`
    failed = {"index": 0, "finish_reason": finish, "error": {"code": 429, "message": "slower"}}
    with pytest.raises(LLMRateLimitError, match="slower"):
        decode(orjson.dumps({"id": "i", "choices": [{**failed, "message": {"content": "half"}}]}))
    last = {"id": "i", "model": "m", "choices": [{**failed, "delta": {"content": "half"}}]}
    with pytest.raises(LLMRateLimitError, match="slower"):
        read(events(delta(content="Hi"), delta(content="!"), last))


def test_only_the_closing_event_ends_a_stream() -> None:
    reader = ELSEWHERE.events()
    for event in EventDecoder().feed(events(delta(content="a"), delta("stop")).removesuffix(b"data: [DONE]\n\n")):
        reader.feed(event)
    assert not reader.done
    reader.feed(("", b"[DONE]"))
    assert reader.done


def test_further_choices_do_not_mix_into_the_answer() -> None:
    other = {"id": "i", "model": "m", "choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": None}]}
    answer = read(events(delta(content="A"), other, delta("stop")))
    assert (str(answer), [str(choice) for choice in answer.choices]) == ("A", ["A", "B"])


def test_an_event_of_several_choices_becomes_a_chunk_each_with_the_usage_in_the_last() -> None:
    both = [{"index": index, "delta": {"content": text}} for index, text in ((0, "A"), (1, "B"))]
    event = {"choices": both, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    chunks = ELSEWHERE.events().feed(("", orjson.dumps(event)))
    assert chunks == (StreamChunk("A"), StreamChunk("B", index=1, usage=TokenUsage(1, 2)))


def test_text_in_parts_is_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "image": "…"}, {"type": "text", "text": "b"}]
    assert decode(message(content=parts)).content == "ab"


def test_choices_come_in_the_order_of_their_index() -> None:
    choices = [
        {"index": index, "message": {"content": text}, "finish_reason": "stop"} for index, text in ((1, "B"), (0, "A"))
    ]
    assert [str(choice) for choice in decode(orjson.dumps({"choices": choices})).choices] == ["A", "B"]


def test_calls_that_come_one_by_one_under_the_same_place_stay_apart() -> None:
    def piece(index: int, arguments: str, name: str | None = None, id_: str | None = None) -> dict[str, Any]:
        return {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}

    said = [
        piece(0, "{", "weather", "a"), piece(0, "}"), piece(0, "{", "weather", "b"), piece(0, "", "weather", "b"),
        piece(0, "1}"), piece(1, "{2}", "time", "c"), piece(0, "{3}", "time", "d"),
    ]  # fmt: skip
    alike: Any = {"index": 1, "delta": {"tool_calls": [piece(0, "{4}", "time", "e")]}, "finish_reason": "tool_calls"}
    bodies = [delta(tool_calls=[each]) for each in said]
    response = read(events(*bodies, {"choices": [alike]}, delta("tool_calls")))
    assert response.tool_calls == (
        ToolCall("a", "weather", "{}"),
        ToolCall("b", "weather", "{1}"),
        ToolCall("c", "time", "{2}"),
        ToolCall("d", "time", "{3}"),
    )
    assert response.choices[1].tool_calls == (ToolCall("e", "time", "{4}"),)
    nameless = [piece(0, "{", "weather"), piece(0, "}", "weather", "late")]
    (call,) = read(events(*(delta(tool_calls=[each]) for each in nameless), delta("tool_calls"))).tool_calls
    assert call == ToolCall("late", "weather", "{}")


def test_calls_of_several_tools_stay_apart_where_nobody_numbers_them() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("weather", "time")]
    response = read(events(*(delta(tool_calls=[call]) for call in calls), delta("tool_calls")))
    assert response.tool_calls == (ToolCall("", "weather", "{}"), ToolCall("", "time", "{}"))


def test_an_empty_reason_to_end_is_none() -> None:
    piece = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"ci'}}
    with pytest.raises(LLMServerError, match="in the middle of a tool call"):
        read(events(delta("", role="assistant", content=""), delta("", tool_calls=[piece])))
    assert decode(message(content="Hi", finish="")).finish_reason is None


def test_verdicts_of_azures_filter_have_no_delta_and_are_kept() -> None:
    # Source: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-streaming
    verdict = {"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 44}}
    response = read(events(delta(content="Hi"), {"id": "", "model": "", "choices": [verdict]}, delta("stop")))
    assert (response.id, response.content, response.finish_reason) == ("i", "Hi", "stop")
    for nothing in ({"delta": None}, {}):
        last = {"id": "i", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", **nothing}]}
        assert read(events(delta(content="Hi"), delta(content="!"), last)).content == "Hi!"


def test_a_whole_answer_in_an_event_is_no_empty_one() -> None:
    with pytest.raises(LLMServerError):
        read(b"data: " + message(content="Hi") + b"\n\ndata: [DONE]\n\n")


def test_a_function_call_of_the_form_before_tools_is_a_tool_call() -> None:
    call = {"name": "weather", "arguments": '{"city":"Rome"}'}
    expected = ((ToolCall("", "weather", '{"city":"Rome"}'),), "tool_calls")
    whole = decode(message(content=None, function_call=call, finish="function_call"))
    assert (whole.tool_calls, whole.finish_reason) == expected
    pieces = [{"name": "weather", "arguments": '{"city"'}, {"arguments": ':"Rome"}'}]
    streamed = read(events(*(delta(function_call=piece) for piece in pieces), delta("function_call")))
    assert (streamed.tool_calls, streamed.finish_reason) == expected


def test_arguments_that_come_as_an_object_are_text_all_the_same() -> None:
    call = {"id": "c", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    expected = (ToolCall("c", "weather", '{"city":"Rome"}'),)
    assert decode(message(content=None, tool_calls=[call], finish="tool_calls")).tool_calls == expected
    assert read(events(delta(tool_calls=[call]), delta("tool_calls"))).tool_calls == expected


def test_a_piece_of_a_call_without_a_place_takes_the_one_in_its_list() -> None:
    chunk = ELSEWHERE.events().feed(("", orjson.dumps(delta(tool_calls=[{"id": "a"}, {"id": "b"}]))))
    assert chunk == StreamChunk(tool_calls=(ToolCallDelta(0, "a"), ToolCallDelta(1, "b")))


def test_fields_that_only_some_events_of_a_stream_have_are_all_in_its_raw_answer() -> None:
    reader = ELSEWHERE.events()
    first = {"prompt_filter_results": [{"severity": "safe"}], "choices": []}
    filtered = {"index": 0, "delta": {"content": "a"}, "finish_reason": None, "content_filter_results": {"hate": 0}}
    thought = delta(reasoning_details=[{"text": "hm"}], content="b")
    last = {**delta("stop"), "x_groq": {"id": "r"}, "usage": {"prompt_tokens": 1}}
    plain = delta(content="c")
    for body in (first, {**plain, "choices": [filtered]}, plain, plain, thought, last):
        reader.feed(("", orjson.dumps(body)))
    assert reader.raw == {
        "prompt_filter_results": [{"severity": "safe"}],
        "id": "i",
        "model": "m",
        "x_groq": {"id": "r"},
        "usage": {"prompt_tokens": 1},
        "choices": [
            {
                "index": 0,
                "content_filter_results": {"hate": 0},
                "message": {"reasoning_details": [{"text": "hm"}]},
            }
        ],
    }


def test_a_refusal_goes_back_as_text_to_servers_that_know_none() -> None:
    turn = Message(MessageRole.ASSISTANT, (TextPart("No.", refusal=True),))
    assert encode(turn)["messages"] == [{"role": "assistant", "content": "No."}]
    own = encode(turn, dialect=OWN)["messages"]
    assert own == [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]
    assert encode(Message(MessageRole.USER, turn.content))["messages"][0]["content"] == [
        {"type": "text", "text": "No."}
    ]


def test_a_tool_of_free_text_is_chosen_by_its_name() -> None:
    tools: list[Any] = [{"type": "custom", "custom": {"name": "shell"}}, TOOL]
    assert encode(tools=tools, tool_choice="shell")["tool_choice"] == {"type": "custom", "custom": {"name": "shell"}}
    assert encode(tools=tools, tool_choice="weather")["tool_choice"]["type"] == "function"


def test_further_options_of_a_stream_do_not_take_its_usage_away() -> None:
    extra = {"stream_options": {"include_obfuscation": False}}
    assert encode(stream=True, extra=extra)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert encode(stream=True, extra={"stream_options": None})["stream_options"] is None
    assert encode(stream=True, extra={"n": 2})["stream_options"] == {"include_usage": True}


def test_a_tools_answer_in_parts_is_one_text() -> None:
    turn = Message(MessageRole.TOOL, (TextPart("sunny, "), TextPart("warm")), tool_call_id="c1")
    assert encode(turn)["messages"][0]["content"] == "sunny, warm"


_FIELDS = ["choices", "message", "delta", "content", "tool_calls", "function", "index", "usage", "error", "name", "id"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _json))
def test_no_object_makes_the_reading_fail_otherwise_than_typed(body: dict[str, object]) -> None:
    with suppress(LLMException, orjson.JSONEncodeError):
        decode(orjson.dumps(body))
    with suppress(LLMException, orjson.JSONEncodeError):
        ELSEWHERE.events().feed(("", orjson.dumps(body)))


def test_the_charge_is_the_larger_of_the_prompts_estimate_and_the_most_output() -> None:
    request = LLMRequest("x" * 41, model="m", max_tokens=5)
    assert OWN.charge(request, 300) == Charge(11, 5, 11)
    assert OWN.charge(LLMRequest("x" * 41, model="m"), 300) == Charge(11, 300, 300)
    assert OWN.used(TokenUsage(10, 5, 4)) == Charge(10, 5, 15)


@pytest.mark.parametrize(("n", "output"), [(3, 15), (1, 5), (None, 5), ("3", 5), (0, 5)])
def test_the_charge_counts_the_output_of_every_choice(n: object, output: int) -> None:
    request = LLMRequest("x" * 8, model="m", max_tokens=5, extra={"n": n})
    assert OWN.charge(request, 300) == Charge(2, output, output)
    assert OWN.charge(LLMRequest("x" * 8, model="m", extra={"n": n}), 5).output_tokens == output


def test_an_estimate_counts_tools_calls_and_pictures() -> None:
    turns = [
        Message(MessageRole.USER, (ImagePart(url="https://x"), TextPart("y" * 4))),
        Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("1", "ab", "{}"),)),
    ]
    plain = OWN.charge(LLMRequest(turns, model="m"), 1)
    assert plain.input_tokens == 1602
    tools: list[Any] = [TOOL, {"type": "function", "function": {"name": "x"}}]
    assert OWN.charge(LLMRequest(turns, model="m", tools=tools), 1).input_tokens > plain.input_tokens
