"""Bodies in Anthropic's dialect → our values.

Source: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from llm.core.messages import DocumentPart, ImagePart, Message, MessageRole, Part, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, ToolDefinition

from .fields import bytes_of, is_list, is_mapping, messages_of, request_fields, text_of, wrong

_FIELDS: Final = {
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    "stream": "stream",
}
_READ: Final = {*_FIELDS, "messages", "system", "tools", "tool_choice"}


def read_request(body: Mapping[str, Any]) -> LLMRequest:
    """Return the request of a `/v1/messages` or `/v1/messages/count_tokens` body.

    A turn that answers tools becomes a turn per answer, as all other dialects have it. Fields without a name of ours
    go into `extra`, `metadata` among them: it is the upstream's.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected.
    """
    fields = request_fields(body, _FIELDS)
    if (tools := body.get("tools")) is not None:
        fields["tools"] = _tools(tools)
    if (choice := body.get("tool_choice")) is not None:
        fields["tool_choice"] = _tool_choice(choice)
    extra = {name: value for name, value in body.items() if name not in _READ}
    turns = [Message(MessageRole.SYSTEM, _system(body["system"]))] if body.get("system") else []
    for place, message in enumerate(messages_of(body)):
        turns.extend(_turns(message, f"messages[{place}]"))
    return LLMRequest(turns, extra=extra or None, **fields)


def _system(system: object) -> str | tuple[Part, ...]:
    if isinstance(system, str):
        return system
    if not is_list(system):
        raise wrong("system", "text or a list of text blocks")
    return tuple(_part(block, f"system[{place}]") for place, block in enumerate(system))


def _turns(message: Mapping[str, Any], field: str) -> Iterator[Message]:
    role, content = message.get("role"), message.get("content")
    if role not in {"user", "assistant"}:
        raise wrong(f"{field}.role", "user or assistant")
    if isinstance(content, str):
        yield Message(MessageRole(role), content)
    elif not is_list(content):
        raise wrong(f"{field}.content", "text or a list of blocks")
    elif role == "assistant":
        yield _assistant(content, f"{field}.content")
    else:
        yield from _user(content, f"{field}.content")


def _user(blocks: list[Any], field: str) -> Iterator[Message]:
    parts: list[Part] = []
    for place, block in enumerate(blocks):
        if is_mapping(block) and block.get("type") == "tool_result":
            yield _tool_result(block, f"{field}[{place}]")
        else:
            parts.append(_part(block, f"{field}[{place}]"))
    if parts or not blocks:
        yield Message(MessageRole.USER, tuple(parts))


def _tool_result(block: Mapping[str, Any], field: str) -> Message:
    content: object = block.get("content", "")
    answer: str | tuple[Part, ...]
    if isinstance(content, str):
        answer = content
    elif is_list(content):
        answer = tuple(_part(part, f"{field}.content[{place}]") for place, part in enumerate(content))
    else:
        raise wrong(f"{field}.content", "text or a list of blocks")
    return Message(MessageRole.TOOL, answer, tool_call_id=text_of(block.get("tool_use_id"), f"{field}.tool_use_id"))


def _assistant(blocks: list[Any], field: str) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for place, block in enumerate(blocks):
        match block:
            case {"type": "tool_use", "id": str(name), "name": str(tool), "input": arguments}:
                calls.append(ToolCall(name, tool, orjson.dumps(arguments).decode()))
            case _:
                parts.append(_part(block, f"{field}[{place}]"))
    return Message(MessageRole.ASSISTANT, tuple(parts) if parts else "", tool_calls=tuple(calls))


def _part(block: object, field: str) -> Part:
    match block:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "thinking", "thinking": str(text), **rest}:
            return ThinkingPart(text, rest.get("signature"))
        case {"type": "redacted_thinking", "data": str(data)}:
            return ThinkingPart("", redacted=data)
        case {"type": "image", "source": source}:
            return ImagePart(**_source(source, f"{field}.source"))
        case {"type": "document", "source": source, **rest}:
            return DocumentPart(**_source(source, f"{field}.source"), title=rest.get("title"))
        case _:
            raise wrong(field, "a block of type text, image, document, thinking, tool_use or tool_result")


def _source(source: object, field: str) -> dict[str, Any]:
    match source:
        case {"type": "url", "url": str(url)}:
            return {"url": url}
        case {"type": "base64", "media_type": str(kind), "data": data}:
            return {"data": bytes_of(data, f"{field}.data"), "media_type": kind}
        case {"type": "text", "media_type": str(kind), "data": str(text)}:
            return {"data": text.encode(), "media_type": kind}
        case _:
            raise wrong(field, "a source of type url, base64 or text")


_TOOL: Final = {"name", "description", "input_schema", "strict"}


def _tools(tools: object) -> tuple[ToolDefinition | Mapping[str, Any], ...]:
    if not is_list(tools):
        raise wrong("tools", "a list")
    return tuple(_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools))


def _tool(tool: object, field: str) -> ToolDefinition | Mapping[str, Any]:
    if not is_mapping(tool):
        raise wrong(field, "an object")
    given = {name: value for name, value in tool.items() if value is not None}
    if given.get("type") == "custom":
        del given["type"]
    if not given.keys() <= _TOOL or "input_schema" not in given:
        return tool
    name = text_of(given.pop("name", None), f"{field}.name")
    return ToolDefinition(name, parameters=given.pop("input_schema"), **given)


_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def _tool_choice(choice: object) -> str | Mapping[str, Any]:
    if not is_mapping(choice):
        raise wrong("tool_choice", "an object with type")
    if choice.keys() == {"type", "name"} and choice["type"] == "tool":
        return text_of(choice["name"], "tool_choice.name")
    kind: object = choice.get("type")
    return _CHOICES[kind] if choice.keys() == {"type"} and isinstance(kind, str) and kind in _CHOICES else choice
