"""A request as the body of Anthropic's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import ToolDefinition
from llm.providers.wire import cache_control, dump, model_of

from .thinking import thinking_of
from .turns import write_system, write_turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMRequest

_COUNTED: Final = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed",
})  # fmt: skip
"""The fields that a count takes; it refuses the others."""


def write_body(request: LLMRequest, *, stream: bool) -> bytes:
    """Return the JSON of a request.

    Raises:
        LLMInvalidRequestError: It cannot be expressed; names the field.
    """
    body = _body(request)
    if stream:
        body["stream"] = True
    return dump(body)


def write_count_body(request: LLMRequest) -> bytes:
    """Return the JSON that asks how many tokens the request's prompt takes.

    Raises:
        LLMInvalidRequestError: As in `write_body`.

    Source: https://docs.claude.com/en/api/messages-count-tokens
    """
    return dump({name: value for name, value in _body(request).items() if name in _COUNTED})


def _body(request: LLMRequest) -> dict[str, Any]:
    # Most requests say how much they want, and nothing of thinking.
    plain = request.max_tokens is not None and request.reasoning_effort is None
    thinking = None if plain else thinking_of(request)
    body: dict[str, Any] = {
        "model": model_of(request),
        "max_tokens": request.max_tokens if thinking is None else thinking.max_tokens,
        "messages": write_turns(request.messages),
    }
    if not body["messages"]:
        raise LLMInvalidRequestError("messages has system turns only; add a user's turn, which this dialect requires")
    if system := write_system(request.messages):
        body["system"] = system
    if thinking is not None and thinking.thinking is not None:
        body["thinking"] = thinking.thinking
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop is not None:
        body["stop_sequences"] = request.stop
    _put_tools(body, request)
    if output := _output(request, None if thinking is None else thinking.effort):
        body["output_config"] = output
    if request.extra:
        body.update(request.extra)
        own: Any = request.extra.get("output_config")
        if output and isinstance(own, dict):  # a wish for effort does not take the form of the answer away
            body["output_config"] = {**output, **own}
    return body


def _output(request: LLMRequest, effort: str | None) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if effort is not None:
        output["effort"] = effort
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
            wire = _definition(tool.name, tool.parameters, tool.description, strict=tool.strict)
            return wire if tool.cache_point is None else {**wire, "cache_control": cache_control(tool.cache_point)}
        case {"type": "function", "function": {**function}}:
            wire = _from_openai(function)
            return {**wire, "cache_control": tool["cache_control"]} if "cache_control" in tool else wire
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
