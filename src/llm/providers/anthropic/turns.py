"""A conversation as Anthropic's turns and its one system prompt.

Tools are answered in one user's turn: answers that follow each other stand in it together, and what the user says to
them, in parts, stands behind them. The vendor joins turns of one speaker anyway, and wants answers first.

Source: https://docs.claude.com/en/docs/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import MessageRole, TextPart
from llm.core.vendor import CachePoint, VendorPart

from .content import add_blocks, mark, write_blocks

if TYPE_CHECKING:
    from llm.core.messages import Message, ToolCall

# An attribute of an enumeration, and its hash, cost more than the rest of a plain turn.
_SYSTEM: Final = MessageRole.SYSTEM
_DEVELOPER: Final = MessageRole.DEVELOPER
_USER: Final = MessageRole.USER
_TOOL: Final = MessageRole.TOOL


def write_turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return the turns of users and assistants.

    Raises:
        LLMInvalidRequestError: A turn cannot be expressed; names it.
    """
    turns: list[dict[str, Any]] = []
    before: MessageRole | None = None
    for at, message in enumerate(messages):
        role, content = message.role, message.content
        if role is _SYSTEM or role is _DEVELOPER:
            continue
        if role is _USER and isinstance(content, str) and not message.tool_calls:
            turns.append({"role": "user", "content": content})
        else:
            _add_turn(turns, message, at, before)
        before = role
    return turns


def _add_turn(turns: list[dict[str, Any]], message: Message, at: int, before: MessageRole | None) -> None:
    role, content = message.role, message.content
    if turns and not isinstance(content, str) and (point := _leading(message)) is not None:
        _mark_turn(turns[-1], point)
    if role is _TOOL:
        answer = _tool_result(message, at)
        if before is _TOOL:
            turns[-1]["content"].append(answer)
        else:
            turns.append({"role": "user", "content": [answer]})
    elif role is _USER and before is _TOOL and not isinstance(content, str):
        add_blocks(turns[-1]["content"], content, at)
    else:
        turns.append(_spoken(message, at))


def write_system(messages: tuple[Message, ...]) -> str | list[dict[str, Any]] | None:
    """Return the system prompt, in blocks where a turn has parts; None where there is none.

    Raises:
        LLMInvalidRequestError: A part of it is no text; names it.
    """
    for message in messages:
        if message.role is _SYSTEM or message.role is _DEVELOPER:
            break
    else:
        return None
    system = [(at, m) for at, m in enumerate(messages) if m.role is _SYSTEM or m.role is _DEVELOPER]
    texts = [message.content for _, message in system if isinstance(message.content, str)]
    if len(texts) == len(system):
        return "\n\n".join(texts)
    blocks: list[dict[str, Any]] = []
    for at, message in system:
        parts = (TextPart(message.content),) if isinstance(message.content, str) else message.content
        if not all(isinstance(part, (TextPart, CachePoint, VendorPart)) for part in parts):
            raise LLMInvalidRequestError(
                f"messages[{at}] is a system turn with more than text; move it to a user's turn"
            )
        add_blocks(blocks, parts, at)
    return blocks


def _leading(message: Message) -> CachePoint | None:
    # A lone mark is the only way to mark a tool's answer that is empty.
    if len(message.content) < 1 + (message.role is _TOOL):
        return None
    first = message.content[0]
    return first if isinstance(first, CachePoint) else None


def _mark_turn(turn: dict[str, Any], point: CachePoint) -> None:
    if isinstance(turn["content"], str):
        turn["content"] = [{"type": "text", "text": turn["content"]}] if turn["content"] else []
    mark(turn["content"], point)


def _spoken(message: Message, at: int) -> dict[str, Any]:
    content = message.content
    wire: str | list[dict[str, Any]] = content if isinstance(content, str) else write_blocks(content, at)
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
    # As they came, where there are some: what was read of long numbers is not all of them.
    given: Any = orjson.Fragment(call.arguments) if arguments else {}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _tool_result(message: Message, at: int) -> dict[str, Any]:
    if not message.tool_call_id:
        raise LLMInvalidRequestError(f"messages[{at}] is a tool's turn without tool_call_id; name the call it answers")
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    content = message.content
    if not isinstance(content, str) and content and isinstance(content[-1], CachePoint):
        mark([result], content[-1])  # at the end it is the answer's own, not that of the last block in it
        content = content[:-1]
    if content:
        result["content"] = content if isinstance(content, str) else write_blocks(content, at)
    if message.is_error:
        result["is_error"] = True
    return result
