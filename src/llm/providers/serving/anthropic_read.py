"""Bodies in Anthropic's dialect → our values.

Source: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.messages import DocumentPart, ImagePart, Message, MessageRole, Part, TextPart, ThinkingPart, ToolCall
from llm.core.types import LLMRequest, ToolDefinition

from .fields import an_object, bytes_of, messages_of, objects, request_fields, text_of, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FIELDS: Final = {
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    "stream": "stream",
}
_READ: Final = {*_FIELDS, "messages", "system", "tools", "tool_choice", "output_config"}


def read_request(body: Mapping[str, Any]) -> LLMRequest:
    """Return the request of a `/v1/messages` or `/v1/messages/count_tokens` body.

    A turn that answers tools becomes a turn per answer, as all other dialects have it. Fields without a name of ours
    go into `extra`, `metadata` among them: it is the upstream's.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected.
    """
    fields = request_fields(body, _FIELDS)
    if (tools := body.get("tools")) is not None:
        fields["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects(tools, "tools"))]
    if (choice := body.get("tool_choice")) is not None:
        fields["tool_choice"] = _tool_choice(an_object(choice, "tool_choice"))
    extra = {name: value for name, value in body.items() if name not in _READ}
    if (config := body.get("output_config")) is not None:
        _read_output(an_object(config, "output_config"), fields, extra)
    turns = [Message(MessageRole.SYSTEM, _system(body["system"]))] if body.get("system") else []
    for place, message in enumerate(messages_of(body)):
        turns.extend(_turns(message, f"messages[{place}]"))
    return LLMRequest(turns, extra=extra or None, **fields)


def _system(system: object) -> str | tuple[Part, ...]:
    if isinstance(system, str):
        return system
    return tuple(_part(block, f"system[{place}]") for place, block in enumerate(objects(system, "system")))


def _turns(message: Mapping[str, Any], field: str) -> Iterator[Message]:
    role: object = message.get("role")
    content: object = message.get("content")
    if role not in {"user", "assistant"}:
        raise wrong(f"{field}.role", "user or assistant")
    if isinstance(content, str):
        yield Message(MessageRole(str(role)), content)
        return
    blocks = objects(content, f"{field}.content")
    if role == "assistant":
        yield _assistant(blocks, f"{field}.content")
    else:
        yield from _user(blocks, f"{field}.content")


def _user(blocks: list[Mapping[str, Any]], field: str) -> Iterator[Message]:
    parts: list[Part] = []
    for place, block in enumerate(blocks):
        if block.get("type") == "tool_result":
            yield _tool_result(block, f"{field}[{place}]")
        else:
            parts.append(_part(block, f"{field}[{place}]"))
    if parts or not blocks:
        yield Message(MessageRole.USER, tuple(parts))


def _tool_result(block: Mapping[str, Any], field: str) -> Message:
    content: object = block.get("content", "")
    if isinstance(content, str):
        answer: str | tuple[Part, ...] = content
    else:
        blocks = objects(content, f"{field}.content")
        answer = tuple(_part(part, f"{field}.content[{place}]") for place, part in enumerate(blocks))
    return Message(MessageRole.TOOL, answer, tool_call_id=text_of(block.get("tool_use_id"), f"{field}.tool_use_id"))


def _assistant(blocks: list[Mapping[str, Any]], field: str) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for place, block in enumerate(blocks):
        match block:
            case {"type": "tool_use", "id": str(name), "name": str(tool), "input": arguments}:
                calls.append(ToolCall(name, tool, orjson.dumps(arguments).decode()))
            case _:
                parts.append(_part(block, f"{field}[{place}]"))
    return Message(MessageRole.ASSISTANT, tuple(parts) if parts else "", tool_calls=tuple(calls))


def _part(block: Mapping[str, Any], field: str) -> Part:
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
            return DocumentPart(
                **_source(an_object(source, f"{field}.source"), f"{field}.source"), title=rest.get("title")
            )
        case _:
            raise wrong(field, "a block of type text, image, document, thinking, tool_use or tool_result")


def _source(source: object, field: str) -> dict[str, Any]:
    match an_object(source, field):
        case {"type": "url", "url": str(url)}:
            return {"url": url}
        case {"type": "base64", "media_type": str(kind), "data": data}:
            return {"data": bytes_of(data, f"{field}.data"), "media_type": kind}
        case {"type": "text", "media_type": str(kind), "data": str(text)}:
            return {"data": text.encode(), "media_type": kind}
        case _:
            raise wrong(field, "a source of type url, base64 or text")


_TOOL: Final = {"name", "description", "input_schema", "strict"}


def _tool(tool: Mapping[str, Any], field: str) -> ToolDefinition | Mapping[str, Any]:
    given = {name: value for name, value in tool.items() if value is not None}
    if given.get("type") == "custom":
        del given["type"]
    if not set(given) <= _TOOL or "input_schema" not in given:
        return tool
    name = text_of(given.pop("name", None), f"{field}.name")
    return ToolDefinition(name, parameters=given.pop("input_schema"), **given)


def _read_output(config: Mapping[str, Any], fields: dict[str, Any], extra: dict[str, Any]) -> None:
    match config:
        case {"format": {"type": "json_schema", "schema": schema}}:
            # In OpenAI's form, which all dialects read; there a schema has a name.
            fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        case {"format": _}:
            extra["output_config"] = config
            return
        case _:
            pass
    if (effort := config.get("effort")) is not None:
        fields["reasoning_effort"] = text_of(effort, "output_config.effort")


_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def _tool_choice(choice: Mapping[str, Any]) -> str | Mapping[str, Any]:
    match choice:
        case {"type": "tool", "name": str(name)} if set(choice) == {"type", "name"}:
            return name
        case {"type": ("auto" | "any" | "none") as kind} if set(choice) == {"type"}:
            return _CHOICES[kind]
        case _:
            return choice
