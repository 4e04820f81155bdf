from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.assembly import assemble
from llm.core.choices import Choice, TokenLogprob
from llm.core.exceptions import LLMInvalidRequestError, LLMServerError
from llm.core.messages import AudioPart, DocumentPart, ImagePart, Message, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage, ToolCallDelta, ToolDefinition
from llm.core.vendor import CachePoint, VendorPart
from llm.providers.anthropic import AnthropicDialect
from llm.providers.openai import OpenAIDialect
from llm.providers.serving import anthropic_read, anthropic_write, openai_read, openai_write
from llm.testing.script import cut
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from llm.providers.dialect import EventReader

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
arguments = st.dictionaries(names, st.one_of(st.integers(0, 99), words, st.booleans()), max_size=2)
calls = st.builds(ToolCall, names, names, arguments.map(lambda value: orjson.dumps(value).decode()))
custom_calls = st.builds(ToolCall, names, names, words, custom=st.just(value=True))
some_calls = st.lists(calls, max_size=2).map(tuple)
sealed_calls = st.lists(st.builds(replace, calls, signature=st.none() | words), max_size=2).map(tuple)
data = st.binary(max_size=9)
images = st.one_of(
    st.builds(ImagePart, url=st.just("https://example.com/a.png")),
    st.builds(ImagePart, data=data, media_type=st.sampled_from(["image/png", "image/jpeg"])),
)
documents = st.builds(DocumentPart, data=data, media_type=st.just("application/pdf"), title=words)
uploads = st.builds(DocumentPart, file_id=words)
files = st.one_of(
    st.builds(ImagePart, file_id=names),
    st.builds(DocumentPart, file_id=names, context=st.none() | words, citations=st.sampled_from([None, True, False])),
)
points = st.builds(CachePoint, st.sampled_from([None, "5m", "1h"]))
own = st.just(VendorPart({"type": "search_result", "source": "s", "title": "t"}))
sound = st.builds(AudioPart, data=data, format=st.sampled_from(["wav", "mp3"]))
spoken = st.builds(TextPart, words)
thoughts = st.one_of(
    st.builds(ThinkingPart, words, signature=words), st.builds(ThinkingPart, st.just(""), redacted=words)
)
schemas = st.just({"type": "object", "properties": {"at": {"type": "string"}}})
tools = st.builds(ToolDefinition, names, texts, schemas, st.sampled_from([None, True, False]))
marked_tools = st.builds(
    ToolDefinition, names, texts, schemas, st.sampled_from([None, True, False]), cache_point=st.none() | points
)
choices = st.one_of(st.sampled_from([None, "auto", "none", "required"]), names.map("the_{}".format))
formats = st.sampled_from(
    [None, {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}]
)


def _parts(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.one_of(*kinds), min_size=1, max_size=3).map(tuple)


