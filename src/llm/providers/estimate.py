"""How many tokens a prompt takes, guessed as the vendors' own limiters guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.messages import ImagePart
from llm.core.structured import shape_of
from llm.core.tokens import CHARACTERS_PER_TOKEN, part_text, part_tokens
from llm.core.types import ToolDefinition

from .wire import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.messages import Message, Part
    from llm.core.types import LLMRequest

_IMAGE_TOKENS: Final = 1600
"""The most that a picture takes with Anthropic, and about that of a large one with OpenAI."""


def prompt_tokens(request: LLMRequest) -> int:
    """Return the tokens that the prompt takes, by four characters to a token; what is no text by its usual size.

    Raises:
        LLMInvalidRequestError: A tool, or the form of the answer, has no JSON form.

    Source: https://platform.openai.com/docs/guides/rate-limits
    """
    chars = sum(map(_chars, request.messages))
    if request.embed is not None:
        chars += sum(map(len, request.embed.texts))
    if request.tools:
        chars += sum(map(_tool_chars, request.tools))
    if request.response_format is not None and not isinstance(request.response_format, str):
        chars += len(dump(request.response_format))
    if request.response_model is not None:
        chars += len(shape_of(request.response_model).text)
    return -(-chars // CHARACTERS_PER_TOKEN)


def _chars(message: Message) -> int:
    content = message.content
    chars = len(content) if isinstance(content, str) else sum(map(_part_chars, content))
    if message.name is not None:
        chars += len(message.name)
    for call in message.tool_calls:
        chars += len(call.name) + len(call.arguments)
    return chars


def _part_chars(part: Part) -> int:
    if isinstance(part, ImagePart) and part.detail != "low":
        return _IMAGE_TOKENS * CHARACTERS_PER_TOKEN
    return len(part_text(part)) + part_tokens(part) * CHARACTERS_PER_TOKEN


def _tool_chars(tool: ToolDefinition | Mapping[str, Any]) -> int:
    if isinstance(tool, ToolDefinition):
        return len(tool.name) + len(tool.description) + len(dump(tool.parameters))
    return len(dump(tool))
