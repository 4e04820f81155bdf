from __future__ import annotations

import json

from llm.core.choices import Choice
from llm.core.messages import ImagePart, Message, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.telemetry.content import as_text, input_messages, output_messages


def shout(text: str) -> str:
    return text.upper()


def test_a_conversation_is_told_in_the_conventions_form() -> None:
    messages = [
        Message(MessageRole.SYSTEM, "be brief"),
        Message(MessageRole.USER, (TextPart("what is this?"), ImagePart(data=b"\x89PNG", media_type="image/png"))),
        Message(
            MessageRole.ASSISTANT,
            (ThinkingPart("let me look"),),
            tool_calls=(
                ToolCall("c1", "look", '{"AT": 1}'),
                ToolCall("c2", "look", '{"at'),
                ToolCall("c3", "x", "1", custom=True),
            ),
        ),
        Message(MessageRole.TOOL, "a cat", tool_call_id="c1"),
    ]
    told = input_messages(messages, shout)
    assert json.loads(as_text(told)) == told
    assert told == [
        {"role": "system", "parts": [{"type": "text", "content": "BE BRIEF"}]},
        {"role": "user", "parts": [{"type": "text", "content": "WHAT IS THIS?"}, {"type": "image"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "LET ME LOOK"},
                {"type": "tool_call", "id": "C1", "name": "LOOK", "arguments": {"AT": 1}},
                {"type": "tool_call", "id": "C2", "name": "LOOK", "arguments": '{"AT'},
                {"type": "tool_call", "id": "C3", "name": "X", "arguments": "1"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "A CAT"}]},
    ]


def test_each_choice_is_a_message_with_its_reason() -> None:
    choices = [Choice("one", "stop"), Choice("", "tool_calls", (ToolCall("c", "f", "{}"),)), Choice("cut")]
    told = output_messages(choices, shout)
    assert [message["finish_reason"] for message in told] == ["stop", "tool_call", "error"]
    assert told[0] == {"role": "assistant", "parts": [{"type": "text", "content": "ONE"}], "finish_reason": "stop"}
    assert told[1]["parts"] == [{"type": "tool_call", "id": "C", "name": "F", "arguments": {}}]