def _marked(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(_parts(*kinds), st.lists(points, max_size=1), st.lists(st.one_of(*kinds), max_size=1)).map(
        lambda pieces: (*pieces[0], *pieces[1], *pieces[2])
    )


def _turn(role: str, content: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(MessageRole(role)), content, **more)


def _requests(
    messages: st.SearchStrategy[list[Message]],
    most: st.SearchStrategy[int | None],
    tools: st.SearchStrategy[ToolDefinition] = tools,
    **more: st.SearchStrategy[Any],
) -> st.SearchStrategy[LLMRequest]:
    return st.builds(
        LLMRequest,
        messages,
        model=names,
        max_tokens=most,
        temperature=st.sampled_from([None, 0.0, 0.5]),
        top_p=st.sampled_from([None, 0.5, 1.0]),
        stop=st.one_of(st.none(), st.lists(words, min_size=1, max_size=2)),
        tools=st.one_of(st.none(), st.lists(tools, min_size=1, max_size=2)),
        tool_choice=choices,
        reasoning_effort=st.sampled_from([None, "low"]),
        response_format=formats,
        extra=st.sampled_from([None, {"user": "u", "metadata": {"a": "b"}}, {"n": 2, "logprobs": True}]),
        stream=st.booleans(),
        **more,
    )


openai_requests = _requests(
    st.lists(
        st.one_of(
            _turn("system", texts),
            _turn("developer", texts),
            _turn("user", st.one_of(texts, _parts(spoken, images, documents, uploads, sound)), name=st.none() | names),
            _turn("assistant", texts, tool_calls=st.lists(calls | custom_calls, max_size=2).map(tuple)),
            _turn("assistant", st.tuples(st.builds(TextPart, words, refusal=st.just(value=True)))),
            _turn("tool", texts, tool_call_id=names),
        ),
        min_size=1,
        max_size=4,
    ),
    st.none() | st.integers(1, 9),
    seed=st.sampled_from([None, 0, 7]),
)
anthropic_requests = _requests(
    st.tuples(
        st.lists(_turn("system", st.one_of(words, _marked(spoken))), max_size=1),
        _turn("user", st.one_of(texts, _marked(spoken, images, documents, files, own))),
        st.lists(
            st.one_of(
                _turn("user", st.one_of(texts, _marked(spoken))),
                _turn("assistant", st.one_of(texts, _parts(spoken, thoughts), _marked(spoken, own))),
                _turn("assistant", _parts(spoken, thoughts), tool_calls=some_calls),
                _turn("tool", st.one_of(texts, _marked(spoken, images)), tool_call_id=names, is_error=st.booleans()),
            ),
            max_size=3,
        ),
    ).map(lambda turns: [*turns[0], turns[1], *turns[2]]),
    st.integers(1, 9),
    marked_tools,
)


@settings(deadline=None)
@given(openai_requests)
def test_openais_reading_gives_back_what_its_client_writes(request: LLMRequest) -> None:
    body = orjson.loads(OpenAIDialect().encode(request, stream=request.stream))
    assert openai_read.read_request(body) == request


@settings(deadline=None)
@given(anthropic_requests)
def test_anthropics_reading_gives_back_what_its_client_writes(request: LLMRequest) -> None:
    body = orjson.loads(AnthropicDialect().encode(request, stream=request.stream))
    assert anthropic_read.read_request(body) == request


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    sent, written = draw(st.integers(0, 99)), draw(st.integers(0, 99))
    return TokenUsage(sent, written, draw(st.integers(0, sent)), draw(st.integers(0, written)))


def _responses(
    thinking: st.SearchStrategy[Any], tool_calls: st.SearchStrategy[Any] = some_calls, **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[LLMResponse]:
    return st.builds(
        LLMResponse,
        id=words,
        content=texts,
        model=names,
        usage=usages(),
        finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
        tool_calls=tool_calls,
        thinking=thinking,
        **more,
    )


one_thought = st.lists(st.builds(ThinkingPart, words), max_size=1).map(tuple)
logprobs = st.lists(
    st.builds(
        TokenLogprob,
        words,
        st.floats(-20, 0),
        st.none() | data,
        st.lists(st.builds(TokenLogprob, words, st.floats(-20, 0), st.none() | data), max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)
finishes = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
alternatives = st.builds(Choice, texts, finishes, sealed_calls, one_thought, logprobs) | st.builds(
    Choice, words, st.just("content_filter"), logprobs=logprobs, refused=st.just(value=True)
)
openai_responses = _responses(
    one_thought, sealed_calls, logprobs=logprobs, alternatives=st.lists(alternatives, max_size=2).map(tuple)
)
anthropic_responses = _responses(st.lists(thoughts, max_size=2).map(tuple))


@settings(deadline=None)
@given(openai_responses)
def test_openais_client_reads_back_a_written_answer(response: LLMResponse) -> None:
    body = orjson.dumps(openai_write.write_response(response, created=1))
    assert replace(OpenAIDialect().decode(body, provider="", key=None), raw=None) == response


@settings(deadline=None)
@given(anthropic_responses)
def test_anthropics_client_reads_back_a_written_answer(response: LLMResponse) -> None:
    body = orjson.dumps(anthropic_write.write_response(response))
    assert replace(AnthropicDialect().decode(body, provider="", key=None), raw=None) == response


@settings(deadline=None)
@given(openai_responses, st.integers(1, 5))
def test_openais_client_reads_back_a_written_stream(response: LLMResponse, size: int) -> None:
    stream = openai_write.OpenAIStream(id=response.id, model=response.model, created=1, include_usage=True)
    events = stream.begin() + b"".join(map(stream.chunk, cut(response, size))) + stream.end()
    assert _read(events, OpenAIDialect().events()) == response


@settings(deadline=None)
@given(anthropic_responses, st.integers(1, 5))
def test_anthropics_client_reads_back_a_written_stream(response: LLMResponse, size: int) -> None:
    stream = anthropic_write.AnthropicStream(id=response.id, model=response.model, usage=response.usage)
    events = stream.begin() + b"".join(map(stream.chunk, cut(response, size))) + stream.end()
    assert _read(events, AnthropicDialect().events()) == response


def _read(events: bytes, reader: EventReader) -> LLMResponse:
    read = [reader.feed(event) for event in EventDecoder().feed(events)]
    chunks = [chunk for chunk in read if isinstance(chunk, StreamChunk)]
    assert reader.done
    return assemble(chunks, id=reader.id, model=reader.model)


def test_pieces_of_several_calls_may_come_mixed() -> None:
    pieces = [
        ToolCallDelta(0, "a", "look", '{"x"'),
        ToolCallDelta(1, "b", "wait", "{"),
        ToolCallDelta(0, arguments=": 1}"),
        ToolCallDelta(1, arguments="}"),
    ]
    chunks = [StreamChunk("hm"), *(StreamChunk(tool_calls=(piece,)) for piece in pieces)]
    claude = anthropic_write.AnthropicStream(id="i", model="m")
    gpt = openai_write.OpenAIStream(id="i", model="m", created=1)
    expected = (ToolCall("a", "look", '{"x": 1}'), ToolCall("b", "wait", "{}"))
    for stream, reader in ((claude, AnthropicDialect().events()), (gpt, OpenAIDialect().events())):
        response = _read(stream.begin() + b"".join(map(stream.chunk, chunks)) + stream.end(), reader)
        assert (response.content, response.tool_calls) == ("hm", expected)


def test_a_turn_that_answers_tools_and_speaks_becomes_a_turn_each() -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"type": "text", "text": "go on"},
    ]
    request = anthropic_read.read_request({"model": "m", "messages": [{"role": "user", "content": blocks}]})
    assert [(m.role, m.text, m.tool_call_id) for m in request.messages] == [
        ("tool", "1", "a"),
        ("tool", "2", "b"),
        ("user", "go on", None),
    ]


def test_what_has_no_name_of_ours_passes_through_extra() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "user": "u", "logprobs": True}
    assert openai_read.read_request(body).extra == {"user": "u", "logprobs": True}
    assert openai_read.read_request(body).user is None
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "metadata": {"user_id": "u"}, "top_k": 3}
    assert anthropic_read.read_request(body).extra == {"metadata": {"user_id": "u"}, "top_k": 3}


