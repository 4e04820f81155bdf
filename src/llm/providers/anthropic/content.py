"""The parts of a turn as Anthropic's content blocks."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final, assert_never
from urllib.parse import unquote_to_bytes

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import AudioPart, DocumentPart, ImagePart, TextPart, ThinkingPart
from llm.core.vendor import CachePoint, VendorPart
from llm.providers.wire import base64_text, cache_control

if TYPE_CHECKING:
    from llm.core.messages import Part

_UNMARKED: Final = frozenset({"thinking", "redacted_thinking"})
"""Blocks that carry no mark; the vendor caches them with what is around them."""

_PLAIN: Final = "text/plain"
"""What goes as text and not in base64. Source: https://docs.claude.com/en/api/messages, `PlainTextSource`."""


def write_blocks(parts: tuple[Part, ...], at: int) -> list[dict[str, Any]]:
    """Return the blocks of a turn; `at` is its place among the messages, for the error.

    Raises:
        LLMInvalidRequestError: A part cannot be expressed; names it.
    """
    blocks: list[dict[str, Any]] = []
    add_blocks(blocks, parts, at)
    return blocks


def add_blocks(blocks: list[dict[str, Any]], parts: tuple[Part, ...], at: int) -> None:
    """Put the blocks of parts behind those that are there, which a `CachePoint` at the start marks.

    Raises:
        LLMInvalidRequestError: As in `write_blocks`.
    """
    for part in parts:
        if isinstance(part, CachePoint):
            mark(blocks, part)
        elif (block := _block(part, at)) is not None:
            blocks.append(block)


def mark(blocks: list[dict[str, Any]], point: CachePoint) -> None:
    """Mark the last block that can be; none where there is none."""
    for block in reversed(blocks):
        if block["type"] not in _UNMARKED:
            block["cache_control"] = cache_control(point)
            return


def _block(
    part: TextPart | ImagePart | DocumentPart | ThinkingPart | AudioPart | VendorPart, at: int
) -> dict[str, Any] | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} if part.text else None
        case ImagePart():
            return {"type": "image", "source": _source(part, at)}
        case DocumentPart():
            return _document(part, at)
        case ThinkingPart():
            return _thought(part)
        case VendorPart():
            return _own(part, at)
        case AudioPart():
            raise LLMInvalidRequestError(f"messages[{at}] has audio, which Anthropic does not take; pass a transcript")
    assert_never(part)


def _own(part: VendorPart, at: int) -> dict[str, Any]:
    if not isinstance(part.block.get("type"), str):
        raise LLMInvalidRequestError(f"messages[{at}] has a VendorPart whose block has no type; every block has one")
    return dict(part.block)


def _document(part: DocumentPart, at: int) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "document", "source": _source(part, at)}
    if part.title is not None:
        block["title"] = part.title
    if part.context is not None:
        block["context"] = part.context
    if part.citations is not None:
        block["citations"] = {"enabled": part.citations}
    return block


def _source(part: ImagePart | DocumentPart, at: int) -> dict[str, Any]:
    if part.url is not None:
        return _from_data_url(part.url, at) if part.url.startswith("data:") else {"type": "url", "url": part.url}
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    data = part.data or b""
    media_type = _bare(part.media_type or "")
    return _plain(data) if media_type == _PLAIN else _base64(media_type, base64_text(data))


def _from_data_url(url: str, at: int) -> dict[str, Any]:
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type = _bare(head.removesuffix(";base64"))
    if not comma or not media_type:
        raise LLMInvalidRequestError(
            f"messages[{at}] has a data: address without a media type; pass data and media_type"
        )
    if head.endswith(";base64"):
        return _plain(_unpacked(data, at)) if media_type == _PLAIN else _base64(media_type, data)
    raw = unquote_to_bytes(data)
    return _plain(raw) if media_type == _PLAIN else _base64(media_type, base64_text(raw))


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip()  # the vendor compares whole words, and knows none with a charset


def _plain(data: bytes) -> dict[str, Any]:
    return {"type": "text", "media_type": _PLAIN, "data": data.decode(errors="replace")}


def _base64(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "base64", "media_type": media_type, "data": data}


def _unpacked(data: str, at: int) -> bytes:
    try:
        return b64decode(data)
    except ValueError:
        pass
    raise LLMInvalidRequestError(f"messages[{at}] has a data: address that is no base64; pass data and media_type")


def _thought(part: ThinkingPart) -> dict[str, Any] | None:
    if part.id is not None:  # another vendor's, which this one would refuse
        return None
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature is None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}
