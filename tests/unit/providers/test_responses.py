"""The Responses API: what is asked, what is read, and what the next request hands back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseCustomToolCall, ResponseStreamEvent
from pydantic import TypeAdapter

from llm.core.assembly import assemble
from llm.core.call import Charge
from llm.core.choices import TokenLogprob
from llm.core.exceptions import (
    LLMConfigurationError,
    LLMContentFilterError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
)
from llm.core.messages import AudioPart, DocumentPart, ImagePart, Message, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage, ToolDefinition
from llm.core.vendor import CachePoint
from llm.providers.anthropic import AnthropicDialect
from llm.providers.responses import ResponsesDialect
from llm.utils.redact import Secret
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = ResponsesDialect("http://127.0.0.1:9000/v1")
OWN = ResponsesDialect()
TOOL = ToolDefinition("weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}})
USER = Message(MessageRole.USER, "Hi")
PARIS = ToolCall("call_12345xyz", "get_weather", '{"location":"Paris, France"}')
BOGOTA = ToolCall("call_67890abc", "get_weather", '{"location":"Bogotá, Colombia"}')
FIRST, SECOND = (
    "rs_6876cf02e0bc8192b74af0fb64b715ff06fa2fcced15a5ac",
    "rs_6876cf0398088192a6bfeeb1b9a3a4f806fa2fcced15a5ac",
)


def encode(
    *messages: Message,
    dialect: ResponsesDialect = ELSEWHERE,
    stream: bool = False,
    model: str = "m",
    **options: Any,  # noqa: ANN401 - any of the request's
) -> dict[str, Any]:
    request = LLMRequest(messages or "Hi", model=model, **options)
    body: dict[str, Any] = orjson.loads(dialect.encode(request, stream=stream))
    return body


def decode(body: bytes) -> LLMResponse:
    return ELSEWHERE.decode(body, provider="p", key=None)


SAID = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}


def answer(*output: object, **more: object) -> bytes:
    return orjson.dumps({"id": "i", "model": "m", "status": "completed", "output": output, **more})


def read(stream: bytes) -> LLMResponse:
    reader = ELSEWHERE.events()
    chunks = [chunk for event in EventDecoder().feed(stream) if (chunk := reader.feed(event)) is not None]
    assert reader.done
    return assemble(chunks, id=reader.id, model=reader.model)


def events(*bodies: object) -> bytes:
    return b"".join(b"data: " + orjson.dumps(body) + b"\n\n" for body in bodies)


def done(*output: object, kind: str = "completed", **more: object) -> dict[str, object]:
    return {"type": f"response.{kind}", "response": {"id": "i", "model": "m", "output": output, **more}}


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (None, "https://api.openai.com/v1/responses"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/v1/responses"),
        ("http://127.0.0.1:9000/v1/", "http://127.0.0.1:9000/v1/responses"),
        ("https://example.com/openai/v1", "https://example.com/openai/v1/responses"),
    ],
)
def test_a_base_url_leads_to_responses_and_health_to_the_models(base_url: str | None, url: str) -> None:
    dialect = ResponsesDialect(base_url)
    assert dialect.url == url
    assert dialect.health_url == url.replace("/responses", "/models")


def test_a_base_url_that_is_no_address_is_refused() -> None:
    with pytest.raises(LLMConfigurationError, match="base_url"):
        ResponsesDialect("127.0.0.1:9000")


def test_keys_and_charges_are_those_of_chat_completions() -> None:
    assert OWN.headers(Secret("sk-1"))["authorization"] == "Bearer sk-1"
    assert OWN.charge(LLMRequest("x" * 41, model="m", max_tokens=5), 300) == Charge(11, 5, 11)


def test_a_body_has_every_option_by_its_wire_name() -> None:
    body = encode(
        temperature=0.5, top_p=0.9, max_tokens=7, seed=3, reasoning_effort="low",
        response_format="json_object", tools=[TOOL], tool_choice="weather", extra={"truncation": "auto"},
    )  # fmt: skip
    assert body == {
        "model": "m",
        "input": [{"role": "user", "content": "Hi"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 7,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
        "tools": [
            {"type": "function", "name": "weather", "description": "Tells it", "parameters": dict(TOOL.parameters)}
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "truncation": "auto",
    }


def test_what_is_ours_is_never_sent() -> None:
    assert encode(user="u", priority=3, cache=False, timeout=5, metadata={"a": 1}) == encode()


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("o4-mini", True), ("gpt-5-mini", True), ("gpt-6-sol", True), ("codex-mini-latest", True),
        ("ft:o4-mini:me", True),
        ("gpt-4o-mini", False), ("gpt-4.1", False), ("gpt-5-chat-latest", False), ("my-model", False),
    ],
)  # fmt: skip
def test_encrypted_thoughts_are_asked_of_models_that_think_for_others_refuse(model: str, *, asked: bool) -> None:
    assert ("include" in encode(model=model)) is asked
    assert "include" in encode(model=model, reasoning_effort="low")
    assert "include" in encode(model=model, extra={"reasoning": {"summary": "auto"}})


def test_nothing_is_kept_at_the_vendor_unless_extra_says_so() -> None:
    assert encode()["store"] is False
    body = encode(model="o4-mini", extra={"store": True, "include": [], "previous_response_id": "resp_1"})
    assert (body["store"], body["include"], body["previous_response_id"]) == (True, [], "resp_1")


def test_extra_joins_reasoning_and_text_and_replaces_all_else() -> None:
    body = encode(
        reasoning_effort="low",
        response_format="json_object",
        temperature=0.5,
        extra={"reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}, "temperature": 1},
    )
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert body["temperature"] == 1
    assert encode(reasoning_effort="low", extra={"reasoning": None})["reasoning"] is None


def test_more_may_be_included_and_thoughts_are_kept_all_the_same() -> None:
    likely = "message.output_text.logprobs"
    assert encode(model="o4-mini", extra={"include": [likely]})["include"] == ["reasoning.encrypted_content", likely]
    assert encode(extra={"include": [likely]})["include"] == [likely]


def test_a_stream_is_asked_for() -> None:
    assert encode(stream=True)["stream"] is True
    assert "stream" not in encode()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("auto", "auto"), ("none", "none"), ("required", "required"), ("x", {"type": "function", "name": "x"}),
        ({"type": "function", "function": {"name": "x"}}, {"type": "function", "name": "x"}),
        ({"type": "web_search_preview"}, {"type": "web_search_preview"}),
    ],
)  # fmt: skip
def test_every_choice_of_a_tool_has_its_form(given: Any, sent: object) -> None:  # noqa: ANN401 - a choice
    assert encode(tools=[TOOL], tool_choice=given)["tool_choice"] == sent


def test_tools_are_written_flat_and_the_vendors_own_pass_through() -> None:
    web = {"type": "web_search", "user_location": {"type": "approximate", "country": "IT"}}
    chat = {"type": "function", "function": {"name": "y", "parameters": {"type": "object"}, "strict": False}}
    flat: dict[str, Any] = {"type": "function", "name": "z", "parameters": {}}
    tools = encode(tools=[replace(TOOL, strict=True, description=""), web, chat, flat])["tools"]
    assert tools == [
        {"type": "function", "name": "weather", "parameters": dict(TOOL.parameters), "strict": True},
        web,
        {"type": "function", "name": "y", "parameters": {"type": "object"}, "strict": False},
        flat,
    ]


def test_the_form_of_an_answer_is_flat_in_text() -> None:
    schema = {"name": "a", "schema": {"type": "object"}, "strict": True}
    flat = {"type": "json_schema", **schema}
    for form in ({"type": "json_schema", "json_schema": schema}, flat):
        assert encode(response_format=form)["text"] == {"format": flat}


def test_turns_of_all_roles_and_parts_are_written() -> None:
    body = encode(
        Message(MessageRole.SYSTEM, (TextPart("Be "), TextPart("short"))),
        Message(MessageRole.DEVELOPER, "Be kind"),
        Message(
            MessageRole.USER,
            (
                TextPart("See"),
                ImagePart(url="https://x/y.png", detail="low"),
                ImagePart(data=b"\x00", media_type="image/png"),
                ImagePart(file_id="file-abc"),
                DocumentPart(data=b"%PDF", media_type="application/pdf", title="a.pdf"),
                DocumentPart(data=b"%PDF", media_type="application/pdf"),
                DocumentPart(url="data:application/pdf;base64,JVBERg=="),
                DocumentPart(url="https://x/y.pdf"),
                DocumentPart(file_id="file-def"),
            ),
            name="ann",
        ),
        Message(MessageRole.ASSISTANT, "I look", tool_calls=(ToolCall("c1", "weather", "{}"),)),
        Message(MessageRole.TOOL, (TextPart("sunny"),), tool_call_id="c1"),
        Message(MessageRole.ASSISTANT, "", tool_calls=(ToolCall("c2", "picture", "{}"),)),
        Message(MessageRole.TOOL, (ImagePart(url="https://x/z.png"),), tool_call_id="c2"),
        Message(MessageRole.ASSISTANT, ""),
    )
    pdf = "data:application/pdf;base64,JVBERg=="
    assert body["input"] == [
        {"role": "system", "content": "Be short"},
        {"role": "developer", "content": "Be kind"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                {"type": "input_image", "file_id": "file-abc"},
                {"type": "input_file", "filename": "a.pdf", "file_data": pdf},
                {"type": "input_file", "filename": "document", "file_data": pdf},
                {"type": "input_file", "filename": "document", "file_data": pdf},
                {"type": "input_file", "file_url": "https://x/y.pdf"},
                {"type": "input_file", "file_id": "file-def"},
            ],
        },
        {"role": "assistant", "content": "I look"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call", "call_id": "c2", "name": "picture", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_image", "image_url": "https://x/z.png"}]},
        {"role": "assistant", "content": ""},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        (LLMRequest("Hi", model="m", stop="END"), "stop.*chat_completions"),
        (LLMRequest([Message(MessageRole.TOOL, "x")], model="m"), r"messages\[0\].*tool_call_id"),
        (
            LLMRequest([USER, Message(MessageRole.USER, (AudioPart(data=b"", format="wav"),))], model="m"),
            r"messages\[1\].*audio",
        ),
        (
            LLMRequest([Message(MessageRole.ASSISTANT, (ImagePart(url="https://x"),))], model="m"),
            r"messages\[0\].*assistant",
        ),
        (LLMRequest("Hi"), "model"),
        (LLMRequest("Hi", model="m", extra={"x": object()}), "extra"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(bad: LLMRequest, names: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=names):
        ELSEWHERE.encode(bad, stream=False)


# What is read


RECORDED = ["answer", "tools", "reasoning", "refusal", "incomplete", "structured"]


@pytest.mark.parametrize("name", RECORDED)
def test_the_vendors_client_reads_what_is_recorded_and_finds_the_same(name: str, wire: Callable[[str], bytes]) -> None:
    body = wire(f"responses/{name}.json")
    theirs = Response.model_validate_json(body)
    ours = decode(body)
    assert ours.id == theirs.id
    assert ours.raw == orjson.loads(body)
    assert theirs.usage is not None
    assert ours.usage == TokenUsage(
        theirs.usage.input_tokens,
        theirs.usage.output_tokens,
        theirs.usage.input_tokens_details.cached_tokens,
        theirs.usage.output_tokens_details.reasoning_tokens,
    )
    if name != "refusal":
        assert ours.content == theirs.output_text
    called = [(c.call_id, c.name, c.arguments) for c in theirs.output if c.type == "function_call"]
    assert [(c.id, c.name, c.arguments) for c in ours.tool_calls] == called
    kept = [item.encrypted_content for item in theirs.output if item.type == "reasoning"]
    assert [part.redacted for part in ours.thinking if part.redacted] == kept


@pytest.mark.parametrize("name", RECORDED)
def test_a_stream_ends_as_the_answer_it_is(name: str, wire: Callable[[str], bytes]) -> None:
    stream = wire(f"responses/{name}.sse")
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for _, data in EventDecoder().feed(stream):
        adapter.validate_json(data)
    assert read(stream) == replace(decode(wire(f"responses/{name}.json")), provider="", raw=None)


def test_tool_calls_come_in_order_also_where_their_pieces_are_mixed(wire: Callable[[str], bytes]) -> None:
    response = read(wire("responses/tools.sse"))
    assert (response.content, response.tool_calls, response.finish_reason) == ("", (PARIS, BOGOTA), "tool_calls")


def test_thoughts_keep_their_parts_their_id_their_encrypted_form_and_what_they_led_to(
    wire: Callable[[str], bytes],
) -> None:
    response = decode(wire("responses/reasoning.json"))
    assert response.thinking == (
        ThinkingPart("Search first.", None, "gAAAAABoISQ4lost", "rs_6876cf04aa", ""),
        ThinkingPart("**Looking up**\n\nTwo cities are asked for.", id=FIRST),
        ThinkingPart("**Order**\n\nParis goes first.", None, "gAAAAABoISQ24OyVRYbkYfukdJoqdzWT-3uiErKInHC", FIRST),
        ThinkingPart("", None, "gAAAAABoISQ3zB0sGmTz5Jb1NnM7mQvWc2w", SECOND, PARIS.id),
    )
    assert (response.content, response.finish_reason) == ("One moment.", "tool_calls")


@pytest.mark.parametrize("name", ["json", "sse"])
def test_the_next_request_hands_thoughts_back_before_what_they_led_to(name: str, wire: Callable[[str], bytes]) -> None:
    recorded = wire(f"responses/reasoning.{name}")
    response = decode(recorded) if name == "json" else read(recorded)
    output = Message(MessageRole.TOOL, "15 °C", tool_call_id=PARIS.id)
    body = encode(USER, response.message, output, model="o4-mini", dialect=OWN)
    given = {item["id"]: item for item in orjson.loads(wire("responses/reasoning.json"))["output"]}
    # The thought that led to a tool of the vendor's own stays away, as that tool's item does.
    assert body["input"] == [
        {"role": "user", "content": "Hi"},
        given[FIRST],
        {"role": "assistant", "content": "One moment."},
        given[SECOND],
        {"type": "function_call", "call_id": PARIS.id, "name": PARIS.name, "arguments": PARIS.arguments},
        {"type": "function_call_output", "call_id": PARIS.id, "output": "15 °C"},
    ]


def test_a_mark_for_another_vendors_cache_is_left_out_of_an_assistants_turn() -> None:
    turn = Message(MessageRole.ASSISTANT, (TextPart("One moment."), CachePoint()))
    assert encode(turn)["input"] == [{"role": "assistant", "content": "One moment."}]


def test_a_thought_that_led_to_no_text_stands_before_the_first_call() -> None:
    thought = ThinkingPart("", redacted="e", id="rs_1")
    turn = Message(MessageRole.ASSISTANT, (thought,), tool_calls=(ToolCall("c", "t", "{}"),))
    assert [item.get("id") for item in encode(turn)["input"]] == ["rs_1", None]


@pytest.mark.parametrize(
    ("thought", "own", "handed_back"),
    [
        (ThinkingPart("hm"), False, False),
        (ThinkingPart("hm", "signed"), True, False),
        (ThinkingPart("", redacted="another vendor's"), True, False),
        (ThinkingPart("", redacted="cut off", id="rs", before=""), True, False),
        (ThinkingPart("plain", id="rs"), True, False),
        (ThinkingPart("plain", id="rs"), False, True),
        (ThinkingPart("told", redacted="e", id="rs"), True, True),
    ],
)
def test_only_thoughts_that_the_server_can_take_back_are_handed_back(
    thought: ThinkingPart, *, own: bool, handed_back: bool
) -> None:
    items = encode(Message(MessageRole.ASSISTANT, (thought, TextPart("a"))), dialect=OWN if own else ELSEWHERE)["input"]
    assert (len(items) == 2) is handed_back
    if thought.text == "plain" and handed_back:
        content = [{"type": "reasoning_text", "text": "plain"}]
        assert items[0] == {"type": "reasoning", "id": "rs", "summary": [], "content": content}


def test_a_turn_of_thoughts_alone_is_an_empty_turn() -> None:
    turn = Message(MessageRole.ASSISTANT, (ThinkingPart("", redacted="e", id="rs"),))
    assert encode(turn)["input"] == [{"role": "assistant", "content": ""}]


def test_another_vendor_does_not_get_these_thoughts() -> None:
    turn = Message(MessageRole.ASSISTANT, (ThinkingPart("t", redacted="e", id="rs"), TextPart("a")))
    body = orjson.loads(AnthropicDialect().encode(LLMRequest([USER, turn], model="m"), stream=False))
    assert body["messages"][1]["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({}, "stop"),
        ({"status": None}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_every_status_is_a_reason_to_end(fields: dict[str, object], finish: str) -> None:
    assert decode(answer(SAID, **fields)).finish_reason == finish


@pytest.mark.parametrize("fields", [{}, {"status": None}])
def test_nothing_is_an_answer_only_where_a_status_says_so(fields: dict[str, object]) -> None:
    if fields:
        with pytest.raises(LLMServerError):
            decode(answer(**fields))
    else:
        assert decode(answer(**fields)).content == ""


def test_a_refusal_returns_as_a_content_filter(wire: Callable[[str], bytes]) -> None:
    response = decode(wire("responses/refusal.json"))
    assert response.finish_reason == "content_filter"
    assert response.content == "I'm sorry, I cannot assist with that request."


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_an_answer_that_is_not_there_is_never_an_empty_one(status: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match="background"):
        decode(answer(status=status))


def test_items_that_are_not_known_stay_in_raw_alone() -> None:
    said = {"type": "message", "content": [{"type": "hologram"}, {"type": "output_text", "text": "a"}]}
    unknown = {"type": "web_search_call", "id": "ws_1"}
    response = decode(answer(unknown, {"type": "reasoning", "id": "rs_empty", "summary": []}, said))
    assert (response.content, response.thinking) == ("a", ())
    assert response.raw is not None
    assert response.raw["output"][0] == unknown


def test_a_failure_is_the_vendors_word_of_it(wire: Callable[[str], bytes]) -> None:
    with pytest.raises(LLMServerError, match="failed to generate"):
        decode(wire("responses/failed.json"))
    with pytest.raises(LLMServerError, match="failed to generate"):
        read(wire("responses/failed.sse"))
    with pytest.raises(LLMRateLimitError, match="Too many tokens"):
        read(wire("responses/error.sse"))
    with pytest.raises(LLMServerError):
        decode(answer(status="failed", error=None))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", LLMRateLimitError),
        ("invalid_prompt", LLMInvalidRequestError),
        ("invalid_image_url", LLMInvalidRequestError),
        ("image_content_policy_violation", LLMContentFilterError),
        ("vector_store_timeout", LLMServerError),
        ("server_is_overloaded", LLMOverloadedError),
    ],
)
def test_every_code_of_a_failure_has_its_kind_in_all_three_places(code: str, kind: type[LLMException]) -> None:
    error = {"code": code, "message": "no"}
    with pytest.raises(kind):
        decode(answer(status="failed", error=error))
    with pytest.raises(kind):
        read(events(done(kind="failed", error=error)))
    for event in ({"type": "error", **error}, {"type": "error", "error": error}):
        with pytest.raises(kind):
            read(events(event))


SENSELESS = [
    b"", b"null", b"[]", b"<html>", b"{}", b'{"output": null}', b'{"output": [null]}', b'{"output": [{}]}',
    b'{"output": [{"type": "message"}]}', b'{"output": [{"type": "message", "content": [{"type": "output_text"}]}]}',
    b'{"output": [{"type": "message", "content": [{"type": "output_text", "text": 5}]}]}',
    b'{"output": [{"type": "function_call", "call_id": "c", "name": "n"}]}',
    b'{"output": [{"type": "reasoning", "summary": [{}]}]}', b'{"output": [], "status": "odd"}',
    b'{"output": ""}', b'{"output": [], "id": 5}',
    b'{"output": [], "usage": {"input_tokens": -1}}', b'{"output": [], "usage": 5}', b'{"output": [], "status": []}',
]  # fmt: skip


@pytest.mark.parametrize("body", SENSELESS)
def test_what_makes_no_sense_is_a_typed_error_and_never_an_answer(body: bytes) -> None:
    with pytest.raises(LLMServerError) as caught:
        decode(body)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "event",
    [
        b"{", b"[]", b"{}", b'{"type": "response.completed"}', b'{"type": "response.output_text.delta"}',
        b'{"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"}',
        b'{"type": "response.output_item.added", "item": 5}', b'{"type": "response.created", "response": null}',
    ],
)  # fmt: skip
def test_an_event_that_makes_no_sense_is_a_typed_error(event: bytes) -> None:
    with pytest.raises(LLMServerError):
        ELSEWHERE.events().feed(("", event))


def test_only_completed_and_incomplete_end_a_stream(wire: Callable[[str], bytes]) -> None:
    whole = EventDecoder().feed(wire("responses/answer.sse"))
    reader = ELSEWHERE.events()
    for event in [*whole[:-1], ("", b"[DONE]")]:
        reader.feed(event)
        assert not reader.done
    reader.feed(whole[-1])
    assert reader.done


LIKELY = [
    {"token": "Grü", "logprob": -0.25, "bytes": [71, 114, 195, 188], "top_logprobs": []},
    {"token": "ße", "logprob": -1, "bytes": None, "top_logprobs": [{"token": "n", "logprob": -2.5, "bytes": [110]}]},
]
READ = (
    TokenLogprob("Grü", -0.25, "Grü".encode()),
    TokenLogprob("ße", -1.0, None, (TokenLogprob("n", -2.5, b"n"),)),
)


def test_how_likely_the_tokens_were_is_read_whole_and_in_pieces() -> None:
    part = {"type": "output_text", "text": "Grüße", "logprobs": LIKELY}
    item = {"type": "message", "content": [part, {"type": "refusal", "refusal": ""}]}
    whole = decode(orjson.dumps({"status": "completed", "output": [item]}))
    assert (whole.content, whole.logprobs) == ("Grüße", READ)
    ended = {"type": "response.output_item.done", "output_index": 0, "item": item}
    assert read(events(ended, done())).logprobs == READ
    pieces = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": piece["token"], "logprobs": [piece]}
        for piece in LIKELY
    ]
    streamed = read(events(*pieces, ended, done()))
    assert (streamed.content, streamed.logprobs) == ("Grüße", READ)
    odd = {"type": "message", "content": [{**part, "logprobs": [{**LIKELY[0], "bytes": [999]}]}]}
    with pytest.raises(LLMServerError):
        decode(orjson.dumps({"output": [odd]}))
    with pytest.raises(LLMServerError):
        read(events({**pieces[0], "logprobs": [{"token": "x", "logprob": 0, "bytes": [999]}]}))


def test_items_that_come_whole_and_in_no_pieces_are_read_all_the_same() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}
    thought = {"type": "reasoning", "id": "rs", "summary": [{"text": "a"}, {"text": "b"}]}
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    added, ended = ("response.output_item.added", "response.output_item.done")
    items = [
        {"type": kind, "output_index": at, "item": item}
        for at, item in enumerate([thought, refusal, call, {**call, "call_id": "d", "arguments": ""}])
        for kind in (added, ended)
    ]
    empty: dict[str, Any] = {"type": "message", "content": []}
    response = read(events(*items, {"type": ended, "output_index": 4, "item": empty}, done()))
    assert response.thinking == (ThinkingPart("a\n\nb", id="rs"),)
    assert (response.content, response.finish_reason) == ("no", "content_filter")
    assert response.tool_calls == (ToolCall("c", "n", "{}"), ToolCall("d", "n", ""))


CALLED = {"type": "function_call", "call_id": "c", "name": "n", "arguments": '{"a":1}'}
BEGUN = {**CALLED, "arguments": ""}
MORE: list[list[dict[str, Any]]] = [
    [{"type": "response.output_text.delta", "output_index": 0, "delta": "H"}, done(SAID)],
    [{"type": "response.output_item.added", "output_index": 0, "item": {**SAID, "content": []}}, done(SAID)],
    [{"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}, done(SAID, CALLED)],
    [{"type": "response.output_item.added", "output_index": 0, "item": BEGUN}, done(CALLED)],
    [
        {"type": "response.output_item.added", "output_index": 0, "item": BEGUN},
        {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'},
        done(CALLED),
    ],
]


@pytest.mark.parametrize("said", MORE)
def test_a_stream_that_holds_less_than_its_closing_event_says_is_no_answer(said: list[dict[str, Any]]) -> None:
    with pytest.raises(LLMServerError, match="more than came before it"):
        read(events(*said))


def test_an_end_by_another_status_than_its_event_is_that_of_the_status() -> None:
    said = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}
    assert read(events(said, done(SAID, status="incomplete"))).finish_reason == "length"
    assert read(events(said, done(SAID, status="completed"))).finish_reason == "stop"
    with pytest.raises(LLMRateLimitError, match="slower"):
        read(events(said, done(status="failed", error={"code": "rate_limit_exceeded", "message": "slower"})))
    with pytest.raises(LLMRateLimitError, match="slower"):
        read(events(said, done(SAID, error={"code": "rate_limit_exceeded", "message": "slower"})))


GRAMMAR = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "^[a-z ]+$"}}


def test_tools_of_free_text_are_asked_for_in_the_form_of_chat_completions_or_their_own() -> None:
    shell = {"name": "shell", "description": "Runs a command"}
    flat = {"type": "custom", **shell, "format": {"type": "grammar", "syntax": "regex", "definition": "^[a-z ]+$"}}
    tools = [{"type": "custom", "custom": {**shell, "format": GRAMMAR}}, {"type": "custom", "custom": shell}, flat]
    body = encode(tools=tools, tool_choice={"type": "custom", "custom": {"name": "shell"}})
    assert body["tools"] == [flat, {"type": "custom", **shell}, flat]
    assert body["tool_choice"] == {"type": "custom", "name": "shell"}


def test_calls_of_such_tools_are_read_whole_and_in_pieces_and_handed_back_with_their_answers() -> None:
    item = {"type": "custom_tool_call", "id": "ctc", "call_id": "c", "name": "shell", "input": 'ls "my files"'}
    ResponseCustomToolCall.model_validate(item)
    whole = decode(answer(item))
    call = ToolCall("c", "shell", 'ls "my files"', custom=True)
    assert (whole.tool_calls, whole.finish_reason) == ((call,), "tool_calls")
    added = {"type": "response.output_item.added", "output_index": 0, "item": {**item, "input": ""}}
    ended = {"type": "response.output_item.done", "output_index": 0, "item": item}
    pieces = [
        {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": text}
        for text in ("ls ", '"my files"')
    ]
    for came in ((added, *pieces, ended, done(item)), (added, ended, done(item))):
        streamed = read(events(*came))
        assert (streamed.tool_calls, streamed.finish_reason) == ((call,), "tool_calls")
    told = [Message(MessageRole.TOOL, text, tool_call_id=name) for text, name in (("a b", "c"), ("sunny", PARIS.id))]
    turn = Message(MessageRole.ASSISTANT, "", tool_calls=(call, PARIS))
    sent = encode(USER, turn, *told)["input"]
    assert sent[1] == {name: item[name] for name in ("type", "call_id", "name", "input")}
    assert [each["type"] for each in sent[1:]] == [
        "custom_tool_call", "function_call", "custom_tool_call_output", "function_call_output"
    ]  # fmt: skip


def test_a_thought_that_ends_with_nothing_new_and_one_that_says_nothing_make_no_chunk() -> None:
    bare: dict[str, Any] = {"type": "reasoning", "id": "rs", "summary": []}
    message: dict[str, Any] = {"type": "message", "content": []}
    delta = {"type": "response.reasoning_text.delta", "output_index": 1, "item_id": "rs", "delta": "a"}
    reader = ELSEWHERE.events()
    items = [
        {"type": "response.output_item.done", "output_index": 0, "item": bare}, delta,
        {"type": "response.output_item.done", "output_index": 1, "item": bare},
        {"type": "response.output_item.added", "output_index": 2, "item": message},
    ]  # fmt: skip
    chunks = [reader.feed(("", orjson.dumps(item))) for item in items]
    assert chunks == [None, StreamChunk(thinking=ThinkingPart("a", id="rs")), None, None]


def test_an_event_may_say_its_kind_in_its_name_alone() -> None:
    reader = ELSEWHERE.events()
    assert reader.feed(("response.output_text.delta", b'{"output_index": 0, "delta": "a"}')) == StreamChunk("a")


def test_empty_pieces_say_nothing() -> None:
    reader = ELSEWHERE.events()
    call = {"type": "function_call", "call_id": "c", "name": "n"}
    reader.feed(("", orjson.dumps({"type": "response.output_item.added", "output_index": 0, "item": call})))
    for kind in ("output_text", "function_call_arguments", "reasoning_text", "refusal"):
        event = {"type": f"response.{kind}.delta", "output_index": 0, "delta": ""}
        assert reader.feed(("", orjson.dumps(event))) is None


def test_a_thought_that_an_answer_ends_with_led_nowhere() -> None:
    thought: dict[str, Any] = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    item: dict[str, Any] = {"type": "response.output_item.done", "output_index": 0, "item": thought}
    streamed = read(events(item, done(kind="incomplete", **cut)))
    assert streamed.thinking == decode(answer(thought, **cut)).thinking == (ThinkingPart("", None, "e", "rs", ""),)


_FIELDS = ["type", "output", "item", "delta", "content", "output_index", "response", "usage", "error", "status", "text"]
_KINDS = ["message", "reasoning", "function_call", "output_text", "completed", "response.output_text.delta",
    "response.output_item.added", "response.output_item.done", "response.completed", "response.failed"]  # fmt: skip
_json = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(_KINDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _json))
def test_no_object_makes_the_reading_fail_otherwise_than_typed(body: dict[str, object]) -> None:
    with suppress(LLMException):
        decode(orjson.dumps(body))
    with suppress(LLMException):
        ELSEWHERE.events().feed(("", orjson.dumps(body)))