def test_what_was_said_before_in_other_forms_is_read_all_the_same() -> None:
    def read(**turn: object) -> Message:
        return openai_read.read_request({"model": "m", "messages": [{"role": "assistant", **turn}]}).messages[0]

    refusal = TextPart("No.", refusal=True)
    assert read(content=None, refusal="No.").content == (refusal,)
    assert read(content="Well.", refusal="No.").content == (TextPart("Well."), refusal)
    assert read(content=[{"type": "text", "text": "Well."}], refusal="No.").content == (TextPart("Well."), refusal)
    call = {"name": "look", "arguments": "{}"}
    assert read(content=None, function_call=call).tool_calls == (ToolCall("", "look", "{}"),)
    sealed = {"id": "c", "function": call, "extra_content": {"google": {"thought_signature": "seal"}}}
    assert read(content=None, tool_calls=[sealed]).tool_calls == (ToolCall("c", "look", "{}", signature="seal"),)
    assert read(content="Hello", audio={"id": "audio_1"}).content == "Hello"
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[0\].content: expected the transcript"):
        read(content=None, audio={"id": "audio_1"})
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[0\].tool_calls\[0\]: expected .* custom"):
        read(content=None, tool_calls=[{"id": "c"}])


def test_a_document_by_its_address_is_read_as_one() -> None:
    file = {"type": "file", "file": {"file_data": "https://example.com/a.pdf", "filename": "a.pdf"}}
    request = openai_read.read_request({"model": "m", "messages": [{"role": "user", "content": [file]}]})
    assert request.messages[0].content == (DocumentPart(url="https://example.com/a.pdf", title="a.pdf"),)


def test_options_of_a_stream_beside_its_usage_pass_through_extra() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    options = {"include_usage": True, "include_obfuscation": False}
    assert openai_read.read_request({**body, "stream_options": options}).extra == {
        "stream_options": {"include_obfuscation": False}
    }
    with pytest.raises(LLMInvalidRequestError, match="stream_options"):
        openai_read.read_request({**body, "stream_options": 5})


def test_a_stream_finishes_each_choice_once_and_those_without_a_reason_at_its_end() -> None:
    stream = openai_write.OpenAIStream(id="i", model="m", created=1)
    chunks = [
        StreamChunk("a", index=1),
        StreamChunk("b", finish_reason="length"),
        StreamChunk(finish_reason="stop"),
    ]
    answer = _read(stream.begin() + b"".join(map(stream.chunk, chunks)) + stream.end(), OpenAIDialect().events())
    assert answer.choices == (Choice("b", "length"), Choice("a", "stop"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "messages: expected a list of objects"),
        ({"messages": []}, "messages: expected one message or more"),
        ({"messages": ["x"]}, r"messages\[0\]: expected an object"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"messages\[0\].role: expected"),
        ({"messages": [{"role": "user", "content": 1}]}, r"messages\[0\].content: expected"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, r"messages\[0\].content\[0\]: expected"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": {}}, "tools: expected"),
        ({"messages": [{"role": "user", "content": "x"}], "tool_choice": 1}, "tool_choice: expected"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
    ],
)
def test_a_wrong_field_is_named_in_both_dialects(body: dict[str, Any], message: str) -> None:
    for read in (openai_read.read_request, anthropic_read.read_request):
        with pytest.raises(LLMInvalidRequestError, match=message):
            read(body)


def test_a_secret_in_a_wrong_field_stays_out_of_the_error() -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,confidential!"}}]
    with pytest.raises(LLMInvalidRequestError) as caught:
        openai_read.read_request({"messages": [{"role": "user", "content": content}]})
    assert "confidential" not in str(caught.value)


def test_arguments_that_are_no_json_cannot_go_to_anthropics_clients() -> None:
    with pytest.raises(LLMServerError, match="no JSON"):
        anthropic_write.write_response(LLMResponse(tool_calls=(ToolCall("a", "look", "{oops"),)))
