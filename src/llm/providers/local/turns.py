"""The turns of a conversation, and the tools that it may call, in the form that chat templates take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import MessageRole, TextPart, ThinkingPart
from llm.core.types import ToolDefinition
from llm.core.vendor import CachePoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.messages import Message, ToolCall
    from llm.core.types import LLMRequest

_SPEAKERS: Final[Mapping[MessageRole, str]] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.TOOL: "tool",
}


class Choice(NamedTuple):
    """What may be called.

    Attributes:
        tools: In OpenAI's form; empty: none.
        must: Whether one of them must be.
        several: Whether more than one call is allowed.
    """

    tools: Sequence[Mapping[str, Any]]
    must: bool
    several: bool


def read_turns(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    """Return the turns.

    Raises:
        LLMInvalidRequestError: One that is not text, or answers no call; names it.
    """
    names: dict[str, str] = {}
    turns: list[Mapping[str, Any]] = []
    for at, message in enumerate(messages):
        names |= {call.id: call.name for call in message.tool_calls}
        turns.append(_turn(message, f"messages[{at}]", names))
    return turns


def tools_of(request: LLMRequest) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that the model is told of, in OpenAI's form; none where it may call none.

    Raises:
        LLMInvalidRequestError: One of another kind than a function; names it.
    """
    if request.tool_choice == "none":
        return ()
    return tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools or ()))


def read_choice(request: LLMRequest) -> Choice:
    """Return what the model may call, and must.

    Raises:
        LLMInvalidRequestError: `tool_choice` names no tool there is, or is of an unknown kind; `parallel_tool_calls` is
            no boolean.
    """
    tools, choice = tools_of(request), request.tool_choice
    several: object = (request.extra or {}).get("parallel_tool_calls", True)
    if not isinstance(several, bool):
        raise LLMInvalidRequestError("extra.parallel_tool_calls is neither true nor false; pass one of them")
    match choice:
        case None | "auto" | "none":
            return Choice(tools, must=False, several=several)
        case "required" if tools:
            return Choice(tools, must=True, several=several)
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            named = [tool for tool in tools if tool["function"]["name"] == name]
            if named:
                return Choice(named, must=True, several=False)
        case _:
            pass
    names = ", ".join(tool["function"]["name"] for tool in tools)
    raise LLMInvalidRequestError(
        "tool_choice is none that a model on the box knows; expected auto, none, required, or the name of a tool "
        f"(tools: {names or 'none'})"
    )


def _tool(tool: ToolDefinition | Mapping[str, Any], place: str) -> Mapping[str, Any]:
    if isinstance(tool, ToolDefinition):
        told = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        return {"type": "function", "function": told}
    match tool:
        case {"type": "function", "function": {"name": str()}}:
            return tool
        case _:
            raise LLMInvalidRequestError(f"{place} is no function; a model on the box calls functions alone")


def _turn(message: Message, place: str, names: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(message.content, str):
        for part in message.content:
            if not isinstance(part, (TextPart, ThinkingPart, CachePoint)):
                raise LLMInvalidRequestError(
                    f"{place} holds {type(part).__name__}; a model on the box reads text alone, so leave it out"
                )
    turn: dict[str, Any] = {"role": _SPEAKERS[message.role], "content": message.text}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.role is MessageRole.TOOL:
        name = names.get(message.tool_call_id or "")
        if name is None:
            raise LLMInvalidRequestError(
                f"{place} is a tool's turn whose tool_call_id is that of no call before it; pass the assistant's turn "
                "with the call as well"
            )
        turn |= {"name": name, "tool_call_id": message.tool_call_id}
    return turn


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = call.arguments  # a model's own, which may be no JSON
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
