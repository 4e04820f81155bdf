"""Prompts and answers in the form that the conventions give them; for who asked for content alone.

Bytes are left out: of an image, a document or a recording it says only that there was one.

Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from llm.core.messages import AudioPart, DocumentPart, ImagePart, MessageRole, TextPart, ThinkingPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llm.core.choices import Choice
    from llm.core.messages import Message, Part, ToolCall

    Clean = Callable[[str], str]
    """Takes keys out of a text."""

_NAMED: Final[Mapping[type, str]] = {ImagePart: "image", DocumentPart: "document", AudioPart: "audio"}


def input_messages(messages: Iterable[Message], clean: Clean) -> list[dict[str, Any]]:
    """Return a conversation, of what JSON has."""
    return [{"role": message.role.value, "parts": _parts(message, clean)} for message in messages]


def output_messages(choices: Iterable[Choice], clean: Clean) -> list[dict[str, Any]]:
    """Return an answer, of what JSON has: a message for each choice."""
    return [
        {
            "role": MessageRole.ASSISTANT.value,
            "parts": _parts(choice.message, clean),
            "finish_reason": _reason(choice.finish_reason),
        }
        for choice in choices
    ]


def as_text(messages: list[dict[str, Any]]) -> str:
    """Return messages as JSON, for spans, whose attributes are flat."""
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))


def _parts(message: Message, clean: Clean) -> list[dict[str, Any]]:
    if message.role is MessageRole.TOOL:
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": clean(message.text)}]
    content = (TextPart(message.content),) if isinstance(message.content, str) else message.content
    told = [_part(part, clean) for part in content if not isinstance(part, TextPart) or part.text]
    return [*told, *(_tool_call(call, clean) for call in message.tool_calls)]


def _part(part: Part, clean: Clean) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "content": clean(text)}
        case ThinkingPart(text):
            return {"type": "reasoning", "content": clean(text)}
        case _:
            return {"type": _NAMED.get(type(part), "other")}


def _tool_call(call: ToolCall, clean: Clean) -> dict[str, Any]:
    text = clean(call.arguments)
    try:
        arguments = text if call.custom else json.loads(text)
    except ValueError:  # as the model wrote it
        arguments = text
    return {"type": "tool_call", "id": clean(call.id), "name": clean(call.name), "arguments": arguments}


def _reason(reason: str | None) -> str:
    return "tool_call" if reason == "tool_calls" else reason or "error"
