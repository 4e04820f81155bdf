"""Bodies in Anthropic's dialect → our values.

Source: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.messages import Message, MessageRole, TextPart, ToolCall
from llm.core.types import LLMRequest, ToolDefinition

from .anthropic_blocks import has_only, read_block, read_blocks, read_mark
from .fields import an_object, messages_of, objects, request_fields, text_of, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm.core.messages import Part
    from llm.core.vendor import CachePoint

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

    A turn that answers tools becomes a turn per answer, as all other dialects have it. A mark on a tool call, which has
    no place for it, stands at the start of the turn after it. Blocks and fields without a name of ours stay as they
    are, in a `VendorPart` and in `extra`, `metadata` among them: it is the upstream's.

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
    mark: CachePoint | None = None
    for place, message in enumerate(messages_of(body)):
        first = len(turns)
        _add_turns(turns, message, f"messages[{place}]")
        if mark is not None:
            turns[first] = _behind(mark, turns[first])
        mark = _mark_of_calls(message, f"messages[{place}]")
    return LLMRequest(turns, extra=extra or None, **fields)


def _system(system: object) -> str | tuple[Part, ...]:
    return system if isinstance(system, str) else read_blocks(objects(system, "system"), "system")


def _behind(mark: CachePoint, turn: Message) -> Message:
    said = (TextPart(turn.content),) if isinstance(turn.content, str) else turn.content
    return replace(turn, content=(mark, *said))


def _add_turns(turns: list[Message], message: Mapping[str, Any], field: str) -> None:
    role: object = message.get("role")
    content: object = message.get("content")
    if role not in _ROLES:
        raise wrong(f"{field}.role", "user or assistant")
    if isinstance(content, str):
        turns.append(Message(MessageRole(str(role)), content))
        return
    blocks = objects(content, f"{field}.content")
    if role == "user":
        turns.extend(_user(blocks, f"{field}.content"))
    elif role == "assistant":
        turns.append(_assistant(blocks, f"{field}.content"))
    else:
        turns.append(Message(MessageRole.SYSTEM, read_blocks(blocks, f"{field}.content")))


_ROLES: Final = ("user", "assistant", "system")


def _user(blocks: list[Mapping[str, Any]], field: str) -> Iterator[Message]:
    parts: list[Part] = []
    for place, block in enumerate(blocks):
        if block.get("type") == "tool_result" and has_only(block, _RESULT):
            yield _tool_result(block, f"{field}[{place}]")
        else:
            parts.extend(read_block(block, f"{field}[{place}]"))
    if parts or not blocks:
        yield Message(MessageRole.USER, tuple(parts))


_RESULT: Final = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})


def _tool_result(block: Mapping[str, Any], field: str) -> Message:
    content: object = block.get("content", "")
    answer: str | tuple[Part, ...]
    answer = (
        content if isinstance(content, str) else read_blocks(objects(content, f"{field}.content"), f"{field}.content")
    )
    if (mark := read_mark(block, field)) is not None:
        before = answer if not isinstance(answer, str) else (TextPart(answer),) if answer else ()
        answer = (*before, mark)
    return Message(
        MessageRole.TOOL,
        answer,
        tool_call_id=text_of(block.get("tool_use_id"), f"{field}.tool_use_id"),
        is_error=block.get("is_error") is True,
    )


_USE: Final = frozenset({"type", "id", "name", "input", "cache_control"})


def _assistant(blocks: list[Mapping[str, Any]], field: str) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for place, block in enumerate(blocks):
        match block:
            case {"type": "tool_use", "id": str(name), "name": str(tool), "input": arguments} if has_only(block, _USE):
                calls.append(ToolCall(name, tool, orjson.dumps(arguments).decode()))
            case _:
                parts.extend(read_block(block, f"{field}[{place}]"))
    return Message(MessageRole.ASSISTANT, tuple(parts) if parts else "", tool_calls=tuple(calls))


def _mark_of_calls(message: Mapping[str, Any], field: str) -> CachePoint | None:
    """Return the mark on a turn's last tool call, which stands at the start of our next turn."""
    match message:
        case {"role": "assistant", "content": [*_, {"type": "tool_use", "cache_control": _} as last]} if has_only(
            last, _USE
        ):
            return read_mark(last, f"{field}.content")
        case _:
            return None


_TOOL: Final = {"name", "description", "input_schema", "strict", "cache_control"}


def _tool(tool: Mapping[str, Any], field: str) -> ToolDefinition | Mapping[str, Any]:
    given = {name: value for name, value in tool.items() if value is not None}
    if given.get("type") == "custom":
        del given["type"]
    if not set(given) <= _TOOL or "input_schema" not in given:
        return tool
    name = text_of(given.pop("name", None), f"{field}.name")
    if given.pop("cache_control", None) is not None:
        given["cache_point"] = read_mark(tool, field)
    return ToolDefinition(name, parameters=given.pop("input_schema"), **given)


_OUTPUT: Final = frozenset({"effort", "format"})


def _read_output(config: Mapping[str, Any], fields: dict[str, Any], extra: dict[str, Any]) -> None:
    if not has_only(config, _OUTPUT):
        extra["output_config"] = config
        return
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
