"""What of a request counts as text, how much the rest takes, and the estimate from both.

What is no text is estimated by the vendors' published sizes:

- an image: 85 tokens at detail `low`, else 765, which is OpenAI's figure for 1024 by 1024 pixels
  (Source: platform.openai.com/docs/guides/images-vision, "Calculating costs");
- a document that is no text: 3,000 tokens, Anthropic's upper figure for a page
  (Source: docs.anthropic.com/en/docs/build-with-claude/pdf-support, "Estimate your costs");
- a block in a vendor's own form: its characters, as if it were text;
- sound: ten tokens a second (Source: platform.openai.com/docs/guides/realtime-costs), a second being 16,000 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from llm.core.messages import AudioPart, DocumentPart, ImagePart, TextPart, ThinkingPart
from llm.core.structured import shape_of
from llm.core.types import ToolDefinition
from llm.core.vendor import CachePoint, VendorPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from llm.core.messages import Message, Part
    from llm.core.types import LLMRequest

CHARACTERS_PER_TOKEN: Final = 4
"""Of English text. Source: help.openai.com/en/articles/4936856, "What are tokens and how to count them"."""

_IMAGE: Final = 765
_IMAGE_LOW: Final = 85
_DOCUMENT: Final = 3000
_BYTES_PER_AUDIO_TOKEN: Final = 1600


def estimate_tokens(request: LLMRequest) -> int:
    """Return about how many tokens the request's prompt takes: its characters by four, rounded up."""
    characters = 0
    others = 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            characters += len(content)
        else:
            for part in content:
                characters += len(part_text(part))
                others += part_tokens(part)
        if message.name is not None:
            characters += len(message.name)
        for call in message.tool_calls:
            characters += len(call.name) + len(call.arguments)
    for text in declared(request):
        characters += len(text)
    if request.embed is not None:
        characters += sum(map(len, request.embed.texts))
    return -(-characters // CHARACTERS_PER_TOKEN) + others


def texts(message: Message) -> Iterator[str]:
    """Go over a message's texts: content and tool calls, without its name."""
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from map(part_text, message.content)
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def declared(request: LLMRequest) -> Iterator[str]:
    """Go over what the request declares beside its messages: tools, and the form of the answer.

    Written with repr, not JSON: about the same characters, and nothing that a caller passes makes it fail.
    """
    for tool in request.tools or ():
        yield _tool_text(tool)
    if request.response_format is not None and not isinstance(request.response_format, str):
        yield str(request.response_format)
    if request.response_model is not None:
        yield shape_of(request.response_model).text


def _tool_text(tool: ToolDefinition | Mapping[str, Any]) -> str:
    return f"{tool.name}:{tool.description}{tool.parameters}" if isinstance(tool, ToolDefinition) else str(tool)


def part_text(part: Part) -> str:
    """Return what of a part counts as text."""
    if isinstance(part, TextPart | ThinkingPart):
        return part.text
    if isinstance(part, VendorPart):
        return str(part.block)
    if isinstance(part, DocumentPart) and part.data is not None and _is_text(part):
        return part.data.decode("utf-8", "replace")
    return ""


def part_tokens(part: Part) -> int:
    """Return the tokens of a part that is no text; 0 for text."""
    match part:
        case TextPart() | ThinkingPart() | VendorPart() | CachePoint():
            return 0
        case ImagePart():
            return _IMAGE_LOW if part.detail == "low" else _IMAGE
        case DocumentPart():
            return 0 if part.data is not None and _is_text(part) else _DOCUMENT
        case AudioPart():
            return -(-len(part.data) // _BYTES_PER_AUDIO_TOKEN)
        case _:
            assert_never(part)


def _is_text(part: DocumentPart) -> bool:
    return (part.media_type or "").startswith("text/")
