"""One line of a batch's input ↔ its row.

Source: https://platform.openai.com/docs/api-reference/batch/request-input
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

import orjson

from .values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A longer line is a bad row, and is not held in memory."""

BLANK: Final = b" \t\r"
"""What a line may hold that holds nothing."""

_BOM: Final = b"\xef\xbb\xbf"

# Azure's own paths have no version.
_URLS: Final = {path: url for url in (CHAT, EMBEDDINGS, RESPONSES) for path in (url, url.removeprefix("/v1"))}


def read_line(line: bytes | None, order: int, number: int, max_row_bytes: int = MAX_ROW_BYTES) -> Row | BadRow | None:
    """Return what a line holds, None for a blank one.

    Args:
        line: The line, with or without its end; None for one that was too long to be held.
        order: The row's place, from 0.
        number: The line's number, from 1.
        max_row_bytes: A longer line is a bad row.
    """
    if line is None or len(line) > max_row_bytes:
        said = f"is longer than {max_row_bytes} bytes; make it shorter, or allow more (max_row_bytes)"
        return _bad(order, number, "row_too_large", said)
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unread(line, order, number, error)
    if type(fields) is not dict:
        return _bad(order, number, "invalid_json", "is JSON but no object; write one JSON object on each line")
    given = cast("dict[str, Any]", fields)
    custom_id, url, body = given.get("custom_id"), given.get("url"), given.get("body")
    if type(custom_id) is str and custom_id and given.get("method") == "POST" and type(url) is str:
        known = _URLS.get(url)
        if known is not None and type(body) is dict:
            return Row(order, custom_id, known, cast("dict[str, Any]", body), number)
    return _refused(given, order, number)


def write_line(row: Row) -> str:
    """Return the line of a row with its newline, byte for byte as `json.dumps` writes it, and so in ASCII."""
    fields = {"custom_id": row.custom_id, "method": "POST", "url": row.url, "body": row.body}
    return json.dumps(fields, allow_nan=False) + "\n"


def _unread(line: bytes, order: int, number: int, error: orjson.JSONDecodeError) -> Row | BadRow | None:
    if not line.strip(BLANK):
        return None
    if line.startswith(_BOM):  # files were put one behind the other
        return read_line(line.removeprefix(_BOM), order, number)
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return _bad(
            order, number, "invalid_utf8", f"is not UTF-8 at its byte {fault.start + 1}; save the file as UTF-8"
        )
    said = f"is no JSON: {error.msg}, at its character {error.pos + 1}; write one JSON object on each line"
    return _bad(order, number, "invalid_json", said)


def _refused(fields: dict[str, Any], order: int, number: int) -> BadRow:
    """Return what is wrong with a line that is an object; its values stay out, for they may be content."""
    custom_id: object = fields.get("custom_id")
    known = custom_id if isinstance(custom_id, str) and custom_id else None
    if known is None:
        absent = custom_id is None or custom_id == ""
        code = "missing_custom_id" if absent else "invalid_custom_id"
        said = "has no custom_id" if absent else "has a custom_id that is no text"
        return _bad(order, number, code, f"{said}; give each row a text of its own")
    if fields.get("method") != "POST":
        return _bad(order, number, "invalid_method", 'has another method than "POST"; write that', known)
    url: object = fields.get("url")
    if not isinstance(url, str) or url not in _URLS:
        said = f"has a url that is none of {CHAT}, {EMBEDDINGS} and {RESPONSES}; write one of these"
        return _bad(order, number, "invalid_url", said, known)
    return _bad(order, number, "invalid_body", "has no body that is an object; put the request there", known)


def _bad(order: int, number: int, code: str, said: str, custom_id: str | None = None) -> BadRow:
    return BadRow(order, number, custom_id, code, f"line {number} {said}")
