from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import Message, MessageRole, Part, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, LLMResponse, ToolDefinition
from llm.core.vendor import CachePoint, VendorPart
from llm.providers.anthropic import AnthropicDialect
from llm.providers.openai.body import Flavor, write_body
from llm.providers.serving import anthropic_read

MARK = CachePoint()
WIRE = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def body_of(*messages: Message, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the request's
    request = LLMRequest(messages, model="m", **options)
    body: dict[str, Any] = orjson.loads(AnthropicDialect().encode(request, stream=False))
    return body


def user(*parts: Part) -> Message:
    return Message(MessageRole.USER, parts)


def text(said: str, mark: dict[str, str] | None = None) -> dict[str, Any]:
    return {"type": "text", "text": said} if mark is None else {"type": "text", "text": said, "cache_control": mark}


def test_a_mark_stands_on_the_block_before_it_in_every_turn() -> None:
    body = body_of(
        Message(MessageRole.SYSTEM, "Be kind"),
        Message(MessageRole.SYSTEM, (CachePoint("1h"), TextPart("See the book"), MARK)),
        user(TextPart("a"), MARK, TextPart("b")),
        Message(MessageRole.ASSISTANT, (TextPart("c"), MARK), tool_calls=(ToolCall("1", "look", "{}"),)),
        Message(MessageRole.TOOL, (TextPart("d"), TextPart("e"), MARK), tool_call_id="1"),
    )
    assert body["system"] == [text("Be kind", HOUR), text("See the book", WIRE)]
    assert body["messages"] == [
        {"role": "user", "content": [text("a", WIRE), text("b")]},
        {
            "role": "assistant",
            "content": [text("c", WIRE), {"type": "tool_use", "id": "1", "name": "look", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [text("d"), text("e")],
                    "cache_control": WIRE,
                }
            ],
        },
    ]


def test_a_mark_at_the_start_of_a_turn_stands_on_the_end_of_the_turn_before() -> None:
    call = ToolCall("1", "look", "{}")
    turns = body_of(
        user(MARK, TextPart("a")),
        Message(MessageRole.ASSISTANT, "b"),
        user(MARK),
        Message(MessageRole.ASSISTANT, "", tool_calls=(call,)),
        Message(MessageRole.TOOL, (CachePoint("1h"), TextPart("c")), tool_call_id="1"),
        user(MARK, TextPart("d")),
        Message(MessageRole.ASSISTANT, ""),
        user(MARK, TextPart("e")),
    )["messages"]
    assert turns[0]["content"] == [text("a")]  # nothing is before the first
    assert turns[1]["content"] == [text("b", WIRE)]
    assert turns[3]["content"][-1]["cache_control"] == HOUR
    assert turns[4]["content"] == [
        {"type": "tool_result", "tool_use_id": "1", "content": [text("c")], "cache_control": WIRE},
        text("d"),
    ]
    assert turns[5]["content"] == []


def test_a_thought_carries_no_mark_and_an_empty_answer_of_a_tool_does() -> None:
    thought = ThinkingPart("hm", "sig")
    turns = body_of(
        Message(MessageRole.USER, "x"),
        Message(MessageRole.ASSISTANT, (TextPart("a"), thought, MARK)),
        Message(MessageRole.TOOL, (CachePoint("1h"),), tool_call_id="1"),
    )["messages"]
    assert turns[1]["content"] == [
        text("a", WIRE),
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
    ]
    assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "1", "cache_control": HOUR}]


def test_tools_carry_marks_in_every_form() -> None:
    openai = {"type": "function", "function": {"name": "b"}, "cache_control": HOUR}
    own = {"name": "c", "input_schema": {}, "cache_control": WIRE}
    tools = body_of(user(TextPart("x")), tools=[ToolDefinition("a", cache_point=MARK), openai, own])["tools"]
    assert [(tool["name"], tool["cache_control"]) for tool in tools] == [("a", WIRE), ("b", HOUR), ("c", WIRE)]


def test_answers_of_tools_stand_in_one_turn_with_what_the_user_says_to_them() -> None:
    results = [Message(MessageRole.TOOL, name, tool_call_id=name, is_error=name == "b") for name in "ab"]
    turns = body_of(*results, user(TextPart("go")), user(TextPart("on")), Message(MessageRole.USER, "!"))["messages"]
    assert turns[0]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "a"},
        {"type": "tool_result", "tool_use_id": "b", "content": "b", "is_error": True},
        text("go"),
    ]
    assert [turn["content"] for turn in turns[1:]] == [[text("on")], "!"]


def test_an_answer_with_the_vendors_own_blocks_goes_back_whole() -> None:
    blocks: list[dict[str, Any]] = [
        text("I search."),
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    ]
    response = LLMResponse(raw={"content": blocks})
    assert response.raw is not None
    back = Message(MessageRole.ASSISTANT, tuple(map(VendorPart, response.raw["content"])))
    assert body_of(user(TextPart("x")), back, user(MARK, TextPart("y")))["messages"][1]["content"] == [
        blocks[0],
        {**blocks[1], "cache_control": WIRE},
    ]
    assert "cache_control" not in blocks[1]


