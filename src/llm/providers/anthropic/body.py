"""A request as the body of Anthropic's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import MessageRole, TextPart
from llm.core.types import ToolDefinition
from llm.providers.wire import dump, model_of

from .content import write_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.messages import Message, ToolCall
    from llm.core.types import LLMRequest

DEFAULT_MAX_TOKENS: Final = 4096
"""Sent where a request has no `max_tokens`, which the vendor requires: the most that all models since Claude 3 take."""

_SYSTEM: Final = frozenset({MessageRole.SYSTEM, MessageRole.DEVELOPER})


def write_body(request: LLMRequest, *, stream: bool) -> bytes:
    """Return the JSON of a request.

    Raises:
        LLMInvalidRequestError: It cannot be expressed; names the field.
    """
    body: dict[str, Any] = {
        "model": model_of(request),
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": [_turn(m, at) for at, m in enumerate(request.messages) if m.role not in _SYSTEM],
    }
    if not body["messages"]:
        raise LLMInvalidRequestError("messages has system turns only; add a user's turn, which this dialect requires")
    if system := [_system(m, at) for at, m in enumerate(request.messages) if m.role in _SYSTEM]:
        body["system"] = "\n\n".join(system)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop is not None:
        body["stop_sequences"] = request.stop
    _put_tools(body, request)
    if output := _output(request):
        body["output_config"] = output
    if stream:
        body["stream"] = True
    if request.extra:
        body.update(request.extra)
    return dump(body)


def _system(message: Message, at: int) -> str:
    if not isinstance(message.content, str) and not all(isinstance(part, TextPart) for part in message.content):
        raise LLMInvalidRequestError(f"messages[{at}] is a system turn with more than text; move it to a user's turn")
    return message.text


def _output(request: LLMRequest) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if request.reasoning_effort is not None:
        output["effort"] = request.reasoning_effort
    match request.response_format:
        case None | "text" | {"type": "text"}:
            pass
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            output["format"] = {"type": "json_schema", "schema": schema}
        case {"type": "json_schema", "schema": _} as own:
            output["format"] = own
        case _:
            raise LLMInvalidRequestError(
                "response_format is one that Anthropic does not have; pass a json_schema, or ask for JSON in the prompt"
            )
    return output


def _put_tools(body: dict[str, Any], request: LLMRequest) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    match request.tool_choice:
        case None:
            pass
        case "auto" | "none" as choice:
            body["tool_choice"] = {"type": choice}
        case "required":
            body["tool_choice"] = {"type": "any"}
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            body["tool_choice"] = {"type": "tool", "name": name}
        case own:
            body["tool_choice"] = own


def _tool(tool: ToolDefinition | Mapping[str, Any]) -> Mapping[str, Any]:
    match tool:
        case ToolDefinition():
            return _definition(tool.name, tool.parameters, tool.description, strict=tool.strict)
        case {"type": "function", "function": {**function}}:
            return _from_openai(function)
        case _:
            return tool


def _from_openai(function: Mapping[Any, Any]) -> dict[str, Any]:
    if not isinstance(function.get("name"), str):
        raise LLMInvalidRequestError("tools has a function without a name; give it one")
    schema: Any = function.get("parameters") or {"type": "object", "properties": {}}
    return _definition(function["name"], schema, function.get("description"), strict=function.get("strict"))


def _definition(
    name: str, schema: Mapping[str, Any], description: str | None, *, strict: bool | None
) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": name, "input_schema": schema}
    if description:
        wire["description"] = description
    if strict is not None:
        wire["strict"] = strict
    return wire


def _turn(message: Message, at: int) -> dict[str, Any]:
    content = message.content
    wire: str | list[dict[str, Any]] = content if isinstance(content, str) else write_blocks(content, at)
    if message.role is MessageRole.TOOL:
        if not message.tool_call_id:
            raise LLMInvalidRequestError(
                f"messages[{at}] is a tool's turn without tool_call_id; name the call it answers"
            )
        return {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": wire}],
        }
    if message.tool_calls:
        # A text block must not be empty, so a turn that only calls tools has none.
        blocks = wire if isinstance(wire, list) else [{"type": "text", "text": wire}] if wire else []
        wire = [*blocks, *(_tool_use(call, at) for call in message.tool_calls)]
    return {"role": "assistant" if message.role is MessageRole.ASSISTANT else "user", "content": wire}


def _tool_use(call: ToolCall, at: int) -> dict[str, Any]:
    try:
        arguments: Any = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if type(arguments) is not dict:
        raise LLMInvalidRequestError(
            f"messages[{at}] has a call of the tool {call.name!r} whose arguments are no JSON object; correct them"
        )
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
