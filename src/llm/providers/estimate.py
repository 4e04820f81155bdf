"""How many tokens a prompt takes, guessed as the vendors' own limiters guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.messages import TextPart, ThinkingPart
from llm.core.types import ToolDefinition

from .wire import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.messages import Message, Part
    from llm.core.types import LLMRequest

_CHARS_PER_TOKEN: Final = 4
_IMAGE_TOKENS: Final = 1600
"""The most that a picture takes with Anthropic, and about that of a large one with OpenAI."""


def prompt_tokens(request: LLMRequest) -> int:
    """Return the tokens that the prompt takes, by four characters to a token.

    Raises:
        LLMInvalidRequestError: A tool has no JSON form.

    Source: https://platform.openai.com/docs/guides/rate-limits
    """
    chars = sum(map(_chars, request.messages))
    if request.tools:
        chars += sum(map(_tool_chars, request.tools))
    return -(-chars // _CHARS_PER_TOKEN)


def _chars(message: Message) -> int:
    content = message.content
    chars = len(content) if isinstance(content, str) else sum(map(_part_chars, content))
    for call in message.tool_calls:
        chars += len(call.name) + len(call.arguments)
    return chars


def _part_chars(part: Part) -> int:
    if isinstance(part, (TextPart, ThinkingPart)):
        return len(part.text)
    return _IMAGE_TOKENS * _CHARS_PER_TOKEN


def _tool_chars(tool: ToolDefinition | Mapping[str, Any]) -> int:
    if isinstance(tool, ToolDefinition):
        return len(tool.name) + len(tool.description) + len(dump(tool.parameters))
    return len(dump(tool))