def test_a_block_without_a_type_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[0\].*type"):
        body_of(user(VendorPart({"text": "x"})))


def test_openais_dialect_leaves_marks_out_and_a_flavor_of_it_writes_them() -> None:
    messages = [
        Message(MessageRole.SYSTEM, (CachePoint("1h"), TextPart("s"), CachePoint("1h"))),
        user(TextPart("a"), MARK, ThinkingPart("hm"), VendorPart({"type": "video", "url": "u"})),
        Message(MessageRole.ASSISTANT, (TextPart("b"), ThinkingPart("hm"))),
    ]
    request = LLMRequest(messages, model="m", tools=[ToolDefinition("t", cache_point=MARK)])
    plain = orjson.loads(write_body(request, Flavor(), stream=False))
    marked = orjson.loads(write_body(request, Flavor(cache_control=True), stream=False))
    video = {"type": "video", "url": "u"}
    assert [turn["content"] for turn in plain["messages"]] == ["s", [text("a"), video], "b"]
    assert [turn["content"] for turn in marked["messages"]] == [[text("s", HOUR)], [text("a", WIRE), video], "b"]
    assert (
        plain["tools"]
        == marked["tools"]
        == [{"type": "function", "function": {"name": "t", "parameters": {"type": "object", "properties": {}}}}]
    )


def read(*content: Any, role: str = "user", **fields: Any) -> LLMRequest:  # noqa: ANN401 - JSON
    return anthropic_read.read_request({"messages": [{"role": role, "content": list(content)}], **fields})


def test_a_mark_that_we_do_not_know_is_refused_where_it_stands() -> None:
    for wrong in ({"type": "lasting"}, {"type": "ephemeral", "ttl": "24h"}):
        with pytest.raises(LLMInvalidRequestError, match=r"messages\[0\].content\[1\].cache_control: expected"):
            read(text("a"), {"type": "text", "text": "b", "cache_control": wrong})


def test_a_mark_on_the_last_call_waits_for_the_next_turn() -> None:
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}, "cache_control": WIRE}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": "go on"},
    ]
    request = anthropic_read.read_request({"messages": turns})
    assert request.messages[2].content == (MARK, TextPart("go on"))
    assert anthropic_read.read_request({"messages": turns[:2]}).messages[1].tool_calls == (ToolCall("1", "look", "{}"),)


def test_an_answer_of_a_tool_is_read_with_its_mark() -> None:
    for content, parts in (("a", (TextPart("a"), MARK)), ("", (MARK,)), ([text("b", HOUR)], ())):
        block = {"type": "tool_result", "tool_use_id": "1", "content": content, "cache_control": WIRE}
        message = read(block).messages[0]
        assert message.content == (parts or (TextPart("b"), CachePoint("1h"), MARK))


def test_blocks_with_more_than_our_parts_keep_stay_whole() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
        {"type": "document", "source": {"type": "content", "content": "x"}},
        {"type": "tool_result", "tool_use_id": "1", "content": "x", "toolset_name": "browser"},
        {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
        {"type": "image", "source": {"type": "url", "url": "u"}, "later": 1},
    ]
    assert read(*blocks).messages[0].content == tuple(map(VendorPart, blocks))
    call = {"type": "tool_use", "id": "1", "name": "x", "input": {}, "caller": {"type": "direct"}}
    assert read(call, role="assistant").messages[0].content == (VendorPart(call),)


def test_a_system_turn_among_the_messages_is_one() -> None:
    body = {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": [text("Be short")]}]}
    assert anthropic_read.read_request(body).messages[1] == Message(MessageRole.SYSTEM, (TextPart("Be short"),))


def test_a_source_of_no_kind_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="url, base64, text or file"):
        read({"type": "document", "source": {"type": "carrier pigeon"}})
    with pytest.raises(LLMInvalidRequestError, match="expected an object"):
        read({"type": "document", "source": 5})
    with pytest.raises(LLMInvalidRequestError, match="citations"):
        read({"type": "document", "source": {"type": "url", "url": "u"}, "citations": 5})


def test_an_effort_in_extra_leaves_the_form_of_the_answer() -> None:
    own = {"type": "json_schema", "schema": {"type": "object"}}
    body = body_of(user(TextPart("x")), response_format=own, extra={"output_config": {"effort": "low"}})
    assert body["output_config"] == {"format": own, "effort": "low"}


def test_an_output_config_with_more_than_ours_goes_on_whole() -> None:
    budget = {"effort": "low", "task_budget": {"type": "tokens", "total": 9}}
    for config in (budget, {"format": {"type": "grammar"}}):
        request = read(text("x"), output_config=config)
        assert (request.reasoning_effort, request.extra) == (None, {"output_config": config})


def test_the_form_of_the_answer_is_read_and_written_in_the_vendors_own_words_too() -> None:
    own = {"type": "json_schema", "schema": {"type": "object"}}
    assert body_of(user(TextPart("x")), response_format=own)["output_config"] == {"format": own}
    request = read(text("x"), output_config={"effort": "max", "format": own})
    assert (request.reasoning_effort, request.extra) == ("max", None)
