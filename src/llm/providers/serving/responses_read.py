"""Bodies of OpenAI's Responses API → our values.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.types import LLMRequest, ToolDefinition

from .fields import an_object, objects, request_fields, text_of
from .responses_input import read_input

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final = {
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_tokens",
    "stream": "stream",
}
_READ: Final = {*_FIELDS, "input", "instructions", "tools", "tool_choice", "text", "reasoning"}


def read_request(body: Mapping[str, Any]) -> LLMRequest:
    """Return the request of a `/responses` body.

    Items of one answer become one turn of the assistant. Fields without a name of ours go into `extra`, `user`,
    `metadata` and `include` among them: they are the upstream's. `store: false` is left out, for it asks for nothing.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected.
    """
    fields = request_fields(body, _FIELDS)
    if (tools := body.get("tools")) is not None:
        fields["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects(tools, "tools"))]
    if (choice := body.get("tool_choice")) is not None:
        fields["tool_choice"] = _tool_choice(choice)
    extra = {name: value for name, value in body.items() if name not in _READ}
    if extra.get("store") is False:
        del extra["store"]
    if (effort := _taken_from(body, "reasoning", "effort", extra)) is not None:
        fields["reasoning_effort"] = text_of(effort, "reasoning.effort")
    if (form := _taken_from(body, "text", "format", extra)) is not None:
        fields["response_format"] = _response_format(an_object(form, "text.format"))
    return LLMRequest(tuple(read_input(body)), extra=extra or None, **fields)


def _taken_from(body: Mapping[str, Any], name: str, field: str, extra: dict[str, Any]) -> object:
    """Return a field of the body's object `name`, and leave the object's others in `extra`."""
    if (given := body.get(name)) is None:
        return None
    rest = dict(an_object(given, name))
    value = rest.pop(field, None)
    if rest:
        extra[name] = rest
    return value


_TOOL: Final = {"type", "name", "description", "parameters", "strict"}


def _tool(tool: Mapping[str, Any], field: str) -> ToolDefinition | Mapping[str, Any]:
    if tool.get("type") != "function" or not set(tool) <= _TOOL:
        return tool
    given = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return ToolDefinition(text_of(given.pop("name", None), f"{field}.name"), **given)


def _tool_choice(choice: object) -> str | Mapping[str, Any]:
    if isinstance(choice, str):
        return choice
    asked = an_object(choice, "tool_choice")
    match asked:
        case {"type": "function", "name": str(name)}:
            return name
        case _:
            return asked


def _response_format(form: Mapping[str, Any]) -> str | Mapping[str, Any]:
    match form:
        case {"type": ("text" | "json_object") as kind}:
            return str(kind)
        case {"type": "json_schema", **schema}:
            # As chat completions have it, which all dialects read.
            return {"type": "json_schema", "json_schema": schema}
        case _:
            return form
