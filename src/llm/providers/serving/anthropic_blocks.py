"""Anthropic's content blocks → our parts.

A block that says more than our part can keep stays whole, in a `VendorPart`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import DocumentPart, ImagePart, Part, TextPart, ThinkingPart
from llm.core.vendor import CachePoint, VendorPart, read_cache_control

from .fields import an_object, bytes_of, wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN: Final = frozenset({
    "text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result",
    "container_upload", "server_tool_use", "mcp_tool_use", "tool_reference", "compaction", "browser_state",
})  # fmt: skip
_TEXT: Final = frozenset({"type", "text"})
_IMAGE: Final = frozenset({"type", "source"})
_DOCUMENT: Final = frozenset({"type", "source", "title", "context", "citations"})
_THINKING: Final = frozenset({"type", "thinking", "signature"})


def read_blocks(blocks: list[Mapping[str, Any]], field: str) -> tuple[Part, ...]:
    """Return the parts of a turn's blocks.

    Raises:
        LLMInvalidRequestError: A block is none; names it.
    """
    return tuple(part for place, block in enumerate(blocks) for part in read_block(block, f"{field}[{place}]"))


def read_block(block: Mapping[str, Any], field: str) -> tuple[Part, ...]:
    """Return a block's part, and behind it the mark for the prompt cache that it carries.

    Raises:
        LLMInvalidRequestError: It is no block of Anthropic's; names it.
    """
    if block.get("cache_control") is None:
        return (_part(block, field),)
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    mark = read_mark(block, field)
    return (_part(bare, field),) if mark is None else (_part(bare, field), mark)


def read_mark(block: Mapping[str, Any], field: str) -> CachePoint | None:
    """Return the mark that a block or a tool carries; None where it carries none.

    Raises:
        LLMInvalidRequestError: It is no mark that we know.
    """
    mark: object = block.get("cache_control")
    if mark is None:
        return None
    try:
        return read_cache_control(mark)
    except LLMInvalidRequestError:
        raise wrong(f"{field}.cache_control", "type ephemeral, and a ttl of 5m or 1h if any") from None


def has_only(fields: Mapping[str, Any], known: frozenset[str]) -> bool:
    """Return whether nothing is given but what is known; None is not given."""
    return all(name in known or value is None for name, value in fields.items())


def _part(block: Mapping[str, Any], field: str) -> Part:
    match block:
        case {"type": "text", "text": str(text)} if has_only(block, _TEXT):
            return TextPart(text)
        case {"type": "thinking", "thinking": str(text), **rest} if has_only(block, _THINKING):
            return ThinkingPart(text, rest.get("signature"))
        case {"type": "redacted_thinking", "data": str(data)}:
            return ThinkingPart("", redacted=data)
        case {"type": "image", "source": source} if has_only(block, _IMAGE):
            return ImagePart(**_source(source, f"{field}.source"))
        case {"type": "document", "source": source} if has_only(block, _DOCUMENT) and not _is_content(source):
            return _document(block, source, field)
        case {"type": str(kind)} if kind in _OWN or kind.endswith("_tool_result"):
            return VendorPart(block)
        case _:
            raise wrong(field, "a block of type text, image, document, thinking, tool_use or tool_result")


def _document(block: Mapping[str, Any], source: object, field: str) -> DocumentPart:
    citations: object = block.get("citations")
    if citations is not None:
        citations = an_object(citations, f"{field}.citations").get("enabled", False) is True
    title, context = block.get("title"), block.get("context")
    return DocumentPart(**_source(source, f"{field}.source"), title=title, context=context, citations=citations)


def _is_content(source: object) -> bool:
    match source:
        case {"type": "content"}:  # blocks of their own
            return True
        case _:
            return False


def _source(source: object, field: str) -> dict[str, Any]:
    match an_object(source, field):
        case {"type": "url", "url": str(url)}:
            return {"url": url}
        case {"type": "base64", "media_type": str(kind), "data": data}:
            return {"data": bytes_of(data, f"{field}.data"), "media_type": kind}
        case {"type": "text", "media_type": str(kind), "data": str(text)}:
            return {"data": text.encode(), "media_type": kind}
        case {"type": "file", "file_id": str(name)}:
            return {"file_id": name}
        case _:
            raise wrong(field, "a source of type url, base64, text or file")
